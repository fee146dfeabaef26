"""Heatmap MSE against mmpose's KeypointMSELoss and torch's MSELoss (the HRNet authors')."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from facelm.training.losses import HeatmapMSE


def measure(arrays: Any, weight: Tensor) -> tuple[float, Tensor]:
    output = torch.from_numpy(arrays["output"]).requires_grad_()
    landmarks_heatmap = torch.zeros(*output.shape[:2], 2)
    loss = HeatmapMSE()(output, torch.from_numpy(arrays["target"]), weight, landmarks_heatmap)
    loss.backward()
    assert output.grad is not None
    return loss.item(), output.grad


def test_mmpose(golden: Any, agree: Any) -> None:
    """Whether mmpose is told to use the weights or not: it does."""
    arrays = golden.npz("loss.npz")
    weightings = [name.removesuffix("_w") for name in arrays if name.endswith("_w")] or [str(arrays["ones_w"])]
    for weighting in weightings:
        loss, gradient = measure(arrays, torch.from_numpy(arrays[f"{weighting}_w"]))
        for use in ("use1", "use0"):
            if (name := f"{weighting}_{use}") + "_loss" in arrays:
                agree(f"loss, weights {name}", loss, arrays[f"{name}_loss"], atol=1e-6)
            if f"{name}_grad" in arrays:
                agree(f"loss gradient, weights {name}", gradient, arrays[f"{name}_grad"], rtol=1e-6)


def test_authors(golden: Any, agree: Any) -> None:
    arrays = golden.npz("loss.npz")
    loss, _ = measure(arrays, torch.ones(arrays["output"].shape[:2]))
    agree("loss, HRNet authors", loss, arrays["hr_mse"], atol=1e-6)
