"""Drawn faces, composed configs and one short training that many tests look at."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"
os.environ["FACELM_CONFIG"] = ""  # the local.yaml of whoever runs the tests

TINY = [
    "model=hrnetv2_tiny",
    "model.weights=null",
    "crop.size=64",
    "trainer=cpu",
    "trainer.enable_progress_bar=false",
    "data.num_workers=0",
    "data.batch_size=8",
    "data.cache=none",
    "logger=csv",
]
"""Overrides that make any experiment small enough for a test."""


@pytest.fixture(autouse=True)
def no_job_left_over():
    """A command that was called in this process leaves its Hydra job, of which the next test would take itself for."""
    yield
    if "hydra.core.hydra_config" in sys.modules:
        sys.modules["hydra.core.hydra_config"].HydraConfig.instance().cfg = None


def compose(config: str = "train", *overrides: str):
    """The config that the command line would compose."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    from facelm.launch.paths import CONF_DIR

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return hydra_compose(config, overrides=list(overrides))


@pytest.fixture(scope="session")
def drawn_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn data set in 300W's layout."""
    from facelm.data.synthetic.dataset import draw_dataset

    counts = {"train": 24, "common": 6, "challenge": 4, "test": 4}
    return draw_dataset(tmp_path_factory.mktemp("drawn") / "faces", counts=counts, processes=1)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory, drawn_root: Path) -> Path:
    """The run folder of a two-epoch training of the tiny network on drawn faces."""
    from facelm.train import train

    run_dir = tmp_path_factory.mktemp("run")
    overrides = [f"data.root={drawn_root}", f"run_dir={run_dir}", "trainer.max_epochs=2", "trainer.log_every_n_steps=1"]
    overrides += ["report.heatmaps=true"]
    train(compose("train", "data=w300", "codec=subpixel", "inference.annotation_shift=0.02", *TINY, *overrides))
    return run_dir


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of photographs of one face; the model that `facelm predict` loads finds it exactly."""
    import facelm.predict.detect as detect
    from facelm.predict import Predictor
    from perfect_network import SPEC, PerfectNetwork
    from predict_folder import FACE, FixedDetector, write

    def load(source: object, device: str = "auto", network: object = None, **options: object) -> Predictor:
        return Predictor(PerfectNetwork(FACE), SPEC, device="cpu", **options)

    monkeypatch.setattr(Predictor, "load", load)
    monkeypatch.setattr(detect, "DlibDetector", FixedDetector)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("one.png", "two.png"):
        write(folder / name)
    return folder


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """As on a machine where nobody ever used W&B."""
    import wandb

    wandb.teardown()  # a process that has had a run goes on with the server and the key it knew then
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    return monkeypatch
