"""The native operations of a training step, one by one, against torch's."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from facelm.models import native
from facelm.models.native import gradients

pytestmark = pytest.mark.skipif(not native.available(), reason="no C++ compiler: the native kernels cannot be had")

NHWC = torch.channels_last


def with_gradients(function, inputs):
    """What `function` gives for inputs that need gradients, and their gradients for a fixed upstream one."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    result = function(*inputs)
    upstream = torch.randn(result.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return [result.detach(), *torch.autograd.grad(result, inputs, upstream.to(result.dtype))]


def require_close(found, wanted, tolerance):
    """Every tensor within `tolerance` of the size of its numbers."""
    assert len(found) == len(wanted)
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * b.abs().max(), i


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


class TestConvolve:
    @pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
    @pytest.mark.parametrize("shape", [(1, 8, 1, 1), (1, 9, 2, 1), (2, 18, 8, 8), (3, 20, 13, 7), (1, 40, 5, 70)])
    def test_in_double_precision(self, kernel, stride, shape, threads):
        x = torch.randn(shape, dtype=torch.float64)
        weight = torch.randn(19, shape[1], kernel, kernel, dtype=torch.float64)
        bias = torch.randn(19, dtype=torch.float64)
        wanted = with_gradients(lambda *of: F.conv2d(*of, stride, kernel // 2), (x, weight, bias))
        found = with_gradients(lambda *of: gradients.convolve(*of, stride), (x, weight, bias))
        require_close(found, wanted, 1e-12)

    @pytest.mark.parametrize(
        ("inputs", "outputs", "kernel", "stride", "size"),
        [
            (18, 18, 3, 1, 16), (36, 36, 3, 1, 9), (72, 72, 3, 1, 7), (144, 144, 3, 1, 4), (256, 18, 3, 1, 8),
            (3, 64, 3, 2, 33), (64, 64, 3, 2, 32), (256, 36, 3, 2, 8), (72, 144, 3, 2, 7), (18, 480, 3, 2, 5),
            (64, 256, 1, 1, 8), (256, 64, 1, 1, 8), (270, 68, 1, 1, 8), (480, 270, 1, 1, 3), (144, 18, 1, 1, 1),
        ],
    )  # fmt: skip
    def test_the_networks_widths_in_single_precision(self, inputs, outputs, kernel, stride, size, threads):
        x, weight = torch.randn(2, inputs, size, size), torch.randn(outputs, inputs, kernel, kernel)
        wanted = with_gradients(lambda *of: F.conv2d(*of, None, stride, kernel // 2), (x.double(), weight.double()))
        found = with_gradients(lambda *of: gradients.convolve(*of, None, stride), (x, weight))
        require_close(found, wanted, 3e-5)

    def test_many_pixels_sum_up_exactly(self):
        x, weight = torch.randn(4, 16, 96, 96), torch.randn(16, 16, 1, 1)
        wanted = with_gradients(F.conv2d, (x.double(), weight.double()))
        require_close(with_gradients(gradients.convolve, (x, weight)), wanted, 1e-5)

    @pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
    @pytest.mark.parametrize("order", ["contiguous", "channels last", "a part"])
    def test_memory_order_of_the_weight_does_not_matter(self, kernel, stride, order):
        whole = torch.randn(20, 40, kernel, kernel, dtype=torch.float64, requires_grad=True)
        kept = whole.contiguous(memory_format=NHWC) if order == "channels last" else whole
        weight = kept[:, :24] if order == "a part" else kept
        x = torch.randn(2, weight.shape[1], 6, 5, dtype=torch.float64)
        (wanted,) = torch.autograd.grad(F.conv2d(x, weight, None, stride, kernel // 2).square().sum(), whole)
        y = gradients.convolve(x.contiguous(memory_format=NHWC), weight, None, stride)
        (found,) = torch.autograd.grad(y.square().sum(), whole)
        require_close([found], [wanted], 1e-11)

    def test_gradient_of_images(self):
        x, weight = torch.randn(1, 3, 9, 8, dtype=torch.float64), torch.randn(16, 3, 3, 3, dtype=torch.float64)
        wanted = with_gradients(lambda *of: F.conv2d(*of, None, 2, 1), (x, weight))
        require_close(with_gradients(lambda *of: gradients.convolve(*of, None, 2), (x, weight)), wanted, 1e-12)

    @pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
    def test_repeats_to_the_bit(self, kernel, stride, threads):
        of = torch.randn(3, 36, 17, 16), torch.randn(40, 36, kernel, kernel)
        first, second = (with_gradients(lambda *of: gradients.convolve(*of, None, stride), of) for _ in range(2))
        require_close(first, second, 0)


def norm_of(channels, dtype):
    norm = nn.BatchNorm2d(channels, dtype=dtype)
    with torch.no_grad():
        norm.weight.uniform_(-1, 1)  # negative too: the ReLU's sign turns
        norm.bias.normal_()
        norm.running_mean.normal_()
    return norm


def torch_norm_relu(norm, y, residual, relu):
    z = norm(y) if residual is None else norm(y) + residual
    return F.relu(z) if relu else z


class TestNormReLU:
    @pytest.mark.parametrize("relu", [True, False])
    @pytest.mark.parametrize("summed", [True, False])
    @pytest.mark.parametrize("shape", [(2, 8, 1, 1), (1, 19, 3, 5), (2, 36, 33, 9), (3, 256, 4, 4)])
    def test_in_double_precision(self, relu, summed, shape, threads):
        norm = norm_of(shape[1], torch.float64)
        other = copy.deepcopy(norm)
        inputs = [torch.randn(shape, dtype=torch.float64), norm.weight, norm.bias]
        inputs += [torch.randn(shape, dtype=torch.float64)] if summed else []

        def run(module, function):
            def call(y, weight, bias, residual=None):
                del module.weight, module.bias
                module.weight, module.bias = weight, bias
                return function(module, y, residual, relu)

            return with_gradients(call, inputs)

        wanted = run(other, torch_norm_relu)
        found = run(norm, lambda module, y, residual, relu: gradients.norm_relu(y, module, residual, relu))
        require_close(found, wanted, 1e-10)
        require_close(list(norm.buffers()), list(other.buffers()), 1e-12)

    @pytest.mark.parametrize("channels", [18, 36, 64, 72, 144, 256, 270, 480])
    def test_the_networks_widths_in_single_precision(self, channels, threads):
        norm = norm_of(channels, torch.float32)
        exact = copy.deepcopy(norm).double()
        y = torch.randn(2, channels, 19, 17) + 30  # a mean far from zero
        (wanted,) = with_gradients(lambda y: torch_norm_relu(exact, y, None, False), [y.double()])[:1]
        found, for_y = with_gradients(lambda y: gradients.norm_relu(y, norm, None, relu=False), [y])
        require_close([found], [wanted], 1e-4)
        torch.testing.assert_close(norm.running_var, exact.running_var.float(), rtol=1e-5, atol=0)
        assert for_y.mean((0, 2, 3)).abs().max() < 1e-4  # the mean has no influence

    def test_one_pixel_has_no_variance(self):
        with pytest.raises(ValueError, match=r"saw one pixel, \[1, 16, 1, 1\]: there is no variance\. Take a larger"):
            gradients.norm_relu(torch.randn(1, 16, 1, 1), nn.BatchNorm2d(16))


class TestConvNormReLU:
    @pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
    @pytest.mark.parametrize("summed", [True, False])
    def test_is_both_in_turn(self, kernel, stride, summed, threads):
        conv = nn.Conv2d(20, 24, kernel, stride, kernel // 2, bias=False, dtype=torch.float64)
        norm = norm_of(24, torch.float64)
        other = copy.deepcopy(norm)
        x = torch.randn(3, 20, 10, 7, dtype=torch.float64)
        inputs = [x, torch.randn_like(conv(x))] if summed else [x]

        def native_way(x, residual=None):
            return gradients.conv_norm_relu(x, conv, norm, residual)[0]

        def torch_way(x, residual=None):
            return torch_norm_relu(other, conv(x), residual, relu=True)

        require_close(with_gradients(native_way, inputs), with_gradients(torch_way, inputs), 1e-10)
        require_close(list(norm.buffers()), list(other.buffers()), 1e-12)
        parameters = [conv.weight, norm.weight, norm.bias]
        found = torch.autograd.grad(native_way(*inputs).square().sum(), parameters)
        wanted = torch.autograd.grad(torch_way(*inputs).square().sum(), [conv.weight, other.weight, other.bias])
        require_close(found, wanted, 1e-10)

    @pytest.mark.parametrize(("inputs", "kernel", "stride"), [(20, 1, 1), (20, 3, 1), (20, 3, 2), (3, 3, 2)])
    def test_the_map_that_is_handed_on_has_a_gradient_too(self, inputs, kernel, stride, threads):
        conv = nn.Conv2d(inputs, 24, kernel, stride, kernel // 2, bias=False, dtype=torch.float64)
        norm = norm_of(24, torch.float64)
        x = torch.randn(2, inputs, 9, 7, dtype=torch.float64)

        def native_way(x):
            z, again = gradients.conv_norm_relu(x, conv, norm)
            return torch.cat([z.flatten(), again.square().flatten()])

        def torch_way(x):
            return torch.cat([F.relu(norm(conv(x))).flatten(), x.square().flatten()])

        require_close(with_gradients(native_way, [x]), with_gradients(torch_way, [x]), 1e-10)
        (found,) = with_gradients(lambda x: gradients.conv_norm_relu(x, conv, norm)[1].square(), [x])[1:]
        (wanted,) = with_gradients(torch.square, [x])[1:]
        require_close([found], [wanted], 1e-12)


class TestEnlarge:
    @pytest.mark.parametrize("scale", [2, 3, 4, 8])
    @pytest.mark.parametrize("relu", [True, False])
    @pytest.mark.parametrize("shape", [(1, 8, 1, 1), (2, 19, 3, 5), (1, 36, 1, 4)])
    def test_result_and_gradients(self, scale, relu, shape, threads):
        batch, channels, height, width = shape
        x = torch.randn(shape, dtype=torch.float64)
        residual = torch.randn(batch, channels, scale * height, scale * width, dtype=torch.float64)

        def torch_way(x, residual):
            y = residual + F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
            return F.relu(y) if relu else y

        found = with_gradients(lambda x, r: gradients.enlarge(x, scale, r, relu), (x, residual))
        require_close(found, with_gradients(torch_way, (x, residual)), 1e-12)
