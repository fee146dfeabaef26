"""Networks small enough for a test, and what they make of one input."""

from __future__ import annotations

import torch

from facelm.models import HRNetV2, build_model


def tiny(seed=0, num_landmarks=68) -> HRNetV2:
    """A network whose every number differs from a new one's, running statistics and all."""
    torch.manual_seed(seed)
    net = build_model("hrnetv2_tiny", num_landmarks, init="kaiming")
    for buffer in net.buffers():
        buffer.add_(1 + torch.rand(buffer.shape) if buffer.is_floating_point() else 5)
    return net.eval()


def heatmaps(net):
    with torch.no_grad():
        return net(torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64))
