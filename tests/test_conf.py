"""Every file of conf/ composes, and what it describes can be built."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

import warm
from conftest import compose
from facelm.launch.build import build, build_data, model_spec
from facelm.launch.paths import CONF_DIR

EXPERIMENTS = sorted(path.stem for path in (CONF_DIR / "experiment").glob("*.yaml"))
OF_OTHER_DATA = ("wflw_", "cofw_", "aflw_", "lapa_", "coco_")
"""How the experiments of other data sets begin. They combine what those of 300W do; tests/test_models_published.py."""
GROUPS = {
    group: sorted(p.stem for p in (CONF_DIR / group).glob("*.yaml"))
    for group in ("augment", "codec", "loss", "model", "optim", "data", "trainer")
}
OPTIONS = [(group, name) for group, names in GROUPS.items() for name in names]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
class TestExperiments:
    def test_composes_and_says_what_its_weights_mean(self, experiment):
        cfg = compose("train", f"experiment={experiment}")
        assert cfg.name == experiment
        assert model_spec(cfg).crop_size == cfg.crop.size

    def test_opens_with_command_and_claim(self, experiment):
        head = (CONF_DIR / "experiment" / f"{experiment}.yaml").read_text().splitlines()[:12]
        assert head[0] == "# @package _global_"
        assert any(f"python -m facelm.train experiment={experiment}" in line for line in head)

    def test_one_step_through_the_command_line(self, experiment, drawn_root, tmp_path):
        """The tiny network on few faces; everything else as the experiment says."""
        if experiment.startswith(OF_OTHER_DATA):
            pytest.skip("its parts are those of another experiment, and its data are tested with their readers")
        command = [
            "-m", "facelm.train", f"experiment={experiment}", "model=hrnetv2_tiny",
            "model.weights=null", "crop.size=64", "trainer=cpu", "trainer.max_epochs=1",
            "+trainer.limit_train_batches=1", "data=w300",
            f"data.root={drawn_root}", "data.num_workers=0", "data.batch_size=4", "data.cache=none",
            f"hydra.run.dir={tmp_path}",
        ]  # fmt: skip
        done = warm.run(command)
        assert done.returncode == 0, done.stderr[-3000:]
        assert (tmp_path / "report" / "summary.json").is_file()
        assert "mean shape" in done.stdout


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_option_builds(group, name):
    own = ["data.root=.", "data.train=faces.json"]
    needs = {"coco": own, "folder": own, "packed": ["data.file=faces.pack"]}.get(name, [])
    cfg = compose("train", f"{group}={name}", *needs, "model.weights=null" if group != "model" else "seed=0")
    if group == "codec":
        model_spec(cfg).build_codec()
    elif group == "optim":
        build(cfg.optim.optimizer)
        build(cfg.optim.schedule)
    elif group == "trainer":
        assert cfg.trainer.max_devices >= 1
    elif group == "data":
        build_data(cfg)
    elif name not in ("hrnetv2_w32", "hrnetv2_w48", "hrnetv2_w64"):  # seconds of initialisation each
        build(cfg[group])


def test_experiments_start_from_the_published_backbone():
    for experiment in ("hrnetv2_w18", "hrnetv2_w18_hrnet"):
        assert compose("train", f"experiment={experiment}").model.weights == "open-mmlab://msra/hrnetv2_w18"


def test_mmpose_recipe_is_the_published_one():
    cfg = compose("train", "experiment=hrnetv2_w18")
    assert cfg.optim.optimizer.lr == 0.002
    assert cfg.optim.base_batch == 512
    assert cfg.optim.schedule.warmup_iterations == 500
    assert list(cfg.optim.schedule.milestones) == [40, 55]
    assert cfg.codec == {"name": "mmpose", "sigma": 1.5}
    assert (cfg.inference.flip, cfg.inference.annotation_shift) == ("shifted", 0)
    assert (cfg.trainer.devices, cfg.trainer.max_devices) == ("auto", 8)


def test_hrnet_recipe_is_the_published_one():
    cfg = compose("train", "experiment=hrnetv2_w18_hrnet")
    assert cfg.optim.optimizer.lr == 0.0001
    assert cfg.data.batch_size == 16
    assert list(cfg.optim.schedule.milestones) == [30, 50]
    assert cfg.codec == {"name": "hrnet", "sigma": 1.0}
    assert (cfg.inference.flip, cfg.inference.annotation_shift) == ("none", 0)
    assert cfg.augment.geometry.distribution == "uniform"


def test_configs_are_found_from_any_folder(tmp_path):
    assert Path(CONF_DIR).is_absolute()
    done = subprocess.run(
        [sys.executable, "-m", "facelm.train", "--cfg", "job", "experiment=demo"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert "name: demo" in done.stdout


class TestAblations:
    ABLATIONS = sorted(path.stem for path in (CONF_DIR / "ablation").glob("*.yaml"))

    @pytest.mark.parametrize("name", ABLATIONS)
    def test_changes_the_recipe_that_it_is_put_on(self, name):
        same = ["experiment=hrnetv2_w18_best", "sweep=ablation", "+ablation_weights=outputs/drawn"]
        recipe, changed = (compose("train", *same, *overrides) for overrides in ((), (f"ablation={name}",)))
        assert (recipe == changed) == (name == "recipe")

    def test_the_sweep_goes_through_all_that_need_nothing_else(self):
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            cfg = hydra_compose("train", overrides=["sweep=ablation"], return_hydra_config=True)
        swept = cfg.hydra.sweeper.params.ablation.split(",")
        assert swept[0] == "recipe"
        assert sorted([*swept, "drawn_pretraining"]) == self.ABLATIONS
