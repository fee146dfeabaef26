import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from facelm.models import HRNetConfig, HRNetV2, build_model, initialise, native
from facelm.models.fast import for_inference
from facelm.models.native import packing
from facelm.models.native.gradients import convolve
from facelm.models.native.program import _MOST_PROGRAMS, NativeNet, obstacle
from facelm.models.native.training import NativeHRNetV2, for_training

# Every layer at least as wide as the widest vector, channels that are no multiple of one.
SMALL = HRNetConfig(channels=(18, 20, 24, 36), modules=(1, 1, 1), blocks=1, stem=16, stem_blocks=2)

needs_native = pytest.mark.skipif(not native.available(), reason="no C++ compiler: the native kernels cannot be had")


def small_net(dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    net = HRNetV2(SMALL, 21)
    initialise(net, "kaiming")
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            with torch.no_grad():
                norm.weight.uniform_(0.3, 0.5)
                norm.bias.normal_(0, 0.05)
                norm.running_mean.normal_(0, 0.05)
                norm.running_var.uniform_(0.75, 1.25)
    with torch.no_grad():
        net.head[3].weight.normal_(0, 0.1)
    return net.eval().to(dtype)


def size_of_difference(actual, expected):
    return ((actual - expected).abs().max() / expected.std()).item()


@pytest.fixture(params=["torch", pytest.param("native", marks=needs_native)])
def backend(request):
    return request.param


class TestInference:
    # 96 px: branches of 24, 12, 6 and 3 cells, so 4x4 tiles hang over; 5 images: more than go through at once.
    @pytest.mark.parametrize(("batch", "size"), [(1, 64), (3, 96), (5, 64)])
    def test_heatmaps_are_those_of_the_readable_network(self, backend, batch, size):
        net = small_net()
        images = torch.randn(batch, 3, size, size)
        with torch.no_grad():
            expected = net(images)
        actual = for_inference(net, crop_size=size, backend=backend)(images)
        assert actual.shape == expected.shape
        assert size_of_difference(actual, expected) < 1e-4

    def test_widths_of_w18(self, backend):
        net = build_model(init="kaiming").eval()
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            expected = net(images)
        actual = for_inference(net, crop_size=64, backend=backend)(images)
        assert size_of_difference(actual, expected) < 1e-4

    def test_algebra_is_exact(self, backend):
        net = small_net(torch.float64)
        images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
        with torch.no_grad():
            expected = net(images)
        actual = for_inference(net, crop_size=64, backend=backend)(images)
        assert size_of_difference(actual, expected) < 1e-11

    def test_memory_order_of_the_images_does_not_matter(self, backend):
        run = for_inference(small_net(), crop_size=64, backend=backend)
        images = torch.randn(2, 3, 64, 64)
        kept = images.clone()
        heatmaps = run(images)
        torch.testing.assert_close(run(images.contiguous(memory_format=torch.channels_last)), heatmaps)
        torch.testing.assert_close(images, kept, rtol=0, atol=0)

    def test_earlier_results_are_not_overwritten(self, backend):
        run = for_inference(small_net(), crop_size=64, backend=backend)
        first = run(torch.randn(1, 3, 64, 64))
        kept = first.clone()
        run(torch.randn(1, 3, 64, 64))
        torch.testing.assert_close(first, kept, rtol=0, atol=0)

    def test_weights_are_a_copy(self, backend):
        net = small_net()
        run = for_inference(net, crop_size=64, backend=backend)
        images = torch.randn(1, 3, 64, 64)
        before = run(images)
        with torch.no_grad():
            for tensor in [*net.parameters(), *net.buffers()]:
                tensor.zero_()
        torch.testing.assert_close(run(images), before, rtol=0, atol=0)
        assert run(torch.randn(2, 3, 64, 64)).abs().sum() > 0  # a new shape is prepared from the copy too


@needs_native
class TestNativeNet:
    def test_threads_share_one(self):
        run = NativeNet(small_net())
        images = [torch.randn(1, 3, 64, 64) for _ in range(6)]
        expected = [run(image) for image in images]
        found = [None] * len(images)

        def work(index):
            for _ in range(5):
                found[index] = run(images[index])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(images))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for actual, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(actual, wanted, rtol=0, atol=0)

    def test_number_of_threads_does_not_change_the_result(self):
        run, images = NativeNet(small_net()), torch.randn(2, 3, 64, 64)
        before = torch.get_num_threads()
        try:
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(run(images))
        finally:
            torch.set_num_threads(before)
        for result in results[1:]:
            torch.testing.assert_close(result, results[0], rtol=0, atol=0)

    def test_keeps_buffers_for_few_shapes(self):
        run = NativeNet(small_net())
        for size in (32, 64, 96, 128, 160, 32):
            assert run(torch.randn(1, 3, size, size)).shape[-1] == size // 4
        assert len(run._programs) == _MOST_PROGRAMS


@needs_native
class TestKernels:
    @pytest.mark.parametrize("shape", [(1, 16, 3, 3), (2, 18, 8, 8), (3, 36, 13, 6), (1, 40, 5, 70)])
    def test_convolution_and_its_gradients(self, shape):
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(19, shape[1], 3, 3, dtype=torch.float64, requires_grad=True)
        expected = F.conv2d(x, weight, padding=1)
        upstream = torch.randn_like(expected)
        wanted = torch.autograd.grad(expected, (x, weight), upstream)
        actual = convolve(x, weight)
        found = torch.autograd.grad(actual, (x, weight), upstream)
        for a, b in zip((actual, *found), (expected, *wanted), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)

    def test_points_of_a_constant_kernel(self):
        # The value of a kernel of ones at the point 1 is the sum of its taps times G's row squared: (3 / 6)^2.
        points = packing.winograd_weight(torch.ones(16, 16, 3, 3, dtype=torch.float64))
        assert points.view(6, 6, -1)[1, 1].unique().item() == pytest.approx(0.25)


def losses_and_state(net, steps):
    """Losses of some Adam steps, the last gradients, and the state after them."""
    draw = torch.Generator().manual_seed(1)
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        images = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=draw)
        target = torch.randn(2, 21, 16, 16, dtype=torch.float64, generator=draw)
        adam.zero_grad()
        loss = (net(images) - target).square().mean()
        loss.backward()
        losses.append(loss.item())
        if steps > 1:
            adam.step()
    return losses, {name: p.grad for name, p in net.named_parameters()}, net.state_dict()


@needs_native
class TestTraining:
    def pair(self):
        net = small_net(torch.float64).train()
        fast = copy.deepcopy(net)
        assert for_training(fast) is None
        return net, fast

    def test_gradients_of_every_parameter(self):
        net, fast = self.pair()
        (expected,), wanted, state = losses_and_state(net, 1)
        (actual,), found, fast_state = losses_and_state(fast, 1)
        assert actual == pytest.approx(expected, rel=1e-12)
        # The bias before a batch norm has the gradient 0: it is compared with the size of all the others.
        largest = max(gradient.norm() for gradient in wanted.values())
        for name, gradient in wanted.items():
            assert (found[name] - gradient).norm() <= 1e-9 * gradient.norm() + 1e-13 * largest, name
        for name, value in state.items():
            torch.testing.assert_close(fast_state[name], value, rtol=1e-9, atol=1e-12, msg=name)

    def test_three_steps(self):
        net, fast = self.pair()
        expected, _, _ = losses_and_state(net, 3)
        actual, _, _ = losses_and_state(fast, 3)
        assert actual == pytest.approx(expected, rel=1e-7)

    def test_statistics_as_a_plain_average(self):
        net, fast = self.pair()
        for norm in [m for n in (net, fast) for m in n.modules() if isinstance(m, nn.BatchNorm2d)]:
            norm.momentum = None
            norm.reset_running_stats()
        _, _, state = losses_and_state(net, 2)
        _, _, fast_state = losses_and_state(fast, 2)
        torch.testing.assert_close(fast_state["bn1.running_var"], state["bn1.running_var"], rtol=1e-9, atol=0)

    def test_names_copies_and_evaluation_stay(self):
        net, fast = self.pair()
        assert list(fast.state_dict()) == list(net.state_dict())
        assert isinstance(copy.deepcopy(fast), NativeHRNetV2)
        images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
        torch.testing.assert_close(fast.eval()(images), net.eval()(images), rtol=0, atol=0)

    def test_float32_is_close(self):
        net, fast = (n.float() for n in self.pair())
        images = torch.randn(2, 3, 64, 64)
        assert size_of_difference(fast(images).detach(), net(images).detach()) < 1e-3

    def test_autocast_takes_the_readable_way(self):
        _, fast = self.pair()
        with torch.autocast("cpu", torch.bfloat16):
            assert fast.float()(torch.randn(2, 3, 64, 64)).dtype == torch.bfloat16


class TestMistakes:
    def test_unknown_backend(self):
        with pytest.raises(ValueError, match="unknown inference backend='tensorrt'; choose one of auto, native, torch"):
            for_inference(small_net(), crop_size=64, backend="tensorrt")

    @pytest.mark.parametrize("size", [0, -32, 100])
    def test_crop_size(self, size):
        with pytest.raises(ValueError, match=f"crop_size={size} must be a positive multiple of 32"):
            for_inference(small_net(), crop_size=size)

    def test_wrong_image_size(self, backend):
        with pytest.raises(ValueError, match="multiples of 32"):
            for_inference(small_net(), crop_size=64, backend=backend)(torch.randn(1, 3, 60, 64))

    def test_native_that_is_forbidden(self, monkeypatch):
        native.library.cache_clear()
        monkeypatch.setenv("FACELM_NATIVE", "0")
        with pytest.raises(ValueError, match=r"FACELM_NATIVE=0\. backend='torch' works everywhere"):
            for_inference(small_net(), crop_size=64, backend="native")
        assert not isinstance(for_inference(small_net(), crop_size=64), NativeNet)
        assert for_training(small_net()) == "FACELM_NATIVE=0"
        native.library.cache_clear()

    def test_half_precision(self):
        assert "in torch.bfloat16, native code is for float32 on the CPU" in obstacle(small_net().bfloat16())


class TestCompiling:
    @pytest.fixture(autouse=True)
    def _fresh(self, monkeypatch, tmp_path):
        native.library.cache_clear()
        monkeypatch.setenv("FACELM_CACHE", str(tmp_path))
        yield
        native.library.cache_clear()

    @needs_native
    def test_happens_once(self, monkeypatch, tmp_path):
        native.library()
        compiled = sorted((tmp_path / "native").iterdir())
        assert len(compiled) == 2, "the library and its SHA-256"
        native.library.cache_clear()
        monkeypatch.setattr(native, "_compile", pytest.fail)
        native.library()
        assert sorted((tmp_path / "native").iterdir()) == compiled

    def test_compiler_that_fails(self, monkeypatch, tmp_path):
        monkeypatch.setenv("CXX", "false")
        with pytest.raises(RuntimeError, match="false -O3 .* failed"):
            native.library()
        assert not [*(tmp_path / "native").iterdir()]

    def test_compiler_that_is_not_there(self, monkeypatch):
        monkeypatch.setenv("CXX", "no-such-compiler")
        assert not native.available()
        assert not isinstance(for_inference(small_net(), crop_size=64), NativeNet)
