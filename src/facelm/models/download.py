"""Local paths of weight files, wherever they are: a shipped name, a path, a run folder, or an address.

The models that come with the package lie in `facelm/weights` and are known by name. Addresses are fetched once:
downloads land in `FACELM_CACHE`, by default `~/.cache/facelm`, whole or not at all.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import urllib.request
import uuid
from http.client import HTTPException
from pathlib import Path

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).resolve().parents[1] / "weights"

# Names that mmpose's configs use for the ImageNet backbones (mmengine, mmengine/hub/openmmlab.json).
_OPEN_MMLAB = "https://download.openmmlab.com/pretrain/third_party/"
OPEN_MMLAB = {
    "open-mmlab://msra/hrnetv2_w18": _OPEN_MMLAB + "hrnetv2_w18-00eb2006.pth",
    "open-mmlab://msra/hrnetv2_w32": _OPEN_MMLAB + "hrnetv2_w32-dc9eeb4f.pth",
    "open-mmlab://msra/hrnetv2_w48": _OPEN_MMLAB + "hrnetv2_w48-d2186c55.pth",
}

_TIMEOUT_SECONDS = 30.0  # without an answer; not for the whole file


def cache_folder() -> Path:
    """The folder for downloads: `FACELM_CACHE`, or `~/.cache/facelm`."""
    return Path(os.environ.get("FACELM_CACHE") or Path.home() / ".cache" / "facelm")


def shipped_names() -> list[str]:
    """The names of the models that come with the package, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors") if path.with_suffix(".json").is_file())


def local_file(source: str | Path) -> Path:
    """The file on disk that `source` stands for.

    `source` is a shipped model's name; a file; a run folder (its `checkpoints/best.ckpt`, else `last.ckpt`); an
    `https://` address; `hf://ORGANISATION/REPOSITORY/FILE` on the Hugging Face hub; or `open-mmlab://msra/hrnetv2_w18`
    and its kin.

    Raises: FileNotFoundError when nothing is there, ValueError for an address that cannot be one, ConnectionError
    when an address cannot be fetched.
    """
    if "://" in str(source):
        return download(web_address(str(source)))
    names = shipped_names()
    if str(source) in names:
        return SHIPPED / f"{source}.safetensors"
    path = Path(source).expanduser()
    if path.is_dir():
        for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "best.ckpt", "last.ckpt"):
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(
            f"no checkpoint in the folder '{path}' (looked for checkpoints/best.ckpt and checkpoints/last.ckpt). "
            "Give a run's folder, or the checkpoint file itself."
        )
    if not path.is_file():
        shipped = f"Shipped models: {', '.join(names)}" if names else "This installation ships no weights"
        raise FileNotFoundError(
            f"no weights at '{path}'. {shipped}; or give a file (.ckpt, .pth, .pt, .safetensors), a run folder, an "
            "https:// or hf://organisation/repository/file address; to train without pretrained weights: "
            "model.weights=null"
        )
    return path


def web_address(source: str) -> str:
    """The http(s) address behind `source`; raises ValueError if there is none."""
    if source.startswith(("https://", "http://")):
        return source
    if source in OPEN_MMLAB:
        return OPEN_MMLAB[source]
    if source.startswith("hf://"):
        parts = source.removeprefix("hf://").split("/", 2)
        if len(parts) == 3 and all(parts):
            return "https://huggingface.co/{}/{}/resolve/main/{}".format(*parts)
        raise ValueError(f"'{source}' names no file: write hf://organisation/repository/file")
    raise ValueError(
        f"cannot read the address '{source}'. Known are https://..., hf://organisation/repository/file and "
        f"{', '.join(OPEN_MMLAB)}"
    )


def download(url: str) -> Path:
    """The cached copy of `url`, fetched if it is not there yet; its sha256 goes to the log.

    It keeps its name, inside a folder of its own for every address. Written under a temporary name and renamed, so
    that a broken download or a second process leaves no half file behind.

    Raises: ConnectionError when it cannot be fetched, or arrives incomplete.
    """
    name = url.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    path = cache_folder() / "weights" / hashlib.sha256(url.encode()).hexdigest()[:12] / name
    if path.is_file():
        return path
    part = path.with_name(f"{name}.{uuid.uuid4().hex}.part")
    log.info("downloading %s", url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part)
        part.replace(path)
    except (OSError, HTTPException) as error:  # URLError, HTTPError and time-outs are OSErrors
        raise ConnectionError(
            f"could not download '{url}': {error}. Fetch it on a machine with a network and set model.weights=FILE "
            f"(or put it at '{path}'); to train without pretrained weights: model.weights=null"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    digest = sha256(path)
    log.info("saved %s (%.1f MB, sha256 %s)", path, path.stat().st_size / 1e6, digest)
    promised = re.search(r"-([0-9a-f]{8})[._]", name)  # OpenMMLab and torch.hub put the first digits into the name
    if promised and not digest.startswith(promised[1]):
        log.warning("%s: its name promises a sha256 of %s..., it is %s", url, promised[1], digest)
    return path


def _fetch(url: str, path: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "facelm"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer, path.open("wb") as file:
        shutil.copyfileobj(answer, file)
        expected, got = answer.headers.get("Content-Length"), file.tell()
    if expected is not None and int(expected) != got:
        raise ConnectionError(f"{got} of {expected} bytes arrived")


def sha256(path: Path) -> str:
    """The file's sha256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
