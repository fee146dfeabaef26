"""The rules that keep the package light: who may import what, and how long things may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "facelm"
MODULES = sorted(SRC.rglob("*.py"))

LAYERS = (
    ("landmarks", "geometry", "boxes", "codec", "losses", "schedule", "device"),
    ("metrics", "scores", "models", "data", "inference", "draw"),
    ("lit", "checkpoint", "cards", "loading", "evaluation", "predict", "report", "plots", "tracking"),
    (
        "train",
        "evaluate",
        "launch",
        "cli",
        "commands",
        "paths",
        "errors",
        "callbacks",
        "statistics",
        "record",
        "ddp",
        "jobs",
        "resuming",
        "sweeps",
        "paired",
    ),
)
ONLY_IN = {
    "wandb": {"tracking"},
    "matplotlib": {"plots"},
    "hydra": set(LAYERS[3]),
    "omegaconf": set(LAYERS[3]),
    "dlib": {"predict"},
    "onnxruntime": {"predict", "models", "commands"},
}
ONLY_IN_LIGHTNING = {"lit", "tracking", "data.datamodule", *LAYERS[3]}


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


def layer_of(part: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if part in layer)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
class TestImports:
    def test_layers(self, path):
        part = name_of(path).split(".")[0]
        if part in ("__init__", "__main__", ""):
            return
        for imported in imports(path):
            other = imported.removeprefix("facelm.").split(".")[0]
            if imported.startswith("facelm.") and other not in ("__version__", part):
                assert layer_of(other) <= layer_of(part), f"{part} imports {other} from a higher layer"

    def test_parts_do_not_know_each_other(self, path):
        parts = {"data", "models", "metrics"}
        part = name_of(path).split(".")[0]
        if part in parts:
            known = {i.split(".")[1] for i in imports(path) if i.startswith("facelm.") and i.count(".")}
            assert not known & (parts - {part})

    def test_heavy_packages_stay_where_they_belong(self, path):
        name = name_of(path)
        for imported in imports(path):
            package = imported.split(".")[0]
            if package in ONLY_IN:
                assert name.split(".")[0] in ONLY_IN[package], f"{package} is imported in {name}"
            if package == "lightning":
                assert name in ONLY_IN_LIGHTNING or name.split(".")[0] in ONLY_IN_LIGHTNING


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
