"""The reference numbers' weights: every tensor from its key in the HRNet authors' naming and its shape alone."""

from __future__ import annotations

import functools
import zlib

import numpy as np
import torch

from facelm.models import HRNetV2, build_model


def recipe_tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of one tensor; numpy's legacy random stream is frozen, torch's is not."""
    rng = np.random.RandomState(zlib.crc32(key.encode("ascii")))
    if key.endswith("num_batches_tracked"):
        return np.zeros((), np.int64)
    if key.endswith("running_var"):
        value = 0.75 + 0.5 * rng.random_sample(shape)
    elif len(shape) == 4:
        value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif key.endswith(".weight"):
        value = 0.3 + 0.2 * rng.random_sample(shape)
    else:  # any bias, and running_mean
        value = 0.05 * rng.standard_normal(shape)
    return value.astype(np.float32)


@functools.cache
def recipe_state() -> dict[str, torch.Tensor]:
    """The state of hrnetv2_w18 with 68 landmarks."""
    shapes = build_model("hrnetv2_w18").state_dict()
    return {key: torch.as_tensor(recipe_tensor(key, tuple(value.shape))) for key, value in shapes.items()}


def recipe_net(bn_momentum: float = 0.1) -> HRNetV2:
    """hrnetv2_w18 with these weights, in eval mode."""
    net = build_model("hrnetv2_w18", bn_momentum=bn_momentum)
    net.load_state_dict(recipe_state())
    return net.eval()


def fixed_input(seed: int) -> torch.Tensor:
    """The reference numbers' input `[2, 3, 256, 256]`, already normalised."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((2, 3, 256, 256)).astype(np.float32))
