"""Expected errors by confidence: the fit, where it is kept, and where it is shown."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from facelm.cli import main
from facelm.commands.confidence import doubtful_points
from facelm.evaluation.kept import FILE, Kept, no_origin, write_predictions
from facelm.evaluation.overlay import DOUBTFUL, draw_landmarks
from facelm.evaluation.page.numbers import known_error
from facelm.models import save_weights
from facelm.models.cards import read_card, write_card
from facelm.models.expected import (
    ExpectedError,
    cross_fitted,
    fit,
    in_tenths,
    over_expected,
    rank_correlation,
    rank_over_faces,
)
from facelm.models.spec import ModelSpec, checkpoint_facts, read_facts
from facelm.predict import Predictor
from perfect_network import SPEC, PerfectNetwork, box_of, face_landmarks, map_image
from test_page import drawn, page

FIT = ExpectedError(
    scale=(2.0,) * 68, power=1.0, power_of_face=0.0, lowest=0.2, highest=0.9, flip="none", faces=50, rank_points=0.5,
    rank_faces=0.7,
)  # fmt: skip
WITH_FIT = replace(SPEC, expected_error=FIT)


def lawful(count: int = 120, power: float = 1.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Peaks and errors that follow the law, with the scatter of distances; two faces a photograph."""
    rng = np.random.default_rng(seed)
    peaks = rng.uniform(0.3, 0.95, (count, 1)) * rng.uniform(0.8, 1.0, (count, 68))
    errors = np.linspace(1, 3, 68) * peaks**-power * rng.rayleigh(0.798, (count, 68))
    return peaks, errors, [f"p{i // 2}" for i in range(count)]


class TestFit:
    def test_finds_the_law(self):
        peaks, errors, groups = lawful(600)
        found = fit(peaks, errors, groups, "exact")
        assert found.power + found.power_of_face == pytest.approx(1.3, abs=0.05)
        assert found.power_of_face == pytest.approx(0, abs=0.2)
        assert found.scale == pytest.approx(np.linspace(1, 3, 68), rel=0.1)
        assert (found.faces, found.flip) == (600, "exact")
        assert found.of(peaks).mean() == pytest.approx(errors.mean(), rel=0.01)
        assert found.rank_faces > 0.8 > found.rank_points > 0.3

    def test_says_when_there_is_nothing_to_trust(self):
        peaks, errors, groups = lawful(1200)
        errors = np.random.default_rng(1).permutation(errors)  # whatever the peak
        found = fit(peaks, errors, groups, "none")
        assert abs(found.power + found.power_of_face) < 0.15
        assert abs(found.rank_faces) < 0.3

    def test_a_photograph_is_on_one_side(self):
        """An error that belongs to the photograph cannot be known from its other face."""
        peaks, errors, groups = lawful()
        one, other = cross_fitted(peaks, errors, groups), errors.copy()
        other[0] *= 50  # a face of p0: what is expected of both its faces stays
        assert np.array_equal(cross_fitted(peaks, other, groups)[:2], one[:2])
        assert not np.array_equal(cross_fitted(peaks, other, groups), one)

    def test_tenths(self):
        peaks, errors, groups = lawful(600)
        means = in_tenths(cross_fitted(peaks, errors, groups), errors)
        assert means.shape == (10, 2)
        assert means[:, 1] == pytest.approx(means[:, 0], rel=0.1)

    def test_in_parts_of_what_was_expected(self):
        expected, errors = np.full((4, 3), 2.0), np.array([[1.0, 2.0, 6.0], [2.0] * 3, [4.0] * 3, [np.nan] * 3])
        expected[1, 1] = np.nan
        points, faces = over_expected(expected, errors)
        assert points.tolist() == [0.5, 1, 3, 1, 1, 2, 2, 2]
        assert faces.tolist() == [1.5, 1, 2]

    def test_rank_over_the_faces_for_one_point(self):
        """Points that differ from each other are not what is asked here: each is ranked alone."""
        expected = np.array([[1.0, 30.0, np.nan], [2.0, 20.0, 5.0], [3.0, 10.0, np.nan]])
        assert rank_over_faces(expected, expected) == pytest.approx(2 / 3)  # one face ranks nothing
        assert rank_over_faces(expected[:, :2], expected[::-1, :2]) == pytest.approx(-1)

    def test_unlabelled_points_say_nothing(self):
        peaks, errors, groups = lawful()
        holes = errors.copy()
        holes[:40, 3] = np.nan
        peaks[50:60] = np.nan
        found = fit(peaks, holes, groups, "none")
        assert np.isfinite(found.scale).all()
        assert found.faces == 110
        holes[:, 3] = np.nan
        with pytest.raises(ValueError, match="a point that none of them has"):
            fit(peaks, holes, groups, "none")
        with pytest.raises(ValueError, match="29 faces"):
            fit(*(values[:29] for values in lawful()), "none")

    def test_peaks_beyond_those_measured(self):
        assert np.isfinite(FIT.of(np.array([0.0, 5.0] * 34))).all()
        assert np.isnan(FIT.of(np.full(68, np.nan))).all()
        assert np.isnan(FIT.of(np.where(np.arange(68) == 3, np.nan, 0.5))).sum() == 1

    def test_a_face_whose_points_are_all_unsure_is_worse(self):
        rng = np.random.default_rng(0)
        face = rng.uniform(0.4, 0.9, (800, 1))
        peaks = face * rng.uniform(0.8, 1.0, (800, 68))
        found = fit(peaks, 2 / face * rng.rayleigh(0.798, (800, 68)), [str(i) for i in range(800)], "none")
        assert (found.power, found.power_of_face) == pytest.approx((0, 1), abs=0.1)

    def test_peaks_that_are_all_alike(self):
        found = fit(np.full((40, 68), 0.5), lawful(40)[1], lawful(40)[2], "none")
        assert np.isfinite([found.power, found.power_of_face, *found.scale]).all()

    @pytest.mark.parametrize(
        ("a", "b", "expected"), [([1, 2, 3], [2, 5, 9], 1), ([1, 2, 3], [3, 2, 1], -1), ([1, 1], [1, 2], 0)]
    )
    def test_rank_correlation(self, a, b, expected):
        assert rank_correlation(np.array(a, float), np.array(b, float)) == pytest.approx(expected)


class TestSpec:
    def test_travels_in_cards_and_checkpoints(self, tmp_path):
        path = tmp_path / "w.safetensors"
        save_weights(SPEC.build_network(), path)
        write_card(path, WITH_FIT)
        assert read_card(path).spec == WITH_FIT
        torch.save({"facelm": checkpoint_facts(WITH_FIT, {})}, tmp_path / "c.ckpt")
        assert read_facts(torch.load(tmp_path / "c.ckpt", weights_only=True)).spec == WITH_FIT

    def test_absent_it_leaves_no_trace(self):
        assert "expected_error" not in SPEC.to_dict()
        assert ModelSpec.from_dict(SPEC.to_dict()).known_error is None

    def test_of_another_flip_test_it_does_not_count(self):
        assert WITH_FIT.known_error == FIT
        assert replace(WITH_FIT, flip="exact").known_error is None

    @pytest.mark.parametrize(
        "change",
        [{"scale": [1.0]}, {"scale": "x"}, {"scale": 3}, {"power": float("nan")}, {"lowest": 0}, {"colour": 1},
         {"flip": 3}, {"rank_faces": 2}],
    )  # fmt: skip
    def test_damaged(self, change):
        plain = WITH_FIT.to_dict()
        plain["expected_error"] |= change
        with pytest.raises(ValueError, match="expected_error"):
            ModelSpec.from_dict(plain)
        with pytest.raises(ValueError, match="expected_error"):
            ModelSpec.from_dict({**plain, "expected_error": 3})
        with pytest.raises(ValueError, match="no power"):
            ModelSpec.from_dict({**plain, "expected_error": {"scale": [1.0]}})


class TestShown:
    def test_in_results(self):
        predictor = Predictor(
            PerfectNetwork(face_landmarks(), peak=0.5), WITH_FIT, device="cpu", backend="torch", flip="none"
        )
        prediction = predictor(map_image(), [box_of(face_landmarks()).xyxy], convention="square")
        assert prediction[0].expected_error == pytest.approx(2 / prediction[0].confidence)
        assert prediction.to_dict()["faces"][0]["expected_error"] == prediction[0].expected_error.round(2).tolist()
        assert "expected_error" in prediction.to_dataframe()

    def test_not_where_it_is_not_known(self):
        for flip, spec in (("none", SPEC), ("exact", WITH_FIT)):
            predictor = Predictor(PerfectNetwork(face_landmarks()), spec, device="cpu", backend="torch", flip=flip)
            prediction = predictor(map_image(), [box_of(face_landmarks()).xyxy], convention="square")
            assert prediction[0].expected_error is None
            assert "expected_error" not in prediction.to_dict()["faces"][0]
            assert "expected_error" not in prediction.to_dataframe()

    def test_in_overlays(self):
        image, points = np.zeros((200, 200, 3), np.uint8), face_landmarks(center=(100.0, 100.0), side=120.0)
        doubtful = np.arange(68) == 8
        drawn_on = draw_landmarks(image, points, doubtful=doubtful)
        x, y = points[8].round().astype(int)
        assert drawn_on[y, x].tolist() == pytest.approx(DOUBTFUL, abs=40)
        assert (drawn_on != draw_landmarks(image, points)).any()

    def test_in_a_report(self, tmp_path):
        facts = {"checkpoint": {"spec": WITH_FIT.to_dict()}}
        assert page(tmp_path / "a", drawn(12), facts=facts)["faces"]["facets"]["expected"]["values"] == [4.0] * 12
        for spec in (SPEC.to_dict(), {**WITH_FIT.to_dict(), "unknown": 1}, 3):
            facts = {"checkpoint": {"spec": spec}}
            assert "expected" not in page(tmp_path / "b", drawn(12), facts=facts)["faces"]["facets"]
        other = Kept(drawn(12, scheme="wflw98"), no_origin(12), {"checkpoint": {"spec": WITH_FIT.to_dict()}})
        assert known_error(other) is None


class TestCommand:
    def test_doubtful_points_are_counted(self):
        expected, errors = np.array([[7.0, 3.0], [5.0, np.nan]]), np.array([[9.0, 1.0], [2.0, 50.0]])
        assert doubtful_points(expected, errors) == (
            "expected above 6 %: 33.3 of 100 points, mean error 9.0 %; others 1.5 %"
        )
        assert "mean error none" in doubtful_points(expected / 2, errors)

    def report(self, folder, spec=SPEC, count=60):
        facts = {"checkpoint": {"spec": spec.to_dict()}} if spec else {}
        write_predictions(folder / FILE, Kept(drawn(count), no_origin(count), facts))
        return str(folder)

    def test_writes_card_and_figure(self, tmp_path, capsys):
        weights = tmp_path / "w.safetensors"
        save_weights(SPEC.build_network(), weights)
        write_card(weights, SPEC, data="drawn faces", nme={"dev": 3.0})
        figure = tmp_path / "figure.png"
        for _ in range(2):  # again, over what is there
            arguments = [
                "--confidence",
                self.report(tmp_path / "r"),
                "--weights",
                str(weights),
                "--figure",
                str(figure),
            ]
            assert main(["calibrate", *arguments]) == 0
        card = read_card(weights)
        assert card.spec.known_error.faces == 60
        assert (card.data, card.nme) == ("drawn faces", {"dev": 3.0})
        assert replace(card.spec, expected_error=None) == SPEC
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert "rank correlation" in capsys.readouterr().out
        assert json.loads((tmp_path / "w.json").read_text())["spec"]["expected_error"]["flip"] == "none"

    def test_what_cannot_be_is_said(self, tmp_path, capsys):
        weights = tmp_path / "w.safetensors"
        save_weights(SPEC.build_network(), weights)
        good = self.report(tmp_path / "good")
        for arguments, said in (
            (["--confidence", str(tmp_path)], "no predictions.npz"),
            (["--confidence", self.report(tmp_path / "few", count=8)], "8 faces"),
            (["--confidence", self.report(tmp_path / "nobody", None)], "which weights were measured"),
            (["--confidence", good, "--weights", str(weights)], "no weights with a card"),
            (["--detector", "dlib", "--weights", "w"], "go with --confidence"),
        ):
            assert main(["calibrate", *arguments]) == 1
            assert said in capsys.readouterr().err
        write_card(weights, replace(SPEC, flip="exact"))
        assert main(["calibrate", "--confidence", good, "--weights", str(weights)]) == 1
        assert "read in another way" in capsys.readouterr().err
        assert read_card(weights).spec.expected_error is None
