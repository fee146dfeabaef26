"""Local paths of weight files, wherever they are: a shipped name, a path, a run folder, or an address.

The models that come with the package lie in `facelm/weights` and are known by name; in a checkout so are those in
`results/weights`, which are kept because numbers were measured with them. Addresses are fetched once: downloads land in
`FACELM_CACHE`, by default `~/.cache/facelm`, whole or not at all.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from facelm.addresses import public
from facelm.files import replacing, typed
from facelm.models.fetch import fetch
from facelm.models.published import ADDRESSES

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).resolve().parents[1] / "weights"
KEPT = SHIPPED.parents[2] / "results" / "weights"
"""There in a checkout only."""

# Names that mmpose's configs use for the ImageNet backbones (mmengine, mmengine/hub/openmmlab.json).
_OPEN_MMLAB = "https://download.openmmlab.com/pretrain/third_party/"
OPEN_MMLAB = {
    "open-mmlab://msra/hrnetv2_w18": _OPEN_MMLAB + "hrnetv2_w18-00eb2006.pth",
    "open-mmlab://msra/hrnetv2_w32": _OPEN_MMLAB + "hrnetv2_w32-dc9eeb4f.pth",
    "open-mmlab://msra/hrnetv2_w48": _OPEN_MMLAB + "hrnetv2_w48-d2186c55.pth",
}


_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])[0-3]\d")


def cache_folder() -> Path:
    """The folder for downloads: `FACELM_CACHE`, or `~/.cache/facelm`."""
    return Path(os.environ.get("FACELM_CACHE") or Path.home() / ".cache" / "facelm")


def shipped_names() -> list[str]:
    """The names of the models that come with the package, sorted."""
    return _names(SHIPPED)


def _names(folder: Path) -> list[str]:
    """The names of the weights in `folder` that have a card, sorted."""
    return sorted(path.stem for path in folder.glob("*.safetensors") if path.with_suffix(".json").is_file())


def local_file(source: str | Path) -> Path:
    """The file on disk that `source` stands for.

    `source` is a shipped model's name (in a checkout also one of `results/weights`); a file; a run folder (its
    `checkpoints/best.ckpt`, else `last.ckpt`); an `https://` address; `hf://ORGANISATION/REPOSITORY/FILE` on the hub of
    Hugging Face; or `open-mmlab://msra/hrnetv2_w18`, `mmpose://wflw_hrnetv2_w18` and their kin.

    Raises: FileNotFoundError when nothing is there, ValueError for an address that cannot be one, ConnectionError
    when an address cannot be fetched.
    """
    if "://" in str(source):
        return download(web_address(str(source)))
    for folder in (SHIPPED, KEPT):
        if str(source) in _names(folder):
            return folder / f"{source}.safetensors"
    path = typed(source)
    if path.is_dir():
        for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "best.ckpt", "last.ckpt"):
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(
            f"no checkpoint in the folder '{path}' (looked for checkpoints/best.ckpt and checkpoints/last.ckpt). "
            "Give a run's folder, or the checkpoint file itself."
        )
    if not path.is_file():
        names = ", ".join(shipped_names())
        shipped = f"Shipped models: {names}" if names else "This installation ships no weights"
        raise FileNotFoundError(
            f"no weights at '{path}'. {shipped}; or give a file (.ckpt, .pth, .pt, .safetensors), a run folder, an "
            "https:// or hf://organisation/repository/file address; to train without pretrained weights: "
            "model.weights=null"
        )
    return path


def web_address(source: str) -> str:
    """The http(s) address behind `source`; raises ValueError if there is none."""
    if source.lower().startswith(("https://", "http://")):
        return source
    if source in (known := OPEN_MMLAB | ADDRESSES):
        return known[source]
    if source.startswith("hf://"):
        parts = source.removeprefix("hf://").split("/", 2)
        if len(parts) == 3 and all(parts):
            return "https://huggingface.co/{}/{}/resolve/main/{}".format(*parts)
        raise ValueError(f"'{public(source)}' names no file: write hf://organisation/repository/file")
    raise ValueError(
        f"cannot read the address '{public(source)}'. Known are https://..., hf://organisation/repository/file and "
        f"{', '.join(known)}"
    )


def download(url: str) -> Path:
    """The cached copy of `url`, fetched if it is not there yet; its sha256 goes to the log.

    It keeps its name, inside a folder of its own for every address, and is there whole or not at all. Digits of a
    sha256 that the name carries (`-eea53406.pth`, as OpenMMLab and torch.hub write them) have to be the file's; a copy
    that is damaged since is fetched again. `fetch` says what bounds a download.

    Raises:
        ConnectionError: it cannot be fetched, arrives incomplete, or leads elsewhere.
        ValueError: what arrived is not what the name says, or no weight file; it is not kept.
    """
    said = public(url)
    name = PurePosixPath(urlsplit(url).path).name
    if not name or len(name) > 200 or "\\" in name or not name.isprintable():
        raise ValueError(f"'{said}' names no file")
    path = cache_folder() / "weights" / hashlib.sha256(url.encode()).hexdigest()[:12] / name
    if path.is_file():
        if _keeps_promise(name, sha256(path)):
            return path
        log.warning("%s was damaged since it was downloaded; it is fetched again", path)
        path.unlink()
    log.info("downloading %s", said)
    try:
        with replacing(path) as part:
            fetch(url, part)
            digest = sha256(part)
            if not _keeps_promise(name, digest):
                raise ValueError(f"'{said}' promises another sha256 in its name than {digest[:12]}...: it is not kept")
            if not _may_be_weights(part):
                raise ValueError(f"what '{said}' answered is no weight file ({_beginning(part)}): it is not kept")
    except (OSError, HTTPException) as error:  # URLError, HTTPError and time-outs are OSErrors
        raise ConnectionError(
            f"could not download '{said}': {public(str(error))}. Fetch it on a machine with a network and set "
            f"model.weights=FILE (or put it at '{path}'); to train without pretrained weights: model.weights=null"
        ) from None  # the cause names the whole address, keys and all
    log.info("saved %s (%.1f MB, sha256 %s)", path, path.stat().st_size / 1e6, digest)
    return path


def _keeps_promise(name: str, digest: str) -> bool:
    """Whether the digits of a sha256 that a file's name carries, if any, are those of `digest`."""
    promised = re.search(r"-([0-9a-f]{8,64})[._]", name)
    return promised is None or bool(_DATE.fullmatch(promised[1])) or digest.startswith(promised[1])


def _may_be_weights(path: Path) -> bool:
    """Whether a file begins as a torch file (zip, or the older pickle and tar) or a .safetensors file does."""
    with path.open("rb") as file:
        head = file.read(262)
    return head.startswith((b"PK\x03\x04", b"\x80")) or head[8:9] == b"{" or head[257:262] == b"ustar"


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(40)
    return f"{path.stat().st_size} bytes, beginning with {head!r}"


def sha256(path: Path) -> str:
    """The file's sha256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
