"""From uint8 crops to landmarks: normalising, the network, the flip test and decoding, all on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from facelm.codec import Codec

# RGB, for values 0..255; what ImageNet weights and both references expect.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

FLIPS = ("none", "shifted", "exact")


def normalise(
    images: Tensor,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(images - mean) / std as `[B, 3, H, W]` of `dtype`, for uint8 RGB `images` `[B, H, W, 3]`.

    The result is a view of its input's order, that is channels_last, and costs no transposition. It is computed in
    float32 at least and rounded to `dtype` once.

    Raises:
        ValueError: `images` are not uint8 `[B, H, W, 3]`.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"normalise takes uint8 images [B, H, W, 3], got {images.dtype} {list(images.shape)}")
    wide = torch.promote_types(dtype, torch.float32)
    values = images.to(wide).sub_(images.new_tensor(mean, dtype=wide)).div_(images.new_tensor(std, dtype=wide))
    return values.to(dtype).permute(0, 3, 1, 2)


def predict_landmarks(
    net: Callable[[Tensor], Tensor],
    inputs: Tensor,
    codec: Codec,
    mirror: Sequence[int],
    flip: str = "none",
    shift_crop: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Landmarks `[B, K, 2]` in pixels of the crop and scores `[B, K]` for normalised `inputs` `[B, 3, S, S]`.

    `shift_crop` is added to every x in the end: how far to the right annotators put landmarks (`ModelSpec.shift_crop`).

    `flip` names what is done with the mirrored crop, which goes through `net` in the same batch:

    - `none`: it is not looked at.
    - `shifted`: its heatmaps are mirrored back, moved one cell to the right and averaged with the others, then
      decoded; mmpose's flip test. Mirroring pixels takes x to S - 1 - x, mirroring cells takes x to S - 4 - x: the
      maps lie 3/4 of a cell apart, 1/4 remains after the shift, and the average is half a pixel too far right.
    - `exact`: both views are decoded, and the points averaged after x -> S - 1 - x. No bias, with any codec.

    Raises:
        ValueError: `flip` is none of these, or `mirror` has another length than the network has landmarks.
    """
    if flip not in FLIPS:
        raise ValueError(f"no flip test {flip!r}; known: {', '.join(FLIPS)}. Check `inference.flip=`")
    landmarks_crop, scores = _with_flip_test(net, inputs, codec, mirror, flip)
    return landmarks_crop + landmarks_crop.new_tensor((shift_crop, 0.0)), scores


def _with_flip_test(
    net: Callable[[Tensor], Tensor], inputs: Tensor, codec: Codec, mirror: Sequence[int], flip: str
) -> tuple[Tensor, Tensor]:
    if flip == "none":
        return codec.decode(net(inputs))
    heatmaps = net(torch.cat([inputs, inputs.flip(-1)]))
    if flip == "shifted":
        direct, mirrored = heatmaps.to(torch.promote_types(heatmaps.dtype, torch.float32)).chunk(2)
        return codec.decode((direct + flip_heatmaps(mirrored, mirror, shift=True)) * 0.5)
    index = _mirror_index(mirror, heatmaps)
    (direct_crop, mirrored_crop), scores = (part.chunk(2) for part in codec.decode(heatmaps))
    mirrored_crop = mirrored_crop[:, index]
    back_crop = torch.stack([codec.crop_size - 1 - mirrored_crop[..., 0], mirrored_crop[..., 1]], -1)
    return (direct_crop + back_crop) / 2, (scores[0] + scores[1][:, index]) / 2


def flip_heatmaps(heatmaps: Tensor, mirror: Sequence[int], shift: bool) -> Tensor:
    """Heatmaps `[B, K, H, W]` of mirrored crops, mirrored back: columns reversed, landmarks permuted.

    With `shift` they are moved one cell to the right, the first column keeping its own values, as mmpose does to
    bring them nearer to the maps of the unmirrored crop.

    Source: mmpose 1.3.2, models/utils/tta.py.
    """
    flipped = heatmaps[:, _mirror_index(mirror, heatmaps)].flip(-1)
    return torch.cat([flipped[..., :1], flipped[..., :-1]], dim=-1) if shift else flipped


def _mirror_index(mirror: Sequence[int], heatmaps: Tensor) -> Tensor:
    if len(mirror) != heatmaps.shape[1]:
        raise ValueError(
            f"the mirror permutes {len(mirror)} landmarks, the heatmaps have {heatmaps.shape[1]}; "
            "the network and the landmark scheme do not belong together. Check `landmarks=`"
        )
    return torch.tensor(mirror, device=heatmaps.device)
