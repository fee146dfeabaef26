"""Weights in and out of a network: any of the namings in use, from a file or an address, with a count of what matched.

The namings, for the last convolution of the head:

    hrnet        head.3.weight                                the HRNet authors', and facelm's own networks
    facelm       net.head.3.weight                            facelm's training checkpoints
    mmpose-1.x   head.final_layer.weight                      (the backbone is backbone.conv1.weight)
    mmpose-0.x   keypoint_head.final_layer.3.weight           (the same)
    timm         no head: the ImageNet HRNets of timm and of the authors
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from facelm.addresses import public
from facelm.checked import now_called
from facelm.files import writing
from facelm.models.download import local_file, sha256
from facelm.models.hrnet import ARCHITECTURES, HRNetV2, is_hrnet
from facelm.models.published import Published, recognise
from facelm.models.reading import compare_with_card, find_state, read_checkpoint, require_finite

log = logging.getLogger(__name__)

# (facelm's prefix, theirs), the more special first.
_PREFIXES: dict[str, tuple[tuple[str, str], ...]] = {
    "hrnet": (("", ""),),
    "facelm": (("", "net."),),
    "mmpose-1.x": (("head.3.", "head.final_layer."), ("head.", "head.conv_layers."), ("", "backbone.")),
    "mmpose-0.x": (("head.", "keypoint_head.final_layer."), ("", "backbone.")),
    "timm": (("", ""),),
}
NAMINGS = tuple(_PREFIXES)

MANY_BATCHES = 1_000_000
"""What a norm is taken to have seen whose statistics are loaded without that number: they are not warmed again."""

NEAREST_NOTE = (
    "ImageNet HRNets (timm's and the authors') were trained with nearest upsampling in the fuse layers; facelm, like "
    "both landmark references, uses bilinear: the features differ by a few percent until fine-tuned"
)


@dataclass(frozen=True)
class WeightsFile:
    """A file's weights, by the file's names, and what can be told from them.

    `checkpoint` is all that the file holds. `architecture` and `num_landmarks` are None where the shapes do not say.
    """

    source: str
    path: Path
    checkpoint: Mapping[str, Any]
    state: Mapping[str, Tensor]
    naming: str
    sha256: str

    @property
    def _shapes(self) -> dict[str, torch.Size]:
        return {new: self.state[old].shape for old, new in to_hrnet_names(self.state, self.naming).items()}

    @property
    def architecture(self) -> str | None:
        """The name of the network in `ARCHITECTURES` whose branches these are."""
        shapes = self._shapes
        channels = tuple(shapes.get(f"stage4.0.branches.{i}.0.conv1.weight", [0])[0] for i in range(4))
        return next((name for name, config in ARCHITECTURES.items() if config.channels == channels), None)

    @property
    def num_landmarks(self) -> int | None:
        """How many heatmaps the head gives; None for a backbone."""
        shape = self._shapes.get("head.3.bias")
        return None if shape is None else shape[0]

    @property
    def published(self) -> Published | None:
        """The conventions that these weights were trained with, where the file gives them away."""
        known = recognise(self.path.name, self.naming, self.sha256, self.num_landmarks)
        fits = known and (known.architecture, known.num_landmarks) == (self.architecture, self.num_landmarks)
        return known if fits else None


@dataclass(frozen=True)
class LoadReport:
    """What became of every key: `matched` and `missing` by facelm's names, `left_over` by the file's."""

    source: str
    naming: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    sha256: str
    published: Published | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        counts = f"{len(self.matched)} matched, {len(self.missing)} missing, {len(self.left_over)} left over"
        lines = [f"weights from {self.source} ({self.naming} names): {counts}"]
        lines += [f"  missing: {_some(self.missing)}"] if self.missing else []
        lines += [f"  left over: {_some(self.left_over)}"] if self.left_over else []
        lines += [f"  sha256 {self.sha256}"]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def open_weights(source: str | Path) -> WeightsFile:
    """The weights of what `download.local_file` finds, before any network is built.

    Raises: FileNotFoundError, ConnectionError, and ValueError for a file that is damaged, would run code, or holds
    no HRNetV2 and nothing that facelm trained.
    """
    path = local_file(source)
    digest = sha256(path)
    compare_with_card(path, digest)
    checkpoint = read_checkpoint(path)
    try:
        state = find_state(checkpoint)
        # A training of facelm's says so, whatever its network is called inside.
        naming = "facelm" if "facelm" in checkpoint else detect_naming(state)
        require_finite(state)
    except ValueError as error:
        raise ValueError(f"'{public(str(source))}': {error}") from error
    return WeightsFile(public(str(source)), path, checkpoint, state, naming, digest)


LAST = ("head.3.weight", "head.3.bias")
"""The last convolution, one filter a landmark."""


def load_weights(
    net: nn.Module,
    source: str | Path | WeightsFile,
    *,
    strict: bool = True,
    new_head: bool = False,
    same: Sequence[tuple[int, int]] = (),
) -> LoadReport:
    """Copies the weights of `source` into `net`, all or nothing; returns and logs what matched.

    `source` is a shipped model's name, a file (.ckpt, .pth, .pt, .safetensors), a run folder or an address, see
    `download.local_file`; its naming is found out. A file without any head, an ImageNet backbone, leaves the head of
    an `HRNetV2` as it is. Otherwise every key must match; with `strict=False` what fits in name and shape is
    taken; with `new_head` all but the last convolution of weights for another number of landmarks, and of that the
    filters of the points that are the `same`: pairs of their index in the file and in `net`.

    Raises: what `open_weights` raises, and ValueError for another network's weights. `net` is then unchanged.
    """
    file = source if isinstance(source, WeightsFile) else open_weights(source)
    own = net.state_dict()
    names = to_hrnet_names(file.state, file.naming)
    renamed = {new: file.state[old] for old, new in names.items()}
    count = net.num_landmarks if isinstance(net, HRNetV2) else None
    anew = new_head and count is not None and file.num_landmarks not in (None, count)
    if anew:
        kept = _same_filters(own, renamed, same)
        renamed = {key: value for key, value in renamed.items() if key not in LAST} | kept
    fitting = {key: value for key, value in renamed.items() if key in own and value.shape == own[key].shape}
    # Files of torch 0.4 and before have no num_batches_tracked.
    missing = [key for key in own if key not in fitting and not key.endswith("num_batches_tracked")]
    left_over = [key for key in file.state if names.get(key) not in fitting]
    has_head = not is_hrnet(net) or any(key.startswith("head.") for key in renamed)
    if strict or not fitting:
        _check_shapes(file, renamed, own)
        parts = {name for name, _ in net.named_children()}
        needed = [key for key in missing if (has_head or not key.startswith("head.")) and not (anew and key in LAST)]
        foreign = [key for key in left_over if has_head and names.get(key, "").split(".")[0] in parts]
        foreign = [key for key in foreign if not (anew and names[key] in LAST)]
        if not fitting or needed or foreign:
            raise ValueError(
                f"'{file.source}' ({file.naming} names) does not fit the network: {len(fitting)} keys matched, "
                f"{len(needed)} are missing ({_some(needed)}), {len(foreign)} left over ({_some(foreign)}). It belongs "
                "to another model or was saved incompletely."
            )
    if rounded := [key for key in fitting if own[key].is_floating_point() and not fitting[key].is_floating_point()]:
        raise ValueError(
            f"'{file.source}' holds whole numbers where the network has floats ({_some(rounded)}): it was rounded or "
            "quantized. Save it with floats"
        )
    norms = [key.removesuffix("running_mean") for key in fitting if key.endswith("running_mean")]
    counters = [f"{norm}num_batches_tracked" for norm in norms]
    counted = {key: torch.tensor(MANY_BATCHES) for key in counters if key not in fitting}
    net.load_state_dict({**fitting, **counted}, strict=False)
    report = LoadReport(
        source=file.source,
        naming=file.naming,
        matched=tuple(fitting),
        missing=tuple(missing),
        left_over=tuple(left_over),
        sha256=file.sha256,
        published=file.published,
        notes=_notes(file, has_head, count if anew else None, len(same)),
    )
    log.info("%s", report)
    return report


def _check_shapes(file: WeightsFile, renamed: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    wrong = [key for key in renamed if key in own and renamed[key].shape != own[key].shape]
    if wrong:
        shapes = [f"{key} {list(renamed[key].shape)}, expected {list(own[key].shape)}" for key in wrong]
        landmarks = f"{file.num_landmarks} landmarks" if file.num_landmarks else "no head"
        raise ValueError(
            f"'{file.source}' holds another network ({file.architecture or 'of unknown size'}, {landmarks}): "
            f"{len(wrong)} tensors differ in shape: {_some(shapes, '; ')}. Choose the model and the landmark scheme "
            "that the file was trained for."
        )


def _same_filters(
    own: Mapping[str, Tensor], renamed: Mapping[str, Tensor], same: Sequence[tuple[int, int]]
) -> dict[str, Tensor]:
    """The network's last convolution with the file's filters of the points that are the same; empty without any."""
    if not same:
        return {}
    theirs, ours = [one for one, _ in same], [other for _, other in same]
    kept = {}
    for key in LAST:
        kept[key] = own[key].detach().clone()
        kept[key][ours] = renamed[key][theirs].to(kept[key])
    return kept


def _notes(file: WeightsFile, has_head: bool, other: int | None, same: int) -> tuple[str, ...]:
    notes = [] if has_head else ["no head in the file: the network's own head is kept as it was", NEAREST_NOTE]
    if other is not None:
        taken = f"{same} filters of the last convolution are taken over, {other - same} start anew"
        whole = "the last convolution starts anew (same_points=FILE keeps the filters of points that both have)"
        notes.append(f"{file.num_landmarks} landmarks in the file, {other} here: {taken if same else whole}")
    if file.published:
        known = file.published
        notes.append(f"{known.title}: trained for codec {dict(known.codec)}, pixel origin {known.pixel_origin}")
    return tuple(notes)


def save_weights(net: HRNetV2, path: str | Path, naming: str = "hrnet", *, half: bool = False) -> None:
    """Writes the network's weights under another naming, as .safetensors or, by any other ending, a torch file.

    mmpose's files wrap them in `state_dict`, the others are plain; "timm" leaves out the head, which timm has not.
    With `half` convolutions are stored in float16, half the size; batch norms keep float32, whose variances reach
    below what float16 resolves. A file that is there is replaced once the new one is complete.

    Raises: ValueError for an unknown naming, OSError where it cannot be written.
    """
    path = Path(path)
    state = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    if half:
        state = {key: value.half() if value.ndim == 4 else value for key, value in state.items()}
    named = from_hrnet_names(state, naming)
    wrapped = {"state_dict": named, "meta": {}} if naming.startswith("mmpose") else named
    try:
        with writing(path) as file:
            if path.suffix == ".safetensors":
                file.write(save(named, metadata={"format": "pt"}))
            else:
                torch.save(wrapped, file)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as a RuntimeError
        raise OSError(f"'{path}' was not written ({error})") from error


def to_hrnet_names(keys: Iterable[str], naming: str) -> dict[str, str]:
    """File key -> facelm's (the authors') key, for those of `keys` that `naming` gives a place in the network."""
    names: dict[str, str] = {}
    for key in keys:
        for ours, theirs in _PREFIXES[naming]:
            if key.startswith(theirs):
                names[key] = ours + key.removeprefix(theirs)
                break
    return names


def from_hrnet_names(state: Mapping[str, Tensor], naming: str) -> dict[str, Tensor]:
    """The state of a facelm network under another naming; raises ValueError for a naming that is not known."""
    if naming not in _PREFIXES:
        raise ValueError(f"unknown naming {naming!r}; choose one of {', '.join(NAMINGS)}{now_called(naming)}")
    named: dict[str, Tensor] = {}
    for key, value in state.items():
        if naming == "timm" and key.startswith("head."):
            continue
        ours, theirs = next(pair for pair in _PREFIXES[naming] if key.startswith(pair[0]))
        named[theirs + key.removeprefix(ours)] = value
    return named


def detect_naming(keys: Iterable[str]) -> str:
    """The naming of a file's keys, one of `NAMINGS`; raises ValueError when they are no HRNetV2's."""
    keys = list(keys)
    signs = (
        ("keypoint_head.", "mmpose-0.x"),
        ("backbone.conv1.", "mmpose-1.x"),
        ("net.conv1.", "facelm"),
        ("head.0.", "hrnet"),
        ("conv1.", "timm"),
    )
    for prefix, naming in signs:
        if any(key.startswith(prefix) for key in keys):
            return naming
    raise ValueError(
        f"these are no HRNetV2 weights: {len(keys)} keys ({_some(keys)}), none under a naming that is known "
        f"({', '.join(NAMINGS)})"
    )


def _some(items: Iterable[str], separator: str = ", ", most: int = 4) -> str:
    items = list(items)
    rest = [f"and {len(items) - most} more"] if len(items) > most else []
    return separator.join([*items[:most], *rest]) or "none"
