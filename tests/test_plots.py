"""Pictures of a report: what is in them, and that no result can break them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facelm.evaluation.metrics import FacePredictions
from facelm.evaluation.plots import ced_plot, regions_plot, worst_faces, worst_plot
from facelm.evaluation.scores import EvaluationResult, evaluate_faces, subset_masks


def evaluation(errors: list[float], labels: list[str] | None = None) -> EvaluationResult:
    """Faces whose NME is `errors`, at indices 100, 101, ..."""
    target = np.random.default_rng(0).uniform(0, 200, (len(errors), 68, 2))
    size = np.linalg.norm(target[:, 36] - target[:, 45], axis=-1)
    predicted = target + (np.array(errors) * size)[:, None, None] * [0.6, 0.8]
    predictions = FacePredictions(100 + np.arange(len(errors)), predicted, target)
    names = [f"helen/testset/{i}_1" for i in range(len(errors))]
    return evaluate_faces(predictions, names, subset_masks(labels or ["common"] * len(errors)))


def pixels(png: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[..., ::-1]


def has_color(image: np.ndarray, color: str) -> bool:
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((image == rgb).all(axis=-1).sum()) > 50


@pytest.mark.parametrize("plot", [ced_plot, regions_plot])
class TestCurvesAndBars:
    def test_each_subset_has_its_colour(self, plot) -> None:
        two = pixels(plot(evaluation([0.03, 0.09], ["common", "challenge"])))
        assert all(has_color(two, color) for color in ("#0077bb", "#cc3311", "#33424f"))
        one = pixels(plot(evaluation([0.03, 0.09])))
        assert has_color(one, "#0077bb")
        assert not has_color(one, "#cc3311")

    def test_list_files_are_subsets_too(self, plot) -> None:
        assert has_color(pixels(plot(evaluation([0.03], ["my_list"]))), "#009988")

    @pytest.mark.parametrize("errors", [[np.nan, np.nan], [np.inf, 0.02], [0.0], [40.0, 50.0]])
    def test_results_without_a_curve(self, plot, errors: list[float]) -> None:
        assert pixels(plot(evaluation(errors))).shape[2] == 3


class TestWorstFaces:
    def test_order(self) -> None:
        assert worst_faces(evaluation([0.02, np.nan, 0.30, 0.05]), 3) == [1, 2, 3]

    def test_photographs_are_asked_for_by_index(self) -> None:
        asked: list[int] = []

        def image_of(index: int) -> np.ndarray:
            asked.append(index)
            return np.full((200, 200, 3), (12, 200, 34), dtype=np.uint8)

        picture = pixels(worst_plot(evaluation([0.02, 0.30, 0.05]), image_of, count=2))
        assert asked == [101, 102]
        assert has_color(picture, "#0cc822")

    def test_names_are_not_read_as_formulas(self) -> None:
        result = evaluation([0.1])
        strange = EvaluationResult(**{**vars(result), "names": ("$\\frac{$" + "x" * 80,)})
        assert worst_plot(strange, lambda _: np.zeros((200, 200, 3), dtype=np.uint8))
