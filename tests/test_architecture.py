"""The rules that keep the package light: who may import what, and how long things may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "facelm"
MODULES = sorted(SRC.rglob("*.py"))

ROOMS = (
    "files",
    "configs",
    "checked",
    "addresses",
    "geometry",
    "codec",
    "data",
    "models",
    "evaluation",
    "predict",
    "loggers",
    "training",
    "launch",
    "evaluate",
    "train",
    "commands",
    "cli",
    "__main__",
)
"""From the ground floor up: a room imports from those below it only."""
STRANGERS = {"data": {"models", "evaluation"}, "models": {"data", "evaluation"}}
"""Rooms that do not know each other, although one is below the other."""
ONLY_IN = {
    "wandb": {"loggers"},
    "matplotlib": {"evaluation.plots"},
    "gradio": {"predict.demo_page"},
    "pandas": {"predict"},
    "hydra": {"launch", "train", "evaluate"},
    "omegaconf": {"launch", "train", "evaluate"},
    "dlib": {"predict"},
    "onnxruntime": {"predict", "models", "commands"},
    "lightning": {"training", "loggers", "data.datamodule", "launch", "train", "evaluate"},
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "facelm":
                found |= {f"facelm.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
class TestImports:
    def test_downward(self, path):
        room = name_of(path).split(".")[0]
        if room == "__init__":
            return
        for imported in imports(path):
            other = imported.removeprefix("facelm.").split(".")[0]
            if imported.startswith("facelm.") and other not in ("__version__", room):
                assert ROOMS.index(other) < ROOMS.index(room), f"{room} imports {other} from a floor above"

    def test_rooms_that_do_not_know_each_other(self, path):
        room = name_of(path).split(".")[0]
        known = {i.split(".")[1] for i in imports(path) if i.startswith("facelm.") and i.count(".")}
        assert not known & STRANGERS.get(room, set())

    def test_heavy_packages_stay_where_they_belong(self, path):
        name = name_of(path)
        for imported in imports(path):
            places = ONLY_IN.get(imported.split(".")[0])
            if places:
                assert any(f"{name}.".startswith(f"{place}.") for place in places), f"{imported} in {name}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
class TestShape:
    def test_file_length(self, path):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 320

    def test_no_assert(self, path):
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def functions():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name_of(path)}.{node.name}", node.end_lineno - node.lineno + 1


def test_functions_are_short():
    lengths = dict(functions())
    assert max(lengths.values()) <= 80, max(lengths, key=lengths.get)
    assert sum(length <= 38 for length in lengths.values()) >= 0.9 * len(lengths)


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, facelm; "
        "heavy = {'torch', 'numpy', 'cv2', 'lightning', 'hydra', 'wandb', 'matplotlib', 'albumentations'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_codec_needs_torch_alone():
    code = (
        "import sys, facelm.codec; "
        "heavy = {'lightning', 'hydra', 'wandb', 'matplotlib', 'albumentations', 'cv2', 'torchmetrics'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
