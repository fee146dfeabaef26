"""Without fcntl, pwd, grp, resource, termios: what takes no lock runs, and a training says that it has none."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import facelm
from facelm.files import take_lock
from facelm.launch.run_folder import held

ABSENT = ("fcntl", "pwd", "grp", "resource", "termios")
MODULES = [
    module.name for module in pkgutil.walk_packages(facelm.__path__, "facelm.") if not module.name.endswith("__main__")
]


def test_every_module_is_imported():
    """What they import of others comes first: it has its own ways on such a system."""
    code = (
        "import sys; from importlib import import_module\n"
        "import torch, lightning.pytorch, hydra.main, wandb, cv2, albumentations, matplotlib.pyplot, torchmetrics\n"
        "import multiprocessing.resource_tracker, getpass, pathlib, shutil, tarfile, subprocess\n"
        f"sys.modules.update(dict.fromkeys({ABSENT}))\n"
        "for name in sys.argv[1:]: import_module(name)\n"
        "print(len(sys.argv) - 1, 'modules')"
    )
    done = subprocess.run([sys.executable, "-c", code, *MODULES], capture_output=True, text=True, check=False)
    assert done.stdout == f"{len(MODULES)} modules\n", done.stderr[-2000:]
    assert len(MODULES) > 100


def test_a_lock_is_refused_and_a_training_starts_without(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with (tmp_path / "x.lock").open("w") as file, pytest.raises(OSError, match="x.lock"):
        take_lock(file)
    with held(tmp_path / "run"):
        pass
    assert "cannot be locked" in caplog.text
