"""The wheel is complete: configs inside, and an experiment runs from it in another folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(out.glob("facelm-*.whl"))


def test_holds_configs_and_types_and_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"facelm/conf/train.yaml", "facelm/conf/experiment/hrnetv2_w18.yaml", "facelm/py.typed"} <= names
    configs = {p.relative_to(ROOT / "conf").as_posix() for p in (ROOT / "conf").rglob("*.yaml")}
    assert {f"facelm/conf/{name}" for name in configs} <= names
    shipped = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src" / "facelm" / "weights").glob("hrnet*")}
    assert shipped <= names
    assert not [name for name in names if name.startswith(("tests/", "conf/", "outputs/", "data/"))]


def test_an_experiment_runs_from_it(wheel, drawn_root, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    command = [
        sys.executable, "-m", "facelm.train", "experiment=demo", "model=hrnetv2_tiny", "crop.size=64",
        "trainer.max_epochs=1", "+trainer.limit_train_batches=1", "data=w300", f"data.root={drawn_root}",
        "data.num_workers=0", "data.cache=none", "hydra.run.dir=run",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=elsewhere, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (elsewhere / "run" / "report" / "summary.json").is_file()
    where = [sys.executable, "-c", "import facelm.launch.paths as p; print(p.CONF_DIR)"]
    found = subprocess.run(where, capture_output=True, text=True, check=True, cwd=elsewhere, env=environment)
    assert Path(found.stdout.strip()) == site / "facelm" / "conf"


@pytest.mark.slow
def test_full_installation_in_an_empty_environment(wheel, tmp_path):
    """pip install of the wheel with all its dependencies; then the demo config composes and the CLI answers."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    for what in ("torch", str(wheel)):
        command = [str(python), "-m", "pip", "install", "-q", "-c", str(constraints), what]
        subprocess.run(command, check=True)
    for command in (["-m", "facelm.train", "--cfg", "job", "experiment=demo"], ["-m", "facelm.cli", "--help"]):
        subprocess.run([str(python), *command], check=True, cwd=tmp_path, capture_output=True)
