"""Numbers read out of per-face errors, checked against hand-computed ones and against slow definitions."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from facelm.evaluation.metrics import (
    LandmarkErrors,
    auc,
    bootstrap_interval,
    ced,
    failure_rate,
    mean_shape,
    mean_shape_in_box,
    nme,
    paired_bootstrap,
    per_face_error,
    point_distances,
    pooled_nme,
    region_errors,
)
from facelm.geometry.landmarks import IBUG68


def faces(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and target landmarks of `n` faces, `[n, 68, 2]` each."""
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, 200, (n, 68, 2))
    return target + rng.normal(0, 5, target.shape), target


class TestPerFaceError:
    def test_mean_distance_over_normaliser(self) -> None:
        target = np.zeros((2, 3, 2))
        predicted = np.array([[[3.0, 4.0], [0, 0], [0, 1]], [[0, 0], [0, 0], [0, 0]]])
        distances = point_distances(predicted, target)
        np.testing.assert_allclose(distances, [[5, 0, 1], [0, 0, 0]])
        np.testing.assert_allclose(per_face_error(distances, np.array([10.0, 10.0])), [0.2, 0.0])

    def test_masked_landmarks_do_not_count(self) -> None:
        distances, visible = np.array([[2.0, 4.0, 600.0]]), np.array([[1, 0.5, 0]])
        assert per_face_error(distances, np.array([10.0]), visible) == pytest.approx(0.3)

    def test_degenerate_faces(self) -> None:
        distances = np.array([[1.0, 1.0], [1.0, 1.0], [np.nan, 1.0]])
        visible = np.array([[1, 1], [0, 0], [1, 1]])
        errors = per_face_error(distances, np.array([0.0, 1.0, 1.0]), visible)
        np.testing.assert_array_equal(errors, [np.inf, np.nan, np.nan])

    def test_regions_recombine_to_the_whole_face(self) -> None:
        predicted, target = faces(4)
        distances, size = point_distances(predicted, target), np.array([50.0, 60, 70, 80])
        regions = region_errors(distances, size)
        assert list(regions) == ["jaw", "brows", "nose", "eyes", "mouth"]
        weighted = sum(errors * len(IBUG68.regions[name]) for name, errors in regions.items()) / 68
        np.testing.assert_allclose(weighted, per_face_error(distances, size))
        np.testing.assert_allclose(regions["mouth"], distances[:, 48:68].mean(axis=1) / size)

    def test_shapes_that_differ_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"must both be \[N, K, 2\]; predicted \(1, 68, 2\), target \(1, 5, 2\)"):
            point_distances(np.zeros((1, 68, 2)), np.zeros((1, 5, 2)))


class TestReadOuts:
    errors = np.array([0.02, 0.08, 0.09, 0.20])

    def test_by_hand(self) -> None:
        assert nme(self.errors) == pytest.approx(0.0975)
        assert failure_rate(self.errors, 0.08) == 0.5  # strictly above: 0.08 itself is no failure
        assert failure_rate(self.errors, 0.10) == 0.25
        assert auc(self.errors, 0.08) == pytest.approx(0.75 / 4)
        assert auc(self.errors, 0.10) == pytest.approx((0.8 + 0.2 + 0.1) / 4)

    def test_ced_counts_faces_up_to_and_including_the_threshold(self) -> None:
        np.testing.assert_allclose(ced(self.errors, np.array([0, 0.02, 0.08, 0.1, 1])), [0, 0.25, 0.5, 0.75, 1])

    @pytest.mark.parametrize("threshold", [0.08, 0.10])
    def test_auc_is_the_area_under_the_ced(self, threshold: float) -> None:
        errors = np.random.default_rng(1).gamma(4.0, 0.015, 300)
        grid = np.linspace(0, threshold, 200_001)
        area = np.trapezoid(ced(errors, grid), grid) / threshold
        assert auc(errors, threshold) == pytest.approx(area, abs=1e-5)

    def test_an_error_that_is_not_a_number_is_a_failure(self) -> None:
        errors = np.array([0.01, np.nan, np.inf, 0.01])
        assert failure_rate(errors, 0.08) == 0.5
        assert auc(errors, 0.10) == pytest.approx(0.45)
        assert np.isnan(nme(errors))

    @pytest.mark.parametrize("read_out", [nme, lambda e: failure_rate(e, 0.1), lambda e: auc(e, 0.1)])
    def test_no_faces_is_an_error(self, read_out) -> None:
        with pytest.raises(ValueError, match="no faces to measure"):
            read_out(np.array([]))


class TestPooledNME:
    distances = np.array([[1.0, 1.0, 1.0, 1.0], [9.0, 5.0, 5.0, 5.0]])

    def test_faces_weigh_by_their_visible_landmarks(self) -> None:
        size, visible = np.array([10.0, 10.0]), np.array([[1, 1, 1, 1], [1, 0, 0, 0]])
        assert pooled_nme(self.distances, size, visible) == pytest.approx((4 * 0.1 + 0.9) / 5)
        assert nme(per_face_error(self.distances, size, visible)) == pytest.approx((0.1 + 0.9) / 2)

    def test_equals_the_mean_of_faces_when_everything_is_visible(self) -> None:
        size = np.array([10.0, 20.0])
        assert pooled_nme(self.distances, size) == pytest.approx(nme(per_face_error(self.distances, size)))

    def test_face_without_size_is_dropped(self) -> None:
        assert pooled_nme(self.distances, np.array([10.0, 0.0])) == pytest.approx(0.1)

    def test_nothing_left_is_zero(self) -> None:
        assert pooled_nme(self.distances, np.zeros(2)) == 0.0
        assert pooled_nme(self.distances, np.ones(2), np.zeros((2, 4))) == 0.0


class TestBootstrap:
    def test_interval_is_as_wide_as_theory_says(self) -> None:
        errors = np.random.default_rng(2).gamma(4.0, 0.01, 600)
        interval = bootstrap_interval(errors)
        half = 1.96 * errors.std() / np.sqrt(600)
        assert interval.mean == pytest.approx(errors.mean())
        assert interval.low == pytest.approx(errors.mean() - half, abs=0.1 * half)
        assert interval.high == pytest.approx(errors.mean() + half, abs=0.1 * half)

    def test_confidence_and_seed(self) -> None:
        errors = np.random.default_rng(3).gamma(4.0, 0.01, 100)
        wide, narrow = bootstrap_interval(errors, confidence=0.99), bootstrap_interval(errors, confidence=0.5)
        assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high
        assert bootstrap_interval(errors) == bootstrap_interval(errors)
        assert bootstrap_interval(errors, seed=1) != bootstrap_interval(errors)

    def test_pairing_sees_a_small_gain_that_separate_intervals_hide(self) -> None:
        rng = np.random.default_rng(4)
        errors_a = rng.gamma(4.0, 0.01, 200)
        errors_b = errors_a - 0.001 + rng.normal(0, 0.002, 200)
        gain = paired_bootstrap(errors_a, errors_b)
        assert gain.low < gain.mean < gain.high < 0  # b is better, beyond doubt
        assert gain.mean == pytest.approx(errors_b.mean() - errors_a.mean())
        assert bootstrap_interval(errors_a).low < errors_b.mean()  # not to be told apart unpaired

    def test_pairs_of_different_faces_are_refused(self) -> None:
        with pytest.raises(ValueError, match="of the same faces"):
            paired_bootstrap(np.ones(3), np.ones(4))


class TestMeanShape:
    def test_same_face_in_any_box_has_that_mean(self) -> None:
        shape = np.random.default_rng(5).uniform(-0.5, 0.5, (68, 2))
        center, side = np.array([[10.0, 20], [300, 5], [7, 7]]), np.array([100.0, 30, 2])
        landmarks = mean_shape_in_box(shape, center, side)
        assert landmarks.shape == (3, 68, 2)
        np.testing.assert_allclose(landmarks[0], [10, 20] + 100 * shape)
        np.testing.assert_allclose(mean_shape(landmarks, center, side), shape, atol=1e-12)


class TestLandmarkErrors:
    def test_batches_come_back_sorted_by_index_in_float64(self) -> None:
        predicted, target = faces(5)
        metric = LandmarkErrors()
        for rows in ([4, 0], [2], [1, 3]):
            metric.update(torch.tensor(rows), torch.from_numpy(predicted[rows]), torch.from_numpy(target[rows]))
        result = metric.compute()
        np.testing.assert_array_equal(result.index, np.arange(5))
        np.testing.assert_array_equal(result.predicted, predicted)  # bit for bit
        np.testing.assert_array_equal(result.target, target)

    def test_padding_is_dropped(self) -> None:
        """7 faces on 2 ranks arrive as 8: the eighth is the first one again."""
        target = np.zeros((7, 68, 2))
        target[:, 45, 0] = 1.0
        predicted = target + np.arange(7.0)[:, None, None] * [1, 0]
        metric = LandmarkErrors()
        for rows in ([0, 2, 4, 6], [1, 3, 5, 0]):
            metric.update(torch.tensor(rows), torch.from_numpy(predicted[rows]), torch.from_numpy(target[rows]))
        result = metric.compute()
        assert len(result.index) == 7
        errors = per_face_error(point_distances(result.predicted, result.target), np.ones(7))
        assert nme(errors) == 3.0  # 2.625 with the eighth

    def test_reset_forgets(self) -> None:
        predicted, target = map(torch.from_numpy, faces(3))
        metric = LandmarkErrors()
        metric.update(torch.arange(3), predicted, target)
        metric.compute()
        metric.reset()
        metric.update(torch.tensor([9]), predicted[:1], target[:1])
        assert metric.compute().index.tolist() == [9]

    def test_keeps_float64_in_a_module_of_lower_precision(self) -> None:
        predicted, target = faces(1)
        module = torch.nn.Module()
        module.metric = LandmarkErrors()
        module.half()
        module.metric.update(torch.tensor([0]), torch.from_numpy(predicted), torch.from_numpy(target))
        np.testing.assert_array_equal(module.metric.compute().predicted, predicted)

    def test_other_schemes(self) -> None:
        metric = LandmarkErrors(num_landmarks=5)
        metric.update(torch.arange(2), torch.ones(2, 5, 2), torch.zeros(2, 5, 2))
        assert metric.compute().predicted.shape == (2, 5, 2)

    def test_shapes_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"expected landmarks \(2, 68, 2\) for 2 faces; predicted \(2, 5, 2\)"):
            LandmarkErrors().update(torch.arange(2), torch.ones(2, 5, 2), torch.zeros(2, 68, 2))

    @pytest.mark.filterwarnings("ignore:The ``compute`` method")
    def test_no_faces_is_an_error(self) -> None:
        with pytest.raises(ValueError, match=r"no faces were evaluated: update\(\) was never called"):
            LandmarkErrors().compute()


def _rank(rank: int, port: int, rounds: list[list[list[list[int]]]], folder: str) -> None:
    """One process: for each round, updates with its own batches and saves what `compute()` gives."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    predicted, target = map(torch.from_numpy, faces(7))
    metric = LandmarkErrors()
    for number, batches in enumerate(rounds):
        for rows in batches[rank]:
            metric.update(torch.tensor(rows), predicted[rows], target[rows])
        result = metric.compute()
        np.savez(f"{folder}/{number}_{rank}.npz", index=result.index, predicted=result.predicted, target=result.target)
        metric.reset()
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
class TestTwoProcesses:
    def test_every_face_counts_once_on_both_ranks(self, tmp_path) -> None:
        rounds = [
            [[[0, 2], [4, 6]], [[1, 3], [5, 0]]],  # padded, as a distributed sampler does
            [[[0, 1, 2], [3, 4], [5]], [[6]]],  # unequal updates
            [[[0, 1, 2, 3, 4, 5, 6]], []],  # a rank that saw nothing
        ]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        mp.spawn(_rank, args=(port, rounds, str(tmp_path)), nprocs=2)
        predicted, target = faces(7)
        for path in sorted(tmp_path.glob("*.npz")):
            result = np.load(path)
            np.testing.assert_array_equal(result["index"], np.arange(7), err_msg=path.name)
            np.testing.assert_array_equal(result["predicted"], predicted)
            np.testing.assert_array_equal(result["target"], target)
        assert len(list(tmp_path.glob("*.npz"))) == 6
