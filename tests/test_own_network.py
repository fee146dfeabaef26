"""A network of the reader's own: docs/models.md's, from training to ONNX, and what is refused at the start."""

import re
import shlex
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn

from conftest import TINY, compose
from facelm.cli import main
from facelm.launch.build import require_network
from facelm.models import ARCHITECTURES, HRNetV2
from facelm.models.fast import for_inference
from facelm.models.loading import load_model
from facelm.models.spec import ModelSpec
from facelm.predict import Predictor
from facelm.train import train
from facelm.training.lit import LitLandmarks
from perfect_network import map_image

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
CLASS = "my_network.Hourglass"
OWN = [f"model._target_={CLASS}", "+model.width=8"]


@pytest.fixture(scope="module")
def my_network(tmp_path_factory):
    """The module of the docs, in the current folder."""
    folder = tmp_path_factory.mktemp("own")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    (folder / "my_network.py").write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        yield folder
    sys.modules.pop("my_network", None)


@pytest.fixture(scope="module")
def own_run(my_network, drawn_root):
    run_dir = my_network / "run"
    overrides = [*TINY, "codec=subpixel", f"data.root={drawn_root}", f"run_dir={run_dir}", "trainer.max_epochs=1"]
    train(compose("train", *overrides, *OWN))
    return run_dir


def hourglass():
    return sys.modules["my_network"].Hourglass


class TestOfTheDocs:
    def test_trains_and_is_recorded(self, own_run):
        assert (own_run / "report" / "summary.json").is_file()
        spec = torch.load(own_run / "checkpoints" / "last.ckpt", weights_only=True)["facelm"]["spec"]
        assert (spec["architecture"], spec["arguments"]) == (CLASS, {"width": 8})

    def test_nothing_is_imported_unless_it_is_named(self, own_run):
        module = sys.modules.pop("my_network")
        try:
            for load in (load_model, Predictor.load, LitLandmarks.from_checkpoint):
                with pytest.raises(ValueError, match=r"my_network\.Hourglass.*If you trust that class, name it"):
                    load(own_run)
            assert "my_network" not in sys.modules
        finally:
            sys.modules["my_network"] = module

    def test_loads_with_the_class(self, own_run):
        nets = [one(own_run, network=hourglass()).net for one in (load_model, LitLandmarks.from_checkpoint)]
        assert all(torch.equal(a, b) for a, b in zip(*(net.state_dict().values() for net in nets), strict=True))
        assert len(Predictor.load(own_run, "cpu", network=hourglass())(map_image(), [80, 60, 160, 140])) == 1

    def test_the_commands_of_the_docs(self, own_run, my_network, drawn_root, capsys):
        lines = re.findall(r"^(?:python -m )?(facelm.*(?:network=|--network).*)$", PAGE, re.M)
        assert len(lines) == 3
        import cv2

        cv2.imwrite("photo.jpg", map_image())
        Path("boxes.csv").write_text("image,x1,y1,x2,y2\nphoto.jpg,80,60,160,140\n")
        for line in lines:
            words = shlex.split(line.replace("RUN", str(own_run)))
            if words[0] == "facelm.evaluate":
                self.evaluate(words[1:], own_run)
                continue
            boxes = ["--boxes", "boxes.csv"] if words[1] == "predict" else []
            assert main([*words[1:], *boxes]) == 0, capsys.readouterr().err
        assert "100.00 % of" in capsys.readouterr().out  # ONNX Runtime against the Predictor
        assert main(["info", str(own_run), "--network", CLASS]) == 0
        assert CLASS in capsys.readouterr().out

    def evaluate(self, typed, run):
        from hydra.core.global_hydra import GlobalHydra

        from facelm import evaluate

        summary = run / "report" / "summary.json"
        summary.unlink()
        GlobalHydra.instance().clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["evaluate", *typed, "device=cpu", "data.num_workers=0"])
            evaluate.main()
        assert summary.is_file()

    def test_starts_from_its_own_weights(self, own_run, drawn_root):
        from facelm.launch.build import build_network, model_spec

        cfg = compose("train", *TINY, f"model.weights={own_run}", *OWN)
        net = build_network(cfg, model_spec(cfg))
        want = load_model(own_run, network=hourglass()).net.state_dict()
        assert all(torch.equal(value, want[key]) for key, value in net.state_dict().items())

    def test_is_not_for_weights_of_facelm_s(self, trained_run, own_run):
        with pytest.raises(ValueError, match="leave out"):
            load_model(trained_run, network=hourglass())


class Odd(nn.Module):
    """Heatmaps of another size."""

    def __init__(self, num_landmarks: int, stride: int = 2, extra: object = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_landmarks, 1, stride)

    def forward(self, images):
        return self.conv(images)


class Random(Odd):
    """What it is made of is not in its arguments."""

    made = 0

    def __init__(self, num_landmarks: int) -> None:
        super().__init__(num_landmarks, stride=4)
        Random.made += 1
        self.more = nn.Linear(1, Random.made)


class Stateful(Odd):
    """Keeps something that is no tensor."""

    def __init__(self, num_landmarks: int) -> None:
        super().__init__(num_landmarks, stride=4)

    def get_extra_state(self):
        return {"calls": 1}

    def set_extra_state(self, state):
        return None


class TestRefusedAtTheStart:
    def test_a_key_of_facelm_s_networks(self):
        typed = ["model._target_=test_own_network.Odd", "+model.stride=4", "model.init=mmpose"]
        with pytest.raises(ValueError, match="model.init=mmpose: .* has no argument of that name"):
            require_network(compose("train", *TINY, *typed), typed)

    @pytest.mark.parametrize(
        ("overrides", "said"),
        [
            (["model._target_=test_own_network.Odd"], r"gives \[1, 68, 32, 32\].*\[1, 68, 16, 16\] are needed"),
            (["model._target_=test_own_network.Odd", "+model.wide=3"], r"cannot be made with.*\+model\.KEY=VALUE"),
            (["model._target_=test_own_network.Odd", "+model.stride=[1,2,3]"], "cannot be made|cannot take an image"),
            (
                ["model._target_=test_own_network.Odd", "+model.extra._target_=torch.nn.ReLU"],
                r"model\.extra\._target_.*describes an object",
            ),
            (["model._target_=test_own_network.Random"], r"could not be loaded again.*more\."),
            (["model._target_=test_own_network.Stateful"], "is no tensor"),
            (["model._target_=nowhere.Net"], "no network 'nowhere.Net'"),
            (["model._target_=Net"], "no network 'Net'"),
            (["model._target_=os.path.join"], "inherits from torch.nn.Module"),
        ],
    )
    def test_one_sentence(self, overrides, said):
        with pytest.raises(ValueError, match=said):
            require_network(compose("train", *TINY, *overrides))

    def test_another_network_than_the_spec_says(self):
        """It would train, and its checkpoint would carry an HRNet's name."""
        spec = ModelSpec(architecture="hrnetv2_tiny", crop_size=64)
        for net in (Odd(68, 4), type("Mine", (HRNetV2,), {})(ARCHITECTURES["hrnetv2_tiny"], 68)):
            with pytest.raises(ValueError, match="is no hrnetv2_tiny"):
                LitLandmarks(spec=spec, net=net)
        own = ModelSpec(architecture="test_own_network.Odd", arguments={"stride": 4}, crop_size=64)
        assert isinstance(LitLandmarks(spec=own, net=Odd(68, 4)), L.LightningModule)

    def test_the_training_does_not_notice_the_trial(self):
        spec = ModelSpec(architecture="test_own_network.Odd", arguments={"stride": 4}, crop_size=64)
        net = spec.build_network(Odd)
        before = torch.random.get_rng_state()
        spec.require_network(net)
        assert torch.equal(before, torch.random.get_rng_state())
        assert net.training


def test_a_network_made_of_ours_predicts_with_its_own_forward():
    class Mine(HRNetV2):
        def forward(self, images):
            return 2 * super().forward(images)

    net = Mine(ARCHITECTURES["hrnetv2_tiny"], 68).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(for_inference(net, crop_size=64)(images), net(images))
