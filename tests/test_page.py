"""The page of a report and of a comparison: what it holds, how large it is, and that no name can become code."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

from facelm.cli import main
from facelm.evaluation import faces_shown
from facelm.evaluation.faces_shown import chosen, point_errors
from facelm.evaluation.kept import FILE, Kept, no_origin, read_predictions, write_predictions
from facelm.evaluation.metrics import FacePredictions
from facelm.evaluation.page import html, numbers
from facelm.evaluation.page.comparison import on_same_faces, paired_rows, write_comparison_page
from facelm.evaluation.page.pictures import SIZE, thumbnail
from facelm.evaluation.page.write import write_report_page
from facelm.evaluation.plots import ImageOf
from facelm.evaluation.report import write_report
from facelm.evaluation.scores import EvaluationResult, evaluate_faces, subset_masks
from facelm.files import write_whole
from facelm.geometry.landmarks import get_scheme
from facelm.geometry.pose import NOSE_DEPTH, roll, yaw

EVIL = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a'b\"c\u2028d\u2029", "caf\udce9 &lt;"]


def drawn(
    count: int, *, names: list[str] | None = None, scheme: str = "ibug68", off: float = 2.0, seed: int = 0
) -> EvaluationResult:
    """Faces of the scheme's plain shape, predicted with an error of that many pixels; the same faces for any `seed`."""
    one = get_scheme(scheme)
    shape = np.array(one.shape) if one.shape else np.random.default_rng(5).uniform(-60, 60, (one.num_landmarks, 2))
    target = shape + np.random.default_rng(9).normal(0, 2, (count, *shape.shape)) + 150
    predicted = target + np.random.default_rng(seed).normal(0, off, target.shape)
    faces = FacePredictions(np.arange(count), predicted, target, np.full(count, 160.0), np.full(target.shape[:2], 0.5))
    labels = ["common"] * (count // 2) + ["challenge"] * (count - count // 2)
    names = names or [f"helen/testset/{i:06}_1" for i in range(count)]
    return evaluate_faces(faces, names, subset_masks(labels), scheme=one)


def grey(_: int) -> np.ndarray:
    return np.full((300, 300, 3), 90, dtype=np.uint8)


def page(
    folder: Path, result: EvaluationResult, image_of: ImageOf | None = None, facts: object = None, notes: object = ()
) -> dict:
    """The page alone, which takes a tenth of the time of a report, and what it holds."""
    kept = Kept(result, no_origin(len(result.names)), facts or {})
    write_predictions(folder / FILE, kept)
    table = {"header": ["subset"], "rows": [["common"]], "captions": list(notes), "own": 1}
    write_report_page(folder, kept, table, image_of, write_whole)
    return data_of(folder / "index.html")


def data_of(page: Path) -> dict:
    """What the page holds, as its script reads it."""
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


class TestContent:
    def test_every_face_with_its_numbers_and_picture(self, tmp_path: Path) -> None:
        result = drawn(6)
        write_report(tmp_path, result, image_of=grey, published={"paper": {"full": 3.0}}, notes=["a note"])
        data = data_of(tmp_path / "index.html")
        errors = data["faces"]["facets"]["error"]["values"]
        assert errors == sorted(errors, reverse=True)
        assert sorted(errors) == pytest.approx(sorted(100 * result.errors.nme), abs=1e-4)
        assert {"yaw", "roll", "size", "confidence", "sharpness", "error of the jaw"} <= data["faces"]["facets"].keys()
        assert all((tmp_path / file).is_file() for file in data["faces"]["files"])
        assert "paper" in data["table"]["header"]
        assert "a note" in data["table"]["captions"]
        points = np.frombuffer(base64.b64decode(data["faces"]["annotated"]), "<i2").reshape(6, 68, 2) / 16
        assert points.min() > 0
        assert points.max() < SIZE

    def test_the_curve_is_the_table_s(self, tmp_path: Path) -> None:
        result = drawn(20, off=6.0)
        page(tmp_path, result)
        ced = data_of(tmp_path / "index.html")["ced"][""]
        at = ced["x"].index(next(x for x in ced["x"] if x >= 8))
        expected = 100 * np.mean(100 * result.errors.nme <= ced["x"][at])
        assert ced["series"]["full"][at] == pytest.approx(expected, abs=1e-2)

    def test_learning_curves_of_the_run(self, tmp_path: Path) -> None:
        (tmp_path / "metrics.csv").write_text(
            "step,epoch,train/loss,val/nme\n1,0,0.5,\n1,0,,9\n2,1,nan,\n2,1,,7\n3,2,,8\n"
        )
        page(tmp_path / "report", drawn(2))
        curves = data_of(tmp_path / "report" / "index.html")["curves"]
        assert curves["best"] == {"nme": 7, "step": 2, "epoch": 1}
        assert curves["train/loss"]["y"] == [0.5]
        page(tmp_path / "other", drawn(2))
        assert data_of(tmp_path / "other" / "index.html")["curves"] == {}

    def test_what_was_evaluated_says_no_place(self, tmp_path: Path) -> None:
        facts = {
            "checkpoint": {"path": "/home/someone/best.ckpt"},
            "run": {"config": {"data": {"root": "/disk/x/faces"}}},
        }
        page(tmp_path, drawn(2), facts=facts)
        text = (tmp_path / "index.html").read_text()
        assert ".../best.ckpt" in text
        assert "/home/someone" not in text
        assert "/disk/x" not in text

    @pytest.mark.parametrize("scheme", ["wflw98", "cofw29", "aflw19"])
    def test_other_schemes(self, scheme: str, tmp_path: Path) -> None:
        page(tmp_path, drawn(4, scheme=scheme), image_of=grey)
        assert data_of(tmp_path / "index.html")["scheme"]["points"] == get_scheme(scheme).num_landmarks

    def test_numbers_that_are_not_finite(self, tmp_path: Path) -> None:
        result = drawn(4)
        result.predictions.predicted[1] = np.nan
        result.predictions.target[2, 5:] = np.nan
        broken = evaluate_faces(result.predictions, result.names, result.masks)
        page(tmp_path, broken, image_of=grey)
        assert None in data_of(tmp_path / "index.html")["faces"]["facets"]["error"]["values"]


class TestSafe:
    def test_no_name_becomes_code(self, tmp_path: Path) -> None:
        page(tmp_path / "plain", drawn(4))
        page(tmp_path / "evil", drawn(4, names=EVIL), notes=[EVIL[0]], facts={"checkpoint": {"path": EVIL[0]}})
        plain, evil = ((tmp_path / one / "index.html").read_text(encoding="utf-8") for one in ("plain", "evil"))
        assert evil.count("<script") == plain.count("<script")
        assert evil.count("</script") == plain.count("</script")
        assert "<img src=x" not in evil
        assert "\u2028" not in re.search(r'id="data">(.*?)</script>', evil, re.DOTALL)[1]
        assert sorted(data_of(tmp_path / "evil" / "index.html")["faces"]["names"]) == sorted(EVIL)

    def test_nothing_is_fetched(self, tmp_path: Path) -> None:
        page(tmp_path, drawn(2))
        text = (tmp_path / "index.html").read_text(encoding="utf-8")
        assert "default-src 'none'" in text
        assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']?(?!data:)\w*:?//", text)

    def test_thumbnails_replace_their_own_alone(self, tmp_path: Path) -> None:
        page(tmp_path, drawn(4), image_of=grey)
        (tmp_path / "index_files" / "mine.jpg").write_text("mine")
        page(tmp_path, drawn(2, names=["x", "y"]), image_of=grey)
        files = {file.name for file in (tmp_path / "index_files").iterdir()}
        assert files == {"mine.jpg", *(Path(thumbnail(name)).name for name in "xy")}


class TestSize:
    def test_many_faces_are_sampled(self, tmp_path: Path) -> None:
        result = drawn(4000)
        page(tmp_path, result)
        data = data_of(tmp_path / "index.html")
        assert data["faces"]["of"] == 4000
        assert len(data["faces"]["names"]) == faces_shown.MOST_FACES
        errors = data["faces"]["facets"]["error"]["values"]
        assert (errors[0], errors[-1]) == pytest.approx(
            (100 * result.errors.nme.max(), 100 * result.errors.nme.min()), abs=1e-4
        )
        assert (tmp_path / "index.html").stat().st_size < 5e6

    def test_689_faces_fit_three_megabytes(self, tmp_path: Path) -> None:
        page(tmp_path, drawn(689))
        assert (tmp_path / "index.html").stat().st_size < 3e6

    def test_which_are_shown(self) -> None:
        errors = np.random.default_rng(0).permutation(100_000).astype(float)
        rows = chosen(errors, 600)
        assert len(set(rows.tolist())) == 600
        assert errors[rows[:200]].tolist() == list(range(99_999, 99_799, -1))
        assert errors[rows[-100:]].tolist() == list(range(99, -1, -1))

    def test_without_bokeh_the_rest_is_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(html, "find_spec", lambda _: None)
        html.charts.cache_clear()
        page(tmp_path, drawn(2))
        html.charts.cache_clear()
        data = data_of(tmp_path / "index.html")
        assert (data["charts"], data["install"]) == (False, "pip install 'facelm[report]'")
        assert (tmp_path / "index.html").stat().st_size < 2e5

    def test_the_script_is_small(self) -> None:
        pytest.importorskip("bokeh")
        assert 5e5 < len(html.charts()) < 1.5e6


class TestGeometry:
    def test_yaw_of_a_turned_head(self) -> None:
        scheme = get_scheme("ibug68")
        flat = np.zeros((1, 68, 3))
        flat[0, [36, 45], 0] = -1, 1
        flat[0, [27, 28, 29, 30, 33], 2] = NOSE_DEPTH
        for degrees in (-50, 0, 30):
            cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            seen = np.stack([cos * flat[..., 0] + sin * flat[..., 2], flat[..., 1]], axis=-1)
            assert yaw(seen, scheme) == pytest.approx([degrees])
            turn = np.radians(20)
            rolled = seen @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
            assert (yaw(rolled, scheme)[0], roll(rolled, scheme)[0]) == pytest.approx((degrees, 20))

    def test_a_scheme_that_cannot_say_it(self, tmp_path: Path) -> None:
        one = get_scheme({"name": "two", "points": 2, "mirror": [[0, 1]], "normaliser": "box"})
        target = np.array([[[10.0, 10.0], [50.0, 30.0]]] * 3)
        faces = FacePredictions(np.arange(3), target + 1, target, np.full(3, 60.0))
        page(tmp_path, evaluate_faces(faces, ["a", "b", "c"], subset_masks(["x"] * 3), scheme=one))
        assert {"yaw", "roll"}.isdisjoint(data_of(tmp_path / "index.html")["faces"]["facets"])

    def test_errors_along_and_across_the_contour(self) -> None:
        result = drawn(50, off=0.0)
        scheme, faces = result.scheme, result.predictions
        faces.predicted[:, 8, 0] += 3.0  # the chin, whose contour runs from left to right
        found = point_errors(faces, np.ones(50, dtype=bool), scheme)
        unit = 100 * 3 / np.linalg.norm(faces.target[:, 36] - faces.target[:, 45], axis=-1).mean()
        assert found["error"][8] == pytest.approx(unit, rel=0.02)
        assert found["bias_x"][8] == pytest.approx(unit, rel=0.02)
        assert found["along"][8] > 0.9 * unit > 3 * found["across"][8]
        assert found["error"][9] == 0


class TestComparison:
    def reports(self, folder: Path) -> list[Path]:
        folders = [folder / "a", folder / "b"]
        for one, off, seed in zip(folders, (3.0, 1.0), (0, 1), strict=True):
            write_report(one, drawn(12, off=off, seed=seed), image_of=grey)
        return folders

    def test_the_command_writes_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        a, b = self.reports(tmp_path)
        assert main(["compare", str(a), str(b), "--baseline", str(a), "--out", str(tmp_path / "out")]) == 0
        data = data_of(tmp_path / "out" / "index.html")
        assert data["runs"] == ["a", "b"]
        assert data["table"]["rows"][0][-1] == "better"
        assert all((tmp_path / "out" / file).is_file() for file in data["faces"]["files"])
        assert str(tmp_path) not in (tmp_path / "out" / "index.html").read_text()
        change = data["faces"]["facets"]["change"]["values"]
        assert change == sorted(change, reverse=True)
        assert "page of 12 faces" in capsys.readouterr().out

    def test_paired_numbers_are_those_of_the_table(self, tmp_path: Path) -> None:
        runs = {name: Kept(drawn(30, off=off), no_origin(30)) for name, off in (("a", 3.0), ("b", 2.0))}
        line = paired_rows(runs, {"all": np.ones(30, dtype=bool)})[0]
        first, other = (100 * one.result.errors.nme.mean() for one in runs.values())
        assert [float(line[i]) for i in (3, 4, 5)] == pytest.approx([first, other, other - first], abs=0.006)

    def test_faces_of_both_alone(self) -> None:
        names = [f"n{i}" for i in range(12)]
        a, b = (Kept(drawn(12, names=one), no_origin(12)) for one in (names, ["other", *names[1:]]))
        b.result.predictions.target[3] += 1.0
        shared = on_same_faces({"a": a, "b": b})
        assert shared["a"].result.names == shared["b"].result.names == tuple(n for n in names if n not in ("n0", "n3"))

    def test_other_points_or_faces_are_refused(self, tmp_path: Path) -> None:
        for name, result in (
            ("a", drawn(4)),
            ("other points", drawn(4, scheme="wflw98")),
            ("other faces", drawn(4, names=list("wxyz"))),
        ):
            write_predictions(tmp_path / name / FILE, Kept(result, no_origin(4)))
        for name in ("other points", "other faces"):
            with pytest.raises(ValueError, match="there is no page of both"):
                write_comparison_page(tmp_path / "out", {"a": tmp_path / "a", name: tmp_path / name})

    def test_an_old_report_is_left_out(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        a, b = self.reports(tmp_path)
        (b / FILE).unlink()
        assert main(["compare", str(a), str(b), "--out", str(tmp_path / "out")]) == 0
        assert "not on the page: b" in capsys.readouterr().err
        assert not (tmp_path / "out" / "index.html").exists()
        assert (tmp_path / "out" / "sweep.md").is_file()


def test_facts_of_any_form_are_shown() -> None:
    assert numbers.about({"checkpoint": 3, "run": [], "command": None, "data": {"faces": 4}}) == [["faces", "4"]]


def test_the_page_again_keeps_its_pictures(tmp_path: Path) -> None:
    page(tmp_path, drawn(4), image_of=grey)
    before = data_of(tmp_path / "index.html")
    assert main(["report", str(tmp_path)]) == 0
    again = data_of(tmp_path / "index.html")
    assert again["faces"]["files"] == before["faces"]["files"]
    assert read_predictions(tmp_path).result.names == drawn(4).names
