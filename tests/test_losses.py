from __future__ import annotations

import math

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from conftest import compose
from facelm.codec import SubpixelCodec
from facelm.training.losses import (
    AdaptiveWing,
    AnisotropicLoss,
    HeatmapMSE,
    WeightedSum,
    principal_frame,
    soft_argmax,
)

CODEC = SubpixelCodec(crop_size=64, sigma=1.5)
LOSSES = [
    HeatmapMSE(),
    AdaptiveWing(),
    AnisotropicLoss(coordinate_weight=1e-3),
    WeightedSum([AdaptiveWing(), HeatmapMSE()], [1.0, 200.0]),
]
all_losses = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)


def faces(landmarks: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A noisy output, its target, weights and labels for two faces."""
    generator = torch.Generator().manual_seed(5)
    landmarks_crop = 12 + 40 * torch.rand(2, landmarks, 2, dtype=dtype, generator=generator)
    target, weight = CODEC.encode(landmarks_crop)
    noise = torch.randn(target.shape, dtype=dtype, generator=generator)
    return 0.7 * target + 0.05 * noise, target, weight, landmarks_crop / CODEC.stride


def gaussian(x: float, y: float, xx: float, yy: float, xy: float = 0.0, size: int = 24) -> Tensor:
    """A map `[1, 1, size, size]` of height 1 with this centre and covariance, in cells."""
    cells = torch.arange(size, dtype=torch.float64)
    dx, dy = cells - x, (cells - y)[:, None]
    form = (yy * dx**2 - 2 * xy * dx * dy + xx * dy**2) / (xx * yy - xy**2)
    return torch.exp(-form / 2)[None, None]


class TestEveryLoss:
    @all_losses
    def test_gradient_of_the_heatmap_term(self, loss: nn.Module) -> None:
        output, target, weight, label = faces(landmarks=1)
        if isinstance(loss, AnisotropicLoss):
            loss = loss.heatmap_loss  # the frame of the other term is a constant for autograd; it is tested below
        cut = (slice(None), slice(None), slice(5, 9), slice(5, 9))
        output = output[cut].clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda o: loss(o, target[cut], weight, label), output)

    @all_losses
    def test_perfect_output_is_the_minimum(self, loss: nn.Module) -> None:
        output, target, weight, label = faces()
        perfect = target.clone().requires_grad_()
        at_target = loss(perfect, target, weight, label)
        at_target.backward()
        assert at_target < 1e-4
        assert at_target < 0.01 * loss(output, target, weight, label)
        assert perfect.grad.abs().max() < 1e-6

    @all_losses
    def test_zero_weight_teaches_nothing_but_stays_in_the_mean(self, loss: nn.Module) -> None:
        output, target, weight, label = faces()
        output.requires_grad_()
        half = weight.clone()
        half[1] = 0
        loss(output, target, half, label).backward()
        assert output.grad[1].abs().max() == 0
        assert output.grad[0].abs().max() > 0
        alone = loss(output[:1], target[:1], weight[:1], label[:1])
        assert loss(output, target, half, label).item() == pytest.approx(alone.item() / 2)

    @all_losses
    @pytest.mark.parametrize("fill", [0.0, -1.0, 1e4, 1e-30])
    def test_extreme_maps_have_finite_gradients(self, loss: nn.Module, fill: float) -> None:
        _, target, weight, label = faces(dtype=torch.float32)
        output = torch.full_like(target, fill).requires_grad_()
        value = loss(output, target, weight, label)
        value.backward()
        assert value.isfinite()
        assert output.grad.isfinite().all()

    @all_losses
    def test_computes_in_float32_under_autocast(self, loss: nn.Module) -> None:
        narrow, target, weight, label = (t.float() for t in faces())
        narrow = narrow.bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(narrow, target, weight, label)
        assert value.dtype == torch.float32
        assert torch.equal(value, loss(narrow.float(), target, weight, label))

    @all_losses
    def test_descent_brings_the_decoded_points_to_the_labels(self, loss: nn.Module) -> None:
        _, target, weight, label = faces(dtype=torch.float32)
        output = (0.01 * torch.rand(target.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
        optimizer = torch.optim.Adam([output], lr=0.05)
        for _ in range(120):
            optimizer.zero_grad()
            loss(output, target, weight, label).backward()
            optimizer.step()
        landmarks_crop, _ = CODEC.decode(output.detach())
        assert (landmarks_crop / CODEC.stride - label).abs().max() < 0.1


class TestHeatmapMSE:
    def test_is_a_weighted_mean_over_everything(self) -> None:
        output, target, _, label = faces()
        weight = torch.tensor([[1.0, 0.5, 0.0], [2.0, 1.0, 1.0]], dtype=torch.float64)
        expected = (
            sum(weight[b, k] * ((output[b, k] - target[b, k]) ** 2).sum() for b in range(2) for k in range(3))
            / target.numel()
        )
        assert HeatmapMSE()(output, target, weight, label).item() == pytest.approx(expected.item(), rel=1e-12)


class TestAdaptiveWing:
    @pytest.mark.parametrize("target", [0.0, 0.15, 0.6, 1.0])
    @pytest.mark.parametrize("distance", [0.0, 0.1, 0.49, 0.51, 0.9])
    def test_equals_the_papers_formula(self, target: float, distance: float) -> None:
        power, ratio = 2.1 - target, 0.5
        a = 14 * (1 / (1 + ratio**power)) * power * ratio ** (power - 1)
        c = 0.5 * a - 14 * math.log(1 + ratio**power)
        expected = 14 * math.log(1 + distance**power) if distance < 0.5 else a * distance - c
        expected *= 11 if target >= 0.2 else 1
        maps = torch.full((1, 1, 3, 3), target, dtype=torch.float64)
        value = AdaptiveWing()(maps - distance, maps, torch.ones(1, 1), torch.zeros(1, 1, 2))
        assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)

    def test_foreground_reaches_one_cell_beyond(self) -> None:
        target = torch.zeros(1, 1, 7, 7)
        target[..., 3, 3] = 1.0
        output = target.clone().requires_grad_()
        AdaptiveWing()(output - 0.1, target, torch.ones(1, 1), torch.zeros(1, 1, 2)).backward()
        row = output.grad[0, 0, 3].abs()
        assert row[2] / row[1] == pytest.approx(11)
        assert row[1] == row[0]

    def test_refuses_a_kink(self) -> None:
        with pytest.raises(ValueError, match=r"needs alpha > 2.*alpha=1\.5"):
            AdaptiveWing(alpha=1.5)


class TestWeightedSum:
    def test_adds_each_loss_times_its_factor(self) -> None:
        batch = faces()
        expected = 3.0 * AdaptiveWing()(*batch) + 0.5 * HeatmapMSE()(*batch)
        assert WeightedSum([AdaptiveWing(), HeatmapMSE()], [3.0, 0.5])(*batch).item() == pytest.approx(expected.item())

    def test_the_config_gives_both_an_equal_say(self) -> None:
        """Near the end of a training the two values are within a factor of 3 of each other."""
        loss = instantiate(compose("train", "experiment=hrnetv2_w18_best", "loss=adaptive_wing_mse").loss)
        _, target, weight, label = faces()
        near = target + 0.03 * torch.randn(target.shape, dtype=target.dtype, generator=torch.Generator().manual_seed(1))
        adaptive_wing, mse = (part(near, target, weight, label) for part in loss.losses)
        assert 1 / 3 < loss.factors[0] * adaptive_wing / (loss.factors[1] * mse) < 3

    @pytest.mark.parametrize(("losses", "factors"), [([], []), ([HeatmapMSE()], [1.0, 2.0])])
    def test_refuses_other_than_one_factor_for_each(self, losses: list[nn.Module], factors: list[float]) -> None:
        with pytest.raises(ValueError, match="a factor for each"):
            WeightedSum(losses, factors)


class TestSoftArgmax:
    @pytest.mark.parametrize("sharpness", [1.0, 3.0])
    def test_finds_centre_and_covariance(self, sharpness: float) -> None:
        mean, covariance = soft_argmax(gaussian(11.3, 12.6, 3.0, 2.0, 0.8), sharpness)
        assert mean[0, 0].tolist() == pytest.approx([11.3, 12.6], abs=1e-3)
        expected = [[3.0 / sharpness, 0.8 / sharpness], [0.8 / sharpness, 2.0 / sharpness]]
        assert torch.allclose(covariance[0, 0], torch.tensor(expected, dtype=torch.float64), atol=2e-2)

    def test_gradient(self) -> None:
        maps = gaussian(3.2, 2.9, 1.5, 1.0, 0.3, size=7).requires_grad_()
        assert torch.autograd.gradcheck(lambda m: soft_argmax(m, 3.0)[0], maps)
        # The largest value is a constant for autograd because it cancels.
        assert torch.autograd.gradcheck(lambda m: soft_argmax(7 * m, 3.0)[1], maps)


class TestPrincipalFrame:
    def test_equals_the_eigendecomposition(self) -> None:
        root = torch.randn(50, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        covariance = root @ root.mT + 0.2 * torch.eye(2, dtype=torch.float64)
        deviations, directions = principal_frame(covariance)
        values, vectors = torch.linalg.eigh(covariance)
        assert torch.allclose(deviations, values.sqrt().flip(-1))
        overlap = (directions * vectors.mT.flip(-2)).sum(-1).abs()
        assert torch.allclose(overlap, torch.ones_like(overlap))

    def test_equal_eigenvalues_and_a_single_cell(self) -> None:
        deviations, directions = principal_frame(torch.stack([torch.eye(2), torch.zeros(2, 2)]))
        assert deviations.tolist() == [[1.0, 1.0], [pytest.approx(0.3), pytest.approx(0.3)]]
        assert torch.allclose(directions @ directions.mT, torch.eye(2).expand(2, 2, 2))


class TestAnisotropicLoss:
    loss = AnisotropicLoss(coordinate_weight=1.0)

    def coordinate(self, maps: Tensor, x: float, y: float) -> Tensor:
        return self.loss.coordinate_loss(maps, torch.ones(1, 1), torch.tensor([[[x, y]]], dtype=torch.float64))

    def test_along_the_spread_costs_less_than_across(self) -> None:
        slanted = gaussian(12, 12, 5.0, 5.0, 4.0)  # spread along the diagonal
        along, across = self.coordinate(slanted, 13, 13), self.coordinate(slanted, 13, 11)
        assert (across / along).item() == pytest.approx(3.0, rel=0.02)  # standard deviations 3 and 1

    def test_does_not_depend_on_the_direction(self) -> None:
        maps = gaussian(12, 12, 6.0, 2.0)
        turned = self.coordinate(maps.mT, 11.5, 13)
        assert self.coordinate(maps, 13, 11.5).item() == pytest.approx(turned.item())
        slanted = gaussian(12, 12, 4.0, 4.0, 2.0)  # the first, turned by 45 degrees
        x, y = 12 + (1 + 0.5) / math.sqrt(2), 12 + (1 - 0.5) / math.sqrt(2)
        assert self.coordinate(slanted, x, y).item() == pytest.approx(turned.item(), rel=1e-3)

    def test_spreading_does_not_lower_it(self) -> None:
        """The directional derivative towards a wider map of the same centre is 0; towards the label it is not."""
        maps = gaussian(12, 12, 2.0, 2.0).requires_grad_()
        self.coordinate(maps, 12.8, 12.4).backward()
        wider = gaussian(12, 12, 2.01, 2.01) - maps.detach()
        nearer = gaussian(12.01, 12.005, 2.0, 2.0) - maps.detach()
        towards = (maps.grad * nearer).sum()
        assert towards < 0
        assert (maps.grad * wider).sum().abs() < 1e-6 * towards.abs()

    def test_labels_outside_the_map_take_no_part(self) -> None:
        maps = gaussian(2, 12, 2.0, 2.0).requires_grad_()
        value = self.coordinate(maps, -0.5, 12)
        value.backward()
        assert value == 0
        assert maps.grad.abs().max() == 0
        assert self.coordinate(maps, 0.0, 12) > 0

    def test_maps_without_a_positive_value_take_no_part(self) -> None:
        assert self.coordinate(-gaussian(12, 12, 2.0, 2.0), 5, 5) == 0
        assert self.coordinate(0 * gaussian(12, 12, 2.0, 2.0), 5, 5) == 0

    def test_background_hardly_pulls(self) -> None:
        maps = 0.6 * gaussian(4, 19, 2.0, 2.0) + 0.01
        mean, _ = soft_argmax(maps, self.loss.sharpness)
        assert (mean[0, 0] - torch.tensor([4.0, 19.0])).abs().max() < 0.02

    def test_refuses_a_flat_power(self) -> None:
        with pytest.raises(ValueError, match=r"sharpness >= 1, got .*sharpness=0\.5"):
            AnisotropicLoss(sharpness=0.5)
