"""Losses on heatmaps: mean squared error, adaptive wing, sums of losses, and one that also measures the decoded point.

All are called as `loss(output, target, weight, landmarks_heatmap)` and return a scalar: `output` and `target`
`[B, K, H, W]`, `weight` `[B, K]` of each landmark, `landmarks_heatmap` `[B, K, 2]`. Means are over all landmarks, those
of weight 0 included, as in mmpose, so that a batch with hidden points does not weigh the others more. They compute in
float32 or wider, under autocast too.

Convention: (x, y) in heatmap cells, 0-based, cell `i` centred on `i`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class HeatmapMSE(nn.Module):
    """mean of weight * (output - target)^2 over B * K * H * W.

    The weights always count: mmpose's `KeypointMSELoss` applies them even with `use_target_weight=False`, a flag that
    it never reads. With weights of 1 it is the HRNet authors' `nn.MSELoss`.
    """

    def forward(self, output: Tensor, target: Tensor, weight: Tensor, landmarks_heatmap: Tensor) -> Tensor:
        """The loss, a scalar; `landmarks_heatmap` is not used."""
        output, target = _widened(output, target)
        return ((output - target).square() * weight.to(output)[..., None, None]).mean()


class AdaptiveWing(nn.Module):
    """Adaptive wing loss with its weighted map: near a peak small errors count much, on the background little.

    For an error d at a target value y it is omega * log(1 + |d / epsilon|^(alpha - y)) below theta and a straight line
    of the same slope above; cells at or beside a target value of 0.2 or more count 1 + foreground_weight times. The
    result is some 200 times the MSE: with plain SGD or clipped gradients, scale the learning rate.

    Source: Wang et al., Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression, ICCV 2019, eq. 3 and 5.

    Raises:
        ValueError: `alpha` is not above 2 (the loss would have a kink at 0 where the target is 1), a length is not
            positive, or `foreground_weight` is negative.
    """

    def __init__(
        self,
        *,
        alpha: float = 2.1,
        omega: float = 14.0,
        epsilon: float = 1.0,
        theta: float = 0.5,
        foreground_weight: float = 10.0,
    ) -> None:
        super().__init__()
        if alpha <= 2 or min(omega, epsilon, theta) <= 0 or foreground_weight < 0:
            raise ValueError(
                f"AdaptiveWing needs alpha > 2, omega, epsilon, theta > 0 and foreground_weight >= 0, got {alpha=}, "
                f"{omega=}, {epsilon=}, {theta=}, {foreground_weight=}. The paper's values are the defaults"
            )
        self.alpha = alpha
        self.omega = omega
        self.epsilon = epsilon
        self.theta = theta
        self.foreground_weight = foreground_weight

    def forward(self, output: Tensor, target: Tensor, weight: Tensor, landmarks_heatmap: Tensor) -> Tensor:
        """The loss, a scalar; `landmarks_heatmap` is not used."""
        output, target = _widened(output, target)
        power = self.alpha - target
        distance = (output - target).abs()
        at_theta = (self.theta / self.epsilon) ** power
        slope = self.omega * power * at_theta / self.theta / (1 + at_theta)
        # The line starts where the curve ends, so their sum is the loss on both sides of theta.
        curved = self.omega * torch.log1p((distance.clamp(max=self.theta) / self.epsilon) ** power)
        straight = slope * torch.relu(distance - self.theta)
        foreground = functional.max_pool2d(target, 3, stride=1, padding=1) >= 0.2
        importance = 1 + self.foreground_weight * foreground
        return ((curved + straight) * importance * weight.to(output)[..., None, None]).mean()


class WeightedSum(nn.Module):
    """The sum of losses, each times its factor.

    Raises:
        ValueError: there is not one factor for each loss, or there is no loss.
    """

    def __init__(self, losses: Sequence[nn.Module], factors: Sequence[float]) -> None:
        super().__init__()
        if not losses or len(losses) != len(factors):
            raise ValueError(
                f"WeightedSum needs losses and a factor for each, got {len(losses)} losses, factors {list(factors)}"
            )
        self.losses = nn.ModuleList(losses)
        self.factors = tuple(factors)

    def forward(self, output: Tensor, target: Tensor, weight: Tensor, landmarks_heatmap: Tensor) -> Tensor:
        """The loss, a scalar."""
        values = [loss(output, target, weight, landmarks_heatmap) for loss in self.losses]
        return torch.stack([factor * value for factor, value in zip(self.factors, values, strict=True)]).sum()


class AnisotropicLoss(nn.Module):
    """MSE of the heatmaps plus the error of their soft-argmax, measured along and across the map's own spread.

    Annotators disagree along a contour far more than across it, and a network's map spreads along it. The point that
    the map stands for (mean of output^sharpness, negatives cut off) is compared with the label in the principal frame
    of the map's covariance: smooth-L1 of each of the two errors over the standard deviation of its direction. So an
    error across the contour counts more than one along it. Frame and deviations are constants for the gradient:
    spreading the map does not lower the loss, which STAR prevents with a penalty on the eigenvalues.

    Only landmarks inside the map take part in the second term; nothing in the map can stand for one outside.

    Source: Zhou et al., STAR Loss: Reducing Semantic Ambiguity in Facial Landmark Detection, CVPR 2023 (the
    decomposition; there the heatmap is not supervised, here it is, since the codecs decode its peak).

    Args:
        coordinate_weight: of the second term (near 1 for a trained network) against the MSE (a few 1e-4 then).
        sharpness: 1 is STAR's plain mean; from 2 up the background hardly pulls. A Gaussian keeps its centre and gets
            narrower by its root.
        beta: cells; where smooth-L1 turns from square to line.

    Raises:
        ValueError: a value is not positive (`coordinate_weight` may be 0), or `sharpness` is below 1.
    """

    def __init__(self, *, coordinate_weight: float = 1e-4, sharpness: float = 3.0, beta: float = 0.25) -> None:
        super().__init__()
        if coordinate_weight < 0 or beta <= 0 or not (1 <= sharpness < math.inf):
            raise ValueError(
                f"AnisotropicLoss needs coordinate_weight >= 0, beta > 0 and sharpness >= 1, got {coordinate_weight=}, "
                f"{beta=}, {sharpness=}"
            )
        self.coordinate_weight = coordinate_weight
        self.sharpness = sharpness
        self.beta = beta
        self.heatmap_loss = HeatmapMSE()

    def forward(self, output: Tensor, target: Tensor, weight: Tensor, landmarks_heatmap: Tensor) -> Tensor:
        """The loss, a scalar."""
        mse: Tensor = self.heatmap_loss(output, target, weight, landmarks_heatmap)
        return mse + self.coordinate_weight * self.coordinate_loss(output, weight, landmarks_heatmap)

    def coordinate_loss(self, output: Tensor, weight: Tensor, landmarks_heatmap: Tensor) -> Tensor:
        """The second term before its weight, a scalar."""
        (output,) = _widened(output)
        mean, covariance = soft_argmax(output, self.sharpness)
        error = mean - landmarks_heatmap.to(output)
        deviations, directions = principal_frame(covariance.detach())
        lengths = (directions * error[..., None, :]).sum(-1)  # [B, K, 2]: along the first and second direction
        distance = functional.smooth_l1_loss(lengths, torch.zeros_like(lengths), reduction="none", beta=self.beta)
        extent = landmarks_heatmap.new_tensor([output.shape[-1] - 1, output.shape[-2] - 1])
        inside = ((landmarks_heatmap >= 0) & (landmarks_heatmap <= extent)).all(-1)
        alive = output.detach().amax((2, 3)) > 0  # a map without a positive value stands for no point
        return ((distance / deviations).sum(-1) * weight.to(output) * (inside & alive)).mean()


def soft_argmax(heatmaps: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
    """Mean `[B, K, 2]` and covariance `[B, K, 2, 2]` of the maps' positive part to the power `sharpness`, in cells."""
    positive = heatmaps.clamp(min=0)
    largest = positive.detach().amax((2, 3), keepdim=True)
    # Dividing by the largest value changes nothing but the range, which a power would leave.
    mass = (positive / torch.where(largest > 0, largest, 1)) ** sharpness
    mass = mass / mass.sum((2, 3), keepdim=True).clamp(min=torch.finfo(mass.dtype).tiny)
    x = torch.arange(mass.shape[-1], device=mass.device, dtype=mass.dtype)
    y = torch.arange(mass.shape[-2], device=mass.device, dtype=mass.dtype)
    columns, rows = mass.sum(-2), mass.sum(-1)
    mean = torch.stack([(columns * x).sum(-1), (rows * y).sum(-1)], -1)
    dx, dy = x - mean[..., :1], y - mean[..., 1:]
    xx, yy = (columns * dx.square()).sum(-1), (rows * dy.square()).sum(-1)
    # Sums, not matrix products: those keep 8 or 10 bits under autocast or with TF32.
    xy = ((mass * dx[..., None, :]).sum(-1) * dy).sum(-1)
    return mean, torch.stack([xx, xy, xy, yy], -1).reshape(*xx.shape, 2, 2)


def principal_frame(covariance: Tensor, smallest: float = 0.3) -> tuple[Tensor, Tensor]:
    """Standard deviations `[..., 2]`, larger first and at least `smallest`, and unit directions `[..., 2 (which), 2]`.

    In closed form for 2 x 2: it stays on the device and does not mind equal eigenvalues.
    """
    xx, xy, yy = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    middle, half = (xx + yy) / 2, torch.hypot((xx - yy) / 2, xy)
    variances = torch.stack([middle + half, middle - half], -1).clamp(min=smallest**2)
    angle = torch.atan2(2 * xy, xx - yy) / 2
    cos, sin = torch.cos(angle), torch.sin(angle)
    directions = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    return variances.sqrt(), directions


def _widened(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in their widest common type, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)
