"""Rows of the table: subsets as masks, the names and units that are logged, the mean shape's row."""

from __future__ import annotations

import numpy as np
import pytest

from facelm.evaluation.metrics import FacePredictions
from facelm.evaluation.plots import worst_faces
from facelm.evaluation.report import per_face_csv, summary
from facelm.evaluation.scores import evaluate_faces, face_errors, subset_masks, subset_scores


def square_faces(offsets: list[float]) -> FacePredictions:
    """Faces 120 wide and 30 high, inter-ocular 100, inter-pupil 50; face i is predicted `offsets[i]` px off."""
    face = np.zeros((68, 2))
    face[0], face[16] = (-10, 0), (110, 30)
    face[[37, 38, 39, 40, 41]] = (28, 0)
    face[[42, 43, 44, 46, 47]] = (68, 0)
    face[36], face[45] = (0, 0), (100, 0)
    target = np.repeat(face[None], len(offsets), axis=0)
    predicted = target + np.array(offsets)[:, None, None] * [0.6, 0.8]
    return FacePredictions(np.arange(len(offsets)), predicted, target)


class TestFaceErrors:
    def test_each_normaliser(self) -> None:
        faces = square_faces([3.0])
        errors = face_errors(faces.predicted, faces.target)
        assert errors.nme == pytest.approx(0.03)
        assert errors.nme_interpupil == pytest.approx(3 / 50)
        assert errors.nme_box == pytest.approx(3 / 60)  # sqrt(120 * 30)

    def test_normalisers_come_from_the_target(self) -> None:
        faces = square_faces([0.0])
        errors = face_errors(faces.target * 2, faces.target)
        distance = np.linalg.norm(faces.target, axis=-1).mean()
        assert errors.nme == pytest.approx(distance / 100)
        assert errors.nme_interpupil == pytest.approx(distance / 50)
        assert errors.nme_box == pytest.approx(distance / 60)


class TestSubsets:
    def test_full_is_common_and_challenge(self) -> None:
        masks = subset_masks(["test", "challenge", "common", "common"])
        assert list(masks) == ["common", "challenge", "full", "test"]
        np.testing.assert_array_equal(masks["full"], [False, True, True, True])

    def test_no_full_without_challenge(self) -> None:
        assert list(subset_masks(["common", "common"])) == ["common"]
        assert list(subset_masks(["val", "common"])) == ["common", "val"]

    def test_rows_are_means_over_their_faces(self) -> None:
        faces = square_faces([1.0, 3.0, 9.0, 11.0, 30.0])
        masks = subset_masks(["common", "common", "challenge", "challenge", "test"])
        result = evaluate_faces(faces, list("abcde"), masks)
        assert {name: row.n for name, row in result.subsets.items()} == {
            "common": 2,
            "challenge": 2,
            "full": 4,
            "test": 1,
        }
        assert [row.nme for row in result.subsets.values()] == pytest.approx([0.02, 0.10, 0.06, 0.30])
        full = result.subsets["full"]
        assert (full.scores["fr@8"], full.scores["fr@10"]) == (0.5, 0.25)
        assert full.scores["auc@8"] == pytest.approx((7 / 8 + 5 / 8) / 4)
        assert full.scores["auc@10"] == pytest.approx((0.9 + 0.7 + 0.1) / 4)
        assert full.interval is not None
        assert full.interval.low < 0.06 < full.interval.high
        assert full.regions == pytest.approx(dict.fromkeys(("jaw", "brows", "nose", "eyes", "mouth"), 0.06))

    def test_thresholds_that_agree_on_the_first_faces_stay_apart(self) -> None:
        """As two metrics of a MetricCollection, FR@8 and FR@10 would be merged after the first batch."""
        errors = face_errors(*(lambda f: (f.predicted, f.target))(square_faces([20.0, 9.0])))
        failures = [
            subset_scores(errors, np.array(mask)).scores[f"fr@{t}"]
            for mask in ([True, False], [True, True])
            for t in (8, 10)
        ]
        assert failures == [1.0, 1.0, 1.0, 0.5]

    def test_percent_under_the_logged_names(self) -> None:
        result = evaluate_faces(square_faces([3.0, 9.0]), ["a", "b"], {"common": np.ones(2, dtype=bool)})
        row = result.subsets["common"].percent()
        assert list(row) == (
            ["n", "nme", "nme_interpupil", "nme_box", "fr@8", "fr@10", "auc@8", "auc@10", "nme_ci95", "regions"]
        )
        assert (row["n"], row["nme"], row["fr@8"], row["fr@10"]) == pytest.approx((2, 6.0, 50.0, 0.0))
        assert (row["auc@8"], row["auc@10"]) == pytest.approx((31.25, 40.0))
        assert row["nme_ci95"] == pytest.approx([3.0, 9.0])
        assert row["regions"]["jaw"] == pytest.approx(6.0)

    def test_mean_shape_has_rows_of_its_own(self) -> None:
        faces = square_faces([1.0, 1.0])
        shape = faces.target + np.array([30.0, 0.0])
        masks = subset_masks(["common", "challenge"])
        result = evaluate_faces(faces, ["a", "b"], masks, mean_shape_image=shape)
        assert {name: row.nme for name, row in result.mean_shape.items()} == pytest.approx(dict.fromkeys(masks, 0.3))
        assert evaluate_faces(faces, ["a", "b"], masks).mean_shape == {}


class TestMistakes:
    def test_names_that_do_not_match(self) -> None:
        with pytest.raises(ValueError, match=r"2 predictions, 3 names, .*Was every face predicted"):
            evaluate_faces(square_faces([1.0, 2.0]), ["a", "b", "c"], {})

    def test_masks_that_do_not_match(self) -> None:
        with pytest.raises(ValueError, match=r"masks of another length: \{'common': 3\}"):
            evaluate_faces(square_faces([1.0, 2.0]), ["a", "b"], {"common": np.ones(3, dtype=bool)})

    def test_empty_subset(self) -> None:
        with pytest.raises(ValueError, match="no faces to measure"):
            evaluate_faces(square_faces([1.0]), ["a"], {"common": np.zeros(1, dtype=bool)})


class TestFacesWithoutALength:
    def test_they_are_left_out_and_counted(self) -> None:
        """An eye corner that nobody labelled, and two corners in one place: no error, and none that is infinite."""
        faces = square_faces([1.0, 2.0, 3.0, 4.0])
        faces.target[1, 36] = np.nan
        faces.target[2, 45] = faces.target[2, 36]
        result = evaluate_faces(faces, list("abcd"), subset_masks(["test"] * 4))
        row = result.subsets["test"]
        assert (row.n, result.left_out, row.unmeasured) == (2, 2, 0)
        assert row.nme == pytest.approx(0.025)
        assert worst_faces(result, 12) == [3, 0]
        assert any(note.startswith("2 faces are left out") for note in summary(result)["notes"])
        assert per_face_csv(result).splitlines()[2].startswith("b,,")

    def test_a_region_is_averaged_over_the_faces_that_are_labelled_there(self) -> None:
        faces = square_faces([1.0, 2.0])
        faces.target[0, 48:] = np.nan
        row = evaluate_faces(faces, list("ab"), subset_masks(["test"] * 2)).subsets["test"]
        assert row.regions["mouth"] == pytest.approx(0.02)
        assert row.nme == pytest.approx(0.015)

    def test_none_at_all_is_an_error_with_its_cure(self) -> None:
        faces = square_faces([1.0])
        faces.target[0, 36] = np.nan
        with pytest.raises(ValueError, match="normaliser: box"):
            evaluate_faces(faces, ["a"], subset_masks(["test"]))
