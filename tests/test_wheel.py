"""The wheel is complete: configs inside, and an experiment runs from it in another folder."""

import os
import shutil
import subprocess
import sys
import tarfile
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
def test_only_what_git_tracks_is_packed(tmp_path):
    """In a copy of the checkout, with private files of every kind; then from the sdist, where there is no git."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    checkout = tmp_path / "checkout"
    for name in tracked.rstrip("\0").split("\0"):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, checkout / name)
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=checkout, check=True)
    (checkout / ".git" / "info" / "exclude").write_text("ignored.yaml\n")
    private = ["conf/private.yaml", "conf/ignored.yaml", "tests/.env", "src/facelm/.env", "src/facelm/odd [1]#.txt"]
    for name in private:
        (checkout / name).write_text("secret")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(checkout)]
    subprocess.run(command, check=True, capture_output=True)  # the sdist, and the wheel from it
    (sdist,) = tmp_path.glob("*.tar.gz")
    (through_sdist,) = tmp_path.glob("*.whl")
    through_sdist = through_sdist.rename(tmp_path / "through_sdist.whl")
    subprocess.run([*command, "--wheel"], check=True, capture_output=True)
    (straight,) = tmp_path.glob("facelm*.whl")
    names = [{*zipfile.ZipFile(path).namelist()} for path in (straight, through_sdist)]
    assert names[0] == names[1]
    with tarfile.open(sdist) as file:
        names.append({name.partition("/")[2] for name in file.getnames()})
    for packed in names:
        assert len(packed) > 100
        assert not [name for name in packed if Path(name).name in {Path(one).name for one in private}]
    assert "conf/train.yaml" in names[2]


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
