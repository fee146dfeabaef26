"""What native code must not hide: frozen norms, NaN, a fork, a library that somebody else could have written."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from facelm.models import HRNetConfig, HRNetV2, build_model, native
from facelm.models.fast import for_inference
from facelm.models.native.training import for_training
from facelm.models.spec import ModelSpec
from facelm.training.lit import LitLandmarks

needs_native = pytest.mark.skipif(not native.available(), reason="no C++ compiler: the native kernels cannot be had")
SMALL = HRNetConfig(channels=(18, 20, 24, 36), modules=(1, 1, 1), blocks=1, stem=16, stem_blocks=2)


def small(landmarks: int = 16) -> HRNetV2:
    torch.manual_seed(0)
    net = HRNetV2(SMALL, landmarks).double()
    for norm in norms(net):
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return net


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


def frozen(net):
    for norm in norms(net):
        norm.eval()


def partly_frozen(net):
    for norm in norms(net)[::3]:
        norm.eval()


def no_running_statistics(net):
    for norm in norms(net)[::4]:
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
        norm.num_batches_tracked = None


def statistics_kept_as_they_are(net):
    for norm in norms(net)[::4]:
        norm.track_running_stats = False


def other_momenta(net):
    for i, norm in enumerate(norms(net)):
        norm.momentum = (None, 0.0, 0.3)[i % 3]


def without_gradients(net):
    for i, parameter in enumerate(net.parameters()):
        parameter.requires_grad_(i % 3 == 0)


def frozen_backbone(net):
    frozen(net)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith("head"))


@needs_native
@pytest.mark.parametrize(
    "change",
    [
        *(frozen, partly_frozen, no_running_statistics, statistics_kept_as_they_are),
        *(other_momenta, without_gradients, frozen_backbone),
    ],
)
def test_a_changed_network_trains_as_it_does_in_torch(change):
    """Outputs, gradients, running statistics and counters, in float64."""
    eager, fast = small(), small()
    for net in (eager, fast):
        net.train()
        change(net)
    assert for_training(fast) is None
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for _ in range(2):
        outputs = [net(images) for net in (eager, fast)]
        for heatmaps in outputs:
            (heatmaps**2).mean().backward()
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-9, atol=1e-9)
    for (name, mine), theirs in zip(fast.named_parameters(), eager.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), name
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-7, atol=1e-9, msg=name)
    for (name, mine), theirs in zip(fast.named_buffers(), eager.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9, msg=name)


@needs_native
class TestNaN:
    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    @pytest.mark.parametrize("where", ["conv1.weight", "stage4.0.branches.3.0.conv2.weight", "head.0.bias", "image"])
    def test_prediction_keeps_it(self, bad, where):
        net, images = small().float().eval(), torch.rand(1, 3, 64, 64)
        if where == "image":
            images[0, 0, 30, 30] = bad
        else:
            with torch.no_grad():
                net.get_parameter(where).view(-1)[0] = bad
        with torch.no_grad():
            expected, found = net(images), for_inference(net, crop_size=64, backend="native")(images)
        assert not torch.isfinite(expected).all(), "torch's own network shows it"
        assert not torch.isfinite(found[~torch.isfinite(expected)]).any()

    def test_training_keeps_it_forward_and_backward(self):
        eager, fast = small().train(), small().train()
        assert for_training(fast) is None
        images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
        images[0, 0, 5, 5] = float("nan")
        for net in (eager, fast):
            heatmaps = net(images)
            assert torch.isnan(heatmaps).any()
            heatmaps.sum().backward()
        for (name, mine), theirs in zip(fast.named_parameters(), eager.parameters(), strict=True):
            assert torch.isnan(mine.grad).any() == torch.isnan(theirs.grad).any(), name
        for (name, mine), theirs in zip(fast.named_buffers(), eager.buffers(), strict=True):
            assert torch.equal(torch.isnan(mine), torch.isnan(theirs)), name


@needs_native
def test_who_takes_the_steps_is_said(caplog):
    spec = ModelSpec(architecture="hrnetv2_w18", crop_size=64)
    native_code = dict.fromkeys(("32-true", "bf16-mixed"), "native code")
    for precision, said in {"16-mixed": "torch: 16-mixed is not theirs", **native_code}.items():
        lit = LitLandmarks(spec=spec, net=build_model("hrnetv2_w18"), native=True)
        lit._trainer = SimpleNamespace(precision=precision)
        with caplog.at_level("INFO"):
            lit.on_fit_start()
        assert caplog.messages[-1] == f"training steps by {said}"


def test_norms_that_cannot_be_folded_are_left_to_torch():
    net = small().float().eval()
    no_running_statistics(net)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(for_inference(net, crop_size=64)(images), net(images))


class TestProcesses:
    def test_a_forked_process_predicts(self):
        """OpenMP's threads are not there in the child, where the parent's lock may be held, too."""
        code = (
            "import os, sys, torch\n"
            "from facelm.models import HRNetConfig, HRNetV2\n"
            "from facelm.models.fast import for_inference\n"
            "torch.set_num_threads(2)\n"
            "net = HRNetV2(HRNetConfig((16, 16, 16, 16), (1, 1, 1), 1, 16, 2), 16).eval()\n"
            "run, images = for_inference(net, crop_size=64), torch.rand(4, 3, 64, 64)\n"
            "before = run(images)\n"
            "if hasattr(run, '_lock'): run._lock.acquire()\n"
            "pid = os.fork()\n"
            "if pid == 0:\n"
            "    os._exit(0 if torch.allclose(run(images), before, atol=1e-5) else 1)\n"
            "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

    @pytest.mark.parametrize(
        ("own", "said"),
        [
            ({}, "GOMP_SPINCOUNT = '3000'"),
            ({"OMP_WAIT_POLICY": "ACTIVE"}, "OMP_WAIT_POLICY = 'ACTIVE'"),
            ({"GOMP_SPINCOUNT": "7"}, "GOMP_SPINCOUNT = '7'"),
        ],
    )
    def test_threads_spin_for_a_short_time(self, own, said):
        """As libgomp itself says when torch loads it; what the user has set stays."""
        environment = {key: value for key, value in os.environ.items() if "OMP_" not in key} | own
        command = [sys.executable, "-c", "import facelm.models, torch"]
        environment["OMP_DISPLAY_ENV"] = "VERBOSE"
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert said in done.stderr


@needs_native
class TestWhoIsLetIn:
    @pytest.fixture
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FACELM_CACHE", str(tmp_path / "cache"))
        native.library.cache_clear()
        yield tmp_path / "cache" / "native"
        native.library.cache_clear()

    def test_the_folder_is_this_users_alone_whatever_the_umask(self, cache):
        former = os.umask(0)
        try:
            native.library()
        finally:
            os.umask(former)
        assert cache.stat().st_mode & 0o777 == 0o700
        assert not any(path.stat().st_mode & 0o022 for path in cache.glob("*.so"))

    def test_a_folder_that_others_can_write_is_refused(self, cache):
        cache.mkdir(parents=True)
        cache.chmod(0o777)
        with pytest.raises(RuntimeError, match="chmod go-w"):
            native.library()

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files away")
    def test_another_users_folder_or_library_is_refused(self, cache):
        native.library()
        (library,) = cache.glob("*.so")
        for path in (library, cache):
            native.library.cache_clear()
            os.chown(path, 12345, -1)
            with pytest.raises(RuntimeError, match="belongs to another user"):
                native.library()
            os.chown(path, 0, -1)

    @pytest.mark.parametrize("size", [0, 4096])
    def test_a_cut_library_is_compiled_anew(self, cache, size):
        native.library()
        (library,) = cache.glob("*.so")
        whole = library.stat().st_size
        native.library.cache_clear()
        content = library.read_bytes()[:size]
        library.unlink()  # the one that is loaded stays as it is
        library.write_bytes(content)
        assert native.library().lanes() > 0
        assert library.stat().st_size == whole


def test_what_a_killed_compiler_left_is_removed_and_what_a_running_one_writes_is_not(tmp_path):
    old, young = tmp_path / "kernels.1.part", tmp_path / "kernels.2.part"
    old.write_bytes(b"")
    young.write_bytes(b"")
    os.utime(old, (0, 0))
    native._compile([sys.executable, "-c", "import sys; open(sys.argv[2], 'w')"], tmp_path / "x.so")
    assert sorted(os.listdir(tmp_path)) == ["kernels.2.part", "x.so", "x.so.sha256"]
