"""The networks that the benchmarks run: weights as if trained, and the check that variants agree before timing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facelm.models import build_model
from facelm.models.hrnet import HRNetV2


def trained_like(name: str) -> HRNetV2:
    """The network with He's weights and batch norms away from their start, so that nothing is trivially zero or one."""
    net = build_model(name, init="kaiming")
    draw = torch.Generator().manual_seed(0)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
            with torch.no_grad():
                norm.weight.uniform_(0.3, 0.5, generator=draw)
                norm.bias.normal_(0, 0.05, generator=draw)
                norm.running_mean.normal_(0, 0.05, generator=draw)
                norm.running_var.uniform_(0.75, 1.25, generator=draw)
    return net.eval()


def size_of(quick: bool) -> tuple[str, int]:
    """The architecture and the crop size: the real ones, or tiny ones to see whether a benchmark runs."""
    return ("hrnetv2_tiny", 64) if quick else ("hrnetv2_w18", 256)


def require_equal(
    what: str, expected: Tensor, actual: Tensor, tolerance: float = 1e-4, *, on_average: bool = False
) -> None:
    """Stops where a variant computes something else: largest difference / standard deviation above `tolerance`.

    `on_average` takes the root of the mean square in place of the largest difference.

    Raises:
        ValueError: it does.
    """
    off = (actual - expected).abs() / expected.std()
    difference = (off.square().mean().sqrt() if on_average else off.max()).item()
    if not difference <= tolerance:
        raise ValueError(f"{what} differs from the baseline by {difference:.1e} of its size: not timed")
    print(f"{what}: {'mean' if on_average else 'largest'} difference to the baseline {difference:.1e} of its size")
