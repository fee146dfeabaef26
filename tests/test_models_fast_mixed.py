"""Training steps in mixed precision on a CPU: native norms on bfloat16 maps, against torch's autocast and float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from facelm.models import HRNetConfig, HRNetV2, initialise, native
from facelm.models.native import gradients
from facelm.models.native.training import NativeHRNetV2, for_training

pytestmark = pytest.mark.skipif(not native.available(), reason="no C++ compiler: the native kernels cannot be had")

ROUNDING = 2**-8  # of a number that becomes bfloat16, relative


def maps(*shape):
    return torch.randn(shape).to(torch.bfloat16, memory_format=torch.channels_last)


def small_net():
    torch.manual_seed(0)
    net = HRNetV2(HRNetConfig((16, 16, 16, 16), (1, 1, 1), 1, 16, 2), 16)
    initialise(net, "kaiming")
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.3, 0.5)  # as after training: untrained, each block doubles the rounding
    return net


def trained_on(net, images, *, mixed):
    """Heatmaps, the gradients of every parameter, and the buffers after one step."""
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        heatmaps = net(images)
    heatmaps.double().square().mean().backward()
    wanted = {name: parameter.grad.double() for name, parameter in net.named_parameters()}
    return heatmaps.detach(), wanted, dict(net.named_buffers())


def length(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors]).norm()


class TestStep:
    def test_is_as_exact_as_autocast(self):
        """Both round every map; neither may be further from float64 than the other by more than chance."""
        net, images = small_net().train(), torch.randn(4, 3, 64, 64)
        _, exact, buffers = trained_on(copy.deepcopy(net).double(), images.double(), mixed=False)
        fast = copy.deepcopy(net)
        assert for_training(fast) is None
        off = {}
        for name, one in {"native": fast, "torch": copy.deepcopy(net)}.items():
            heatmaps, found, statistics = trained_on(one, images, mixed=True)
            assert heatmaps.dtype == torch.bfloat16
            off[name] = length(found[key] - exact[key] for key in exact) / length(exact.values())
            for key, value in buffers.items():
                torch.testing.assert_close(statistics[key].to(value.dtype), value, rtol=0.05, atol=0.02, msg=key)
        assert off["native"] < 1.5 * off["torch"] < 0.5, off

    def test_parameters_and_their_gradients_stay_float32(self):
        net = small_net().train()
        assert for_training(net) is None
        trained_on(net, torch.randn(2, 3, 64, 64), mixed=True)
        assert {(p.dtype, p.grad.dtype) for p in net.parameters()} == {(torch.float32, torch.float32)}

    def test_is_run_by_the_native_norms(self, monkeypatch):
        net, seen = small_net().train(), []
        assert for_training(net) is None
        forward = gradients._norm_forward
        monkeypatch.setattr(gradients, "_norm_forward", lambda y, *rest: (seen.append(y.dtype), forward(y, *rest))[1])
        trained_on(net, torch.randn(2, 3, 64, 64), mixed=True)
        assert set(seen) == {torch.bfloat16}

    @pytest.mark.parametrize(("dtype", "narrow"), [(torch.float64, torch.bfloat16), (torch.float32, torch.float16)])
    def test_other_mixtures_are_torch_s(self, monkeypatch, dtype, narrow):
        net = small_net().to(dtype).train()
        net.__class__ = NativeHRNetV2
        monkeypatch.setattr("facelm.models.native.training.heatmaps", None)  # would not be callable
        with torch.autocast("cpu", narrow):
            net(torch.randn(2, 3, 64, 64, dtype=dtype))

    def test_nan_stays(self):
        net, images = small_net().train(), torch.randn(2, 3, 64, 64)
        assert for_training(net) is None
        images[0, 0, 5, 5] = float("nan")
        heatmaps, found, _ = trained_on(net, images, mixed=True)
        assert heatmaps.isnan().any()
        assert found["conv1.weight"].isnan().any()

    def test_frozen_norms(self):
        net, images = small_net().train(), torch.randn(2, 3, 64, 64)
        assert for_training(net) is None
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.eval()
        before = net.bn1.running_mean.clone()
        _, found, _ = trained_on(net, images, mixed=True)
        assert torch.equal(net.bn1.running_mean, before)
        assert length(found.values()) > 0


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("shape", [(2, 16, 1, 1), (1, 19, 3, 5), (2, 36, 33, 9), (3, 270, 4, 4)])
def test_norm_and_its_gradients(relu, summed, shape):
    norm = nn.BatchNorm2d(shape[1])
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    exact = copy.deepcopy(norm).double()
    inputs = [maps(*shape).requires_grad_() for _ in range(2 if summed else 1)]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    upstream = maps(*shape)

    found = gradients.norm_relu(inputs[0], norm, *inputs[1:], relu=relu)
    wanted = exact(wide[0]) + (wide[1] if summed else 0)
    # The same pixels pass: what is rounded to zero on one side alone is not what is tested here.
    wanted = torch.where(found > 0, wanted, 0) if relu else wanted
    found.backward(upstream)
    wanted.backward(upstream.double())

    assert found.dtype == torch.bfloat16
    pairs = [(found, wanted), (norm.weight.grad, exact.weight.grad), (norm.bias.grad, exact.bias.grad)]
    pairs += [(narrow.grad, one.grad) for narrow, one in zip(inputs, wide, strict=True)]
    for mine, theirs in pairs:
        assert (mine.double() - theirs).abs().max() <= 1.1 * ROUNDING * theirs.abs().max()
    torch.testing.assert_close(norm.running_var.double(), exact.running_var, rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("shape", [(1, 16, 1, 1), (2, 19, 3, 5), (1, 36, 1, 4)])
def test_enlargement_rounds_as_torch_does(scale, shape):
    """Its shares are exact in float32, so both must round to the same number, ties included."""
    x = maps(*shape)
    residual = torch.zeros(shape[0], shape[1], scale * shape[2], scale * shape[3], dtype=torch.bfloat16)
    wanted = F.interpolate(x.double(), scale_factor=scale, mode="bilinear", align_corners=False).bfloat16()
    assert torch.equal(gradients.enlarge(x, scale, residual, relu=False), wanted)


@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf"), -float("inf"), 0.0, 3e38, 1e-40])
def test_special_numbers_are_kept(value):
    residual = torch.full((1, 16, 2, 2), value, dtype=torch.bfloat16)
    found = gradients.enlarge(torch.zeros(1, 16, 1, 1, dtype=torch.bfloat16), 2, residual, relu=False)
    torch.testing.assert_close(found, residual, rtol=0, atol=0, equal_nan=True)


def test_a_nan_of_ones_does_not_overflow_into_zero():
    norm = nn.BatchNorm2d(16)
    norm.weight.data = torch.full((16,), 0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
    assert gradients.norm_relu(maps(2, 16, 4, 4), norm).isnan().all()


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_gradient_of_a_map_that_is_handed_on(kernel, stride):
    """Both readers' gradients arrive; the second's comes through the first's operation."""
    conv = nn.Conv2d(16, 24, kernel, stride, kernel // 2, bias=False)
    norm, x = nn.BatchNorm2d(24), maps(2, 16, 8, 8).requires_grad_()
    z, again = gradients.conv_norm_relu(x, conv, norm)
    (z.sum() * 0 + again.sum()).backward()
    assert torch.equal(x.grad, torch.ones_like(x))
