"""The content of weight files, read without running anything.

Only tensors and plain values are ever read. `torch.load(weights_only=True)` refuses a pickle that would run code, and
so does this module, in words. What mmpose keeps beside the tensors (logs, numpy arrays) is skipped unread.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from facelm import checked

CARD_ENDINGS = (".safetensors", ".pth", ".pt")
"""Of files that may have a card."""


def card_path(weights: Path) -> Path:
    """Where the card of the file `weights` lies: NAME.json for NAME.safetensors, NAME.pth.json for NAME.pth."""
    return weights.with_suffix(".json") if weights.suffix == ".safetensors" else Path(f"{weights}.json")


def compare_with_card(weights: Path, found: str) -> None:
    """Compares the SHA-256 of the file `weights`, `found`, with the one in the card beside it, if there is a card.

    Raises:
        ValueError: they differ, or the card cannot be read.
    """
    path = card_path(weights)
    if weights.suffix not in CARD_ENDINGS or not path.is_file():
        return
    try:
        card = checked.mapping(checked.read_json(path), "a card")
        expected = checked.hexadecimal(card.get("sha256"), "sha256", 64)
    except ValueError as error:
        raise ValueError(f"the card '{path}' cannot be used ({error}). Copy or install it again") from error
    if found != expected:
        raise ValueError(
            f"'{weights}' has the SHA-256 {found[:12]}..., the card beside it was written for {expected[:12]}...: "
            "one of the two was damaged or replaced. Copy or install both again"
        )


class _Skipped:
    """Stands where a checkpoint holds something that is no tensor and is not needed; keeps nothing of it."""

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


# What mmengine stores beside the tensors. Naming `getattr` here does not allow it: an inert object takes its place.
_SKIPPED_NAMES = (
    "builtins.getattr",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary that a torch file holds, on the CPU; for .safetensors its `state_dict` and `metadata`.

    Raises: ValueError, saying which, for a file that is damaged, that holds code, or that is no dictionary.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dictionary)
                return {"state_dict": tensors, "metadata": file.metadata() or {}}
        _require_torch_file(path)
        check_zip(path)
        with torch.serialization.safe_globals([(_Skipped, name) for name in _SKIPPED_NAMES]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged bytes can raise anything from EOFError to KeyError
        message = str(error)  # of torch's advice in it, to load the file unsafely, nothing is passed on
        if "GLOBAL" in message or "unrecognized function" in message or "Can only" in message:
            raise ValueError(
                f"'{path}' was refused: loading it would run code ({_unwanted(path, error)}). Only tensors and plain "
                "values are read. If you trust the file, load it with the code that wrote it and save "
                "model.state_dict(); of the HRNet authors' training files, final_state.pth holds just that, while "
                "checkpoint_*.pth hold whole Python objects"
            ) from None
        raise ValueError(
            f"'{path}' ({path.stat().st_size} bytes) is damaged or no weight file: {_reason(error)}. "
            "Copy or download it again."
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds a {type(content).__name__}, not a dictionary of weights")
    return content


def _require_torch_file(path: Path) -> None:
    """Raises ValueError for a file that does not begin as torch's do: a zip, or of old versions a pickle or tar."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise ValueError("it is empty")
    if not start.startswith((b"PK\x03\x04", b"\x80")) and start[257:262] != b"ustar":
        raise ValueError(f"it begins with {start[:12]!r}, as no file of torch's does")


def check_zip(path: Path) -> None:
    """Compares every part of a torch file with the checksum that the zip keeps of it, which torch does not do.

    Files of torch 1.5 and before are no zip and have no checksums: they pass. It takes 0.3 s a gigabyte.

    Raises:
        OSError: it cannot be read.
        ValueError: a part is not what was written, or unpacks to far more than the file holds.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
        try:
            with zipfile.ZipFile(file) as archive:
                if sum(part.file_size for part in archive.infolist()) > 4 * path.stat().st_size:
                    raise ValueError("it is packed, or its parts overlap, which torch's files do not")
                if not any(part.filename.endswith("/data.pkl") for part in archive.infolist()):
                    raise ValueError("it is a zip, but none of torch's")
                broken = archive.testzip()
        except OSError:
            raise
        except Exception as error:  # damaged zips raise anything from BadZipFile to NotImplementedError
            raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    if broken is not None:
        raise ValueError(f"its part {broken[:100]!r} is not what was written (checksum)")


def find_state(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The weights inside a checkpoint: its `state_dict` or `model`, or itself; without the prefixes of wrappers.

    Raises: ValueError if there are none.
    """
    nested = (checkpoint[key] for key in ("state_dict", "model") if isinstance(checkpoint.get(key), dict))
    state = next(nested, checkpoint)
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(
            f"no weights found: expected tensors, or a dictionary of them under 'state_dict'; found the entries "
            f"{', '.join(map(str, list(state)[:8])) or 'none'}"
        )
    # DataParallel and torch.compile put these in front.
    return {key.removeprefix("module.").replace("_orig_mod.", ""): value for key, value in tensors.items()}


def require_finite(state: dict[str, Tensor]) -> None:
    """Raises ValueError where weights are no plain numbers: such a network gives landmarks that mean nothing.

    Refused are NaN and infinity, variances below 0, complex numbers, and tensors that are sparse, quantized or empty.
    """
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_complex():
            raise ValueError(
                f"{name} is stored in a form that is not read ({str(tensor.layout)[6:]}, "
                f"{str(tensor.dtype)[6:]}, {tensor.device.type}): save it as a plain tensor of floats"
            )
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise ValueError(f"{name} holds variances below 0: the file was changed. Copy or download it again")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise ValueError(
                f"{count} of the {tensor.numel():,} numbers of {name} are not finite: the training that wrote it had "
                "diverged, or the file was changed. An earlier checkpoint may be whole"
            )


def _unwanted(path: Path, error: Exception) -> str:
    """The names of what the file would run."""
    try:
        names = sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - set(_SKIPPED_NAMES))
    except Exception:  # the oldest file format cannot be listed
        names = []
    return ", ".join(names[:4]) if names else _reason(error)


def _reason(error: Exception) -> str:
    """The sentence of torch's that says what was wrong, without its advice to load the file unsafely."""
    if type(error) is ValueError:
        return str(error)
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if "GLOBAL" in line or "WeightsUnpickler error: " in line] or lines[:1]
    if not telling:
        return type(error).__name__
    words = telling[0].split("WeightsUnpickler error: ")[-1].split(" was not an allowed global")[0]
    if not words or "weights_only" in words or "torch.load" in words:  # torch's advice is to load it unsafely
        return type(error).__name__
    return f"{type(error).__name__}: {words.rstrip('. ')}"


def name_hashes_in(value: object, name: str) -> frozenset[int]:
    """The hashes that a checkpoint holds as a row of integers.

    Raises:
        ValueError: it is none.
    """
    if (
        not isinstance(value, torch.Tensor)
        or value.dtype != torch.int64
        or value.dim() != 1
        or value.layout != torch.strided
    ):
        raise ValueError(f"{name} is a row of 64-bit numbers, got {checked.shown(value)}")
    return frozenset(value.tolist())
