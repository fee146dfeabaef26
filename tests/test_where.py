"""Where the error is: faces whose landmarks were moved in a known way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facelm.evaluation.faces_shown import differences
from facelm.evaluation.metrics import FacePredictions
from facelm.evaluation.scores import EvaluationResult, evaluate_faces, subset_masks
from facelm.evaluation.where import common_slide, where_markdown
from facelm.geometry.landmarks import get_scheme

IBUG68 = get_scheme("ibug68")
JAW, BROW = list(range(17)), [17, 18, 19, 20, 21]


def faces(count: int = 12) -> np.ndarray[Any, Any]:
    """Landmarks [N, 68, 2] of the plain shape, a little different in each face."""
    return np.array(IBUG68.shape) + np.random.default_rng(0).normal(0, 1, (count, 68, 2)) + 150


def evaluated(predicted: Any, target: Any, side: Any = None, compared: Any = None) -> EvaluationResult:
    found = FacePredictions(np.arange(len(target)), predicted, target, side)
    masks = subset_masks(["common"] * len(target))
    return evaluate_faces(found, [f"{i}" for i in range(len(target))], masks, scheme=IBUG68, compared=compared)


def tangents(target: Any) -> Any:
    everywhere = FacePredictions(np.arange(len(target)), target, target)
    found = differences(everywhere, np.ones(len(target), bool), IBUG68)
    return found.tangent * np.linalg.norm(target[:, 45] - target[:, 36], axis=-1)[:, None, None] / 100


def upright(target: Any) -> Any:
    """Faces whose eyes lie level: on them a percent of their width to the right is one in the photograph too."""
    target = target.copy()
    target[:, 45, 1] = target[:, 36, 1]
    return target


def rows(page: str, title: str) -> dict[str, list[str]]:
    """The rows of the table below a title, by their first cell."""
    part = page.split(f"## {title}")[1].split("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]
    return {first: rest for first, *rest in cells[2:]}


def test_a_slide_is_along_and_all_of_it_is_common() -> None:
    target = upright(faces())
    predicted = target.copy()
    predicted[:, JAW] += 4 * tangents(target)[:, JAW]
    _, error, along, across, without, share = rows(where_markdown(evaluated(predicted, target)), "By region")["jaw"]
    assert (error, along, across, without, share) == ("4.00", "4.00", "0.00", "0.00", "100 %")


def test_both_ends_of_a_line_sliding_against_each_other_is_common_too() -> None:
    target = upright(faces())
    predicted = target.copy()
    predicted[:, JAW] += np.linspace(-5, 5, 17)[:, None] * tangents(target)[:, JAW]
    _, error, along, _, without, _ = rows(where_markdown(evaluated(predicted, target)), "By region")["jaw"]
    assert float(error) == float(along) > 2
    assert without == "0.00"


def test_a_line_that_is_missed_is_across_and_no_slide() -> None:
    target = upright(faces())
    across = tangents(target) @ np.array([[0.0, 1.0], [-1.0, 0.0]])
    predicted = target.copy()
    predicted[:, JAW] += 3 * across[:, JAW]
    _, error, along, missed, without, _ = rows(where_markdown(evaluated(predicted, target)), "By region")["jaw"]
    assert (error, along, missed, without) == ("3.00", "0.00", "3.00", "3.00")


def test_points_that_err_alone_are_no_slide() -> None:
    target = upright(faces(200))
    predicted = target.copy()
    push = np.random.default_rng(1).normal(0, 4, (200, 17, 1))
    predicted[:, JAW] += push * tangents(target)[:, JAW]
    _, error, _, _, without, _ = rows(where_markdown(evaluated(predicted, target)), "By region")["jaw"]
    assert float(without) > 0.85 * float(error)


def test_a_closed_contour_turns_but_has_no_ends() -> None:
    target = upright(faces())
    predicted = target.copy()
    eye = [36, 37, 38, 39, 40, 41]
    predicted[:, eye] += 2 * tangents(target)[:, eye]
    found = differences(FacePredictions(np.arange(12), predicted, target), np.ones(12, bool), IBUG68)
    np.testing.assert_allclose(common_slide(found, IBUG68)[:, eye], 2, atol=0.05)


def test_points_come_the_worst_first_with_their_mean_difference() -> None:
    target = upright(faces())
    predicted = target.copy()
    predicted[:, 8, 0] += 5 * np.linalg.norm(target[:, 45] - target[:, 36], axis=-1) / 100
    found = rows(where_markdown(evaluated(predicted, target)), "By point, the worst first")
    assert next(iter(found)) == "8"
    assert found["8"][1:3] == ["jaw", "5.00"]
    assert found["8"][-2:] == ["5.00", "0.00"]


def test_groups_by_roll_and_size() -> None:
    target = faces(40)
    target[20:] = (target[20:] - 150) @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + 150  # turned by 90 degrees
    predicted = target.copy()
    predicted[20:, :, 0] += 3
    found = rows(
        where_markdown(evaluated(predicted, target, side=np.repeat([100.0, 140.0, 180.0, 220.0], 10))), "By pose"
    )
    assert found["roll 0 to 10 degrees"][:2] == ["20", "0.00"]
    assert found["roll 30 or more degrees"][0] == "20"
    assert float(found["roll 30 or more degrees"][1]) > 2
    assert sum(int(row[0]) for name, row in found.items() if name.startswith("size")) == 40


def test_faces_of_one_size_are_one_group() -> None:
    page = where_markdown(evaluated(faces(), faces(), np.full(12, 100.0)))
    assert [row for row in rows(page, "By pose") if row.startswith("size")] == ["size of the box 100 to 100 pixels"]


def test_what_is_not_labelled_or_nowhere_does_not_count() -> None:
    target = upright(faces())
    predicted = target.copy()
    target[:, BROW] = np.nan
    predicted[0] = np.nan
    predicted[:, 8] += 2
    page = where_markdown(evaluated(predicted, target))
    assert "11 faces" in page
    assert "nan" not in page
    assert rows(page, "By point, the worst first")["17"][2] == "-"


@pytest.mark.parametrize("count", [0, 3])
def test_no_face_that_can_be_measured(count: int) -> None:
    target = faces(max(count, 1))[:count]
    page = where_markdown(evaluated(np.full_like(target, np.nan), target))
    assert "No face could be measured." in page


def test_points_of_another_data_set_are_left_out() -> None:
    target = upright(faces())
    compared = np.zeros(68, bool)
    compared[:17] = True
    page = where_markdown(evaluated(np.where(compared[:, None], target + 1, np.nan), target, compared=compared))
    assert rows(page, "By region")["eyes"][1] == "-"
    assert rows(page, "By region")["jaw"][1] != "-"
