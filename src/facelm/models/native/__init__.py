"""The network's operations as machine code, compiled from this folder on the machine that runs them.

`library()` compiles `kernels.cpp`, and for training `norms.cpp`, with the system's C++ compiler, once: two seconds for
predicting, four for training. The result is kept in `FACELM_CACHE` (default `~/.cache/facelm`) under a name made of
the source, the compiler's flags and the processor's features. It is loaded only from a folder and a file that this user
owns and nobody else can write, and only if its SHA-256 is the one that was written beside it. Without a compiler
everything that uses it goes on with torch's own operations, see `facelm.models.fast`.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

from facelm.files import replacing, write_whole
from facelm.models.download import cache_folder

log = logging.getLogger(__name__)

_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fPIC", "-shared")
_SOURCES = ("lanes.h", "winograd.h", "direct.h", "convolution.h", "enlarge.h", "norm.h", "kernels.cpp", "norms.cpp")

WINOGRAD, DIRECT, ENLARGE = range(3)  # Op.kind


class Op(ctypes.Structure):
    """One operation on dense NHWC tensors: `struct Op` of kernels.cpp. `height` and `width` are the input's."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "batch", "height", "width", "inputs", "outputs")),
        *((name, ctypes.c_int32) for name in ("kernel", "stride", "relu", "unused")),
        *((name, ctypes.c_void_p) for name in ("x", "weight", "bias", "residual", "y")),
    )


class Kernel(ctypes.Structure):
    """What one step in each direction of a convolution's weight is in memory: `struct Kernel` of lanes.h."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("output", "input", "row", "column"))


class Convolution(ctypes.Structure):
    """A convolution and its gradients: `struct Convolution` of convolution.h. `height` and `width` are the input's."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("batch", "height", "width", "inputs", "outputs")),
        *((name, ctypes.c_int32) for name in ("kernel", "stride", "threads")),
        ("step", Kernel),
        *((name, ctypes.c_void_p) for name in ("x", "weight", "bias", "y", "dy", "more", "dx", "dweight")),
    )


class Norm(ctypes.Structure):
    """A batch norm in training, the sum and the ReLU after it, and their gradients: `struct Norm` of norm.h."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("channels", "relu", "threads", "unused")),
        *((name, ctypes.c_double) for name in ("epsilon", "momentum")),
        *((name, ctypes.c_void_p) for name in ("y", "weight", "bias", "residual", "z")),
        *((name, ctypes.c_void_p) for name in ("running_mean", "running_variance", "tracked", "saved")),
        *((name, ctypes.c_void_p) for name in ("dz", "dy", "dresidual", "dweight", "dbias")),
    )


def available() -> bool:
    """Whether the operations can be had here; the reason why not is logged once."""
    try:
        library()
    except (OSError, RuntimeError) as error:
        _tell_once(str(error))
        return False
    return True


@functools.cache
def _tell_once(reason: str) -> None:
    log.info("the native kernels are not used, torch's own are: %s", reason)


@functools.cache
def library(real: str = "float", *, training: bool = False) -> ctypes.CDLL:
    """The compiled operations for numbers of type `real`, "float" or "double"; compiled now if they are not yet.

    With `training`, those with gradients too: it is another file, so that the first prediction does not wait for it.
    "bfloat16" is for training alone, and without convolutions: maps are bfloat16, parameters float.

    Raises:
        RuntimeError: there is no C++ compiler, it failed, or `FACELM_NATIVE=0` forbids it.
    """
    if os.environ.get("FACELM_NATIVE") == "0":
        raise RuntimeError("FACELM_NATIVE=0")
    folder = Path(__file__).parent
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    narrow = real == "bfloat16"
    numbers = ["-DREAL=float", "-DNARROW"] if narrow else [f"-DREAL={real}"]
    flags = [*_FLAGS, *numbers, *(["-DTRAINING"] if training else [])]
    parts = [*([] if narrow else ["kernels.cpp"]), *(["norms.cpp"] if training else [])]
    key = hashlib.sha256(repr((compiler, flags, _processor())).encode())
    for name in _SOURCES:
        key.update((folder / name).read_bytes())
    path = cache_folder() / "native" / f"kernels-{real}-{key.hexdigest()[:16]}.so"
    make_private(path.parent)
    if not _is_whole(path):
        if compiler is None:
            raise RuntimeError("no C++ compiler found (looked for CXX, g++, clang++); install one, such as g++")
        _compile([compiler, *flags, *(str(folder / part) for part in parts)], path)
    loaded = ctypes.CDLL(str(path))
    for name, arguments in _functions(narrow, training).items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, None
    return loaded


def _functions(narrow: bool, training: bool) -> dict[str, tuple[type, ...]]:
    """What a library offers, and the types of what each function takes."""
    pointer, number = ctypes.c_void_p, ctypes.c_int
    functions: dict[str, tuple[type, ...]] = {}
    if not narrow:
        functions["run"] = (ctypes.POINTER(Op), number, number)
        functions["pack"] = (pointer, ctypes.POINTER(Kernel), number, number, pointer, number)
        functions["pack_direct"] = (pointer, ctypes.POINTER(Kernel), number, number, number, pointer)
    if training and not narrow:
        functions["convolve"] = functions["convolve_back"] = (ctypes.POINTER(Convolution),)
    if training:
        functions["normalise"] = functions["normalise_back"] = (ctypes.POINTER(Norm),)
        functions["enlarge_sum"] = (*[pointer] * 3, *[number] * 7)
        functions["enlarge_back"] = (*[pointer] * 2, *[number] * 6)
    return functions


def make_private(folder: Path) -> None:
    """Makes `folder`, for this user alone, or checks that no other user can put anything into it.

    Raises:
        RuntimeError: it belongs to another user, or others can write into it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    _require_own(folder)


def _require_own(path: Path) -> None:
    """Raises RuntimeError where another user owns `path` or may write it: whoever can, runs programs as this user."""
    if not hasattr(os, "geteuid"):
        return
    status = path.lstat()
    if status.st_uid != os.geteuid():
        raise RuntimeError(
            f"{path} belongs to another user (uid {status.st_uid}); set FACELM_CACHE to a folder of yours"
        )
    if status.st_mode & 0o022:
        raise RuntimeError(f"{path} can be written by other users; `chmod go-w {path}` after a look into it cures that")


def _digest(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _is_whole(path: Path) -> bool:
    """Whether `path` is there, this user's own, and what was compiled: a library that was cut crashes when loaded."""
    try:
        said = _digest(path).read_text(encoding="ascii").strip()
        content = path.read_bytes()
    except (OSError, UnicodeDecodeError):
        return False
    _require_own(path)
    return hashlib.sha256(content).hexdigest() == said


def _compile(command: list[str], path: Path) -> None:
    for old in path.parent.glob("*.part"):  # what earlier versions left when they were killed
        if time.time() - old.stat().st_mtime > 3600:
            old.unlink(missing_ok=True)
    with replacing(path) as part:  # whole or not at all, also when two processes compile at once
        done = subprocess.run([*command, "-o", str(part)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
        part.chmod(0o700)
        digest = hashlib.sha256(part.read_bytes()).hexdigest()
    write_whole(_digest(path), digest)


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        features = platform.processor()
    return f"{platform.machine()} {features}"
