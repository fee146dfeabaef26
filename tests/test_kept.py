"""predictions.npz: what a report keeps, read back, refused where it is damaged, and the report made again from it."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from facelm.cli import main
from facelm.data.faces import Face
from facelm.evaluation.kept import FILE, Kept, no_origin, origin_of, read_predictions, write_predictions
from facelm.evaluation.metrics import FacePredictions
from facelm.evaluation.report import write_report
from facelm.evaluation.scores import EvaluationResult, evaluate_faces, subset_masks
from facelm.geometry.boxes import Box
from facelm.geometry.landmarks import get_scheme
from test_page import data_of

NAMES = ["helen/a", "b 'quoted' \u2028", "</script>", "caf\udce9"]


def some_result(scheme: str = "ibug68") -> EvaluationResult:
    """Four faces; one point is not labelled."""
    one, rng = get_scheme(scheme), np.random.default_rng(1)
    target = rng.uniform(50, 150, (4, one.num_landmarks, 2))
    predicted = target + rng.normal(0, 2, target.shape)
    target[1, 3] = np.nan
    peaks = rng.uniform(0, 1, target.shape[:2])
    faces = FacePredictions(np.arange(4), predicted, target, np.full(4, 100.0), peaks)
    return evaluate_faces(faces, NAMES, subset_masks(["common", "common", "challenge", "challenge"]), scheme=one)


@pytest.mark.parametrize("scheme", ["ibug68", "wflw98", "cofw29"])
def test_what_is_kept_is_found_again(scheme: str, tmp_path: Path) -> None:
    result = some_result(scheme)
    write_predictions(tmp_path / FILE, Kept(result, no_origin(4), {"a": 1}, {"paper": {"full": 3.0}}, ("a note",)))
    found = read_predictions(tmp_path)
    assert (found.result.names, found.result.scheme) == (result.names, result.scheme)
    assert (found.facts, found.published, list(found.notes)) == ({"a": 1}, {"paper": {"full": 3.0}}, ["a note"])
    assert np.array_equal(found.result.predictions.predicted, result.predictions.predicted)
    assert np.array_equal(found.result.predictions.target, result.predictions.target, equal_nan=True)
    assert np.array_equal(found.result.masks["full"], [True] * 4)
    assert found.result.predictions.confidence == pytest.approx(result.predictions.confidence, abs=1e-6)


def test_hidden_points_are_kept_and_counted_on_the_page(tmp_path: Path) -> None:
    points, hidden = np.zeros((68, 2)), np.arange(68) < 3
    faces = [Face(name, Path(f"/d/{name}.jpg"), points, Box((1, 1), 2), "d", occluded=hidden) for name in "ab"]
    faces += [Face(name, Path(f"/d/{name}.jpg"), points, Box((1, 1), 2), "d") for name in "cd"]
    write_report(tmp_path, some_result(), origin=origin_of(faces, Path("/d")))
    found = read_predictions(tmp_path).origin.occluded
    assert found is not None
    assert found.sum(axis=1).tolist() == [3, 3, 0, 0]
    content = data_of(tmp_path / "index.html")["faces"]
    counts = dict(zip(content["names"], content["facets"]["hidden"]["values"], strict=True))
    assert (counts[NAMES[0]], counts[NAMES[2]]) == (3, 0)
    assert content["hidden"][content["names"].index(NAMES[1])] == [0, 1, 2]


def test_it_is_plain_arrays(tmp_path: Path) -> None:
    write_report(tmp_path, some_result())
    with np.load(tmp_path / FILE, allow_pickle=False) as arrays:
        assert arrays["landmarks"].shape == (4, 68, 2)
        assert not arrays["labelled"][1, 3]
        assert arrays["names"].tolist() == NAMES


def test_the_training_keeps_confidences_and_boxes(trained_run: Path) -> None:
    kept = read_predictions(trained_run / "report")
    assert len(kept.result.names) == 14
    assert np.isfinite(kept.result.predictions.confidence).all()
    assert np.isfinite(kept.origin.boxes).all()
    assert kept.origin.boxes[:, 2] == pytest.approx(kept.result.predictions.side)
    assert all(not Path(image).is_absolute() for image in kept.origin.images)
    with zipfile.ZipFile(trained_run / "report" / FILE) as archive:
        assert not any(str(trained_run).encode("utf-32-le") in archive.read(name) for name in archive.namelist())


class TestRefused:
    def spoilt(self, folder: Path, **changes: object) -> Path:
        """A file with some arrays replaced; None leaves one out."""
        write_report(folder, some_result())
        with np.load(folder / FILE) as stored:
            arrays = {name: stored[name] for name in stored.files} | changes
        np.savez(folder / FILE, **{name: array for name, array in arrays.items() if array is not None})
        return folder

    @pytest.mark.parametrize(
        "changes",
        [
            {"landmarks": None},
            {"landmarks": np.zeros((4, 67, 2))},
            {"names": np.array([{}] * 4, dtype=object)},
            {"boxes": np.array(["x"] * 4)},
            {"scheme": np.array("{")},
            {"scheme": np.array(json.dumps({"name": "x", "points": 68, "file": "/etc/passwd"}))},
            {"facts": np.array(json.dumps({"published": {"paper": {"full": "three"}}}))},
            {"subset_masks": np.zeros((3, 4), dtype=bool)},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_arrays_that_do_not_fit(self, changes: dict[str, object], tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no predictions that can be used"):
            read_predictions(self.spoilt(tmp_path, **changes))

    @pytest.mark.parametrize("keep", [0, 10, 0.5, 0.98])
    def test_a_file_that_ends_early(self, keep: float, tmp_path: Path) -> None:
        write_report(tmp_path, some_result())
        content = (tmp_path / FILE).read_bytes()
        (tmp_path / FILE).write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
        with pytest.raises(ValueError, match="no predictions that can be used"):
            read_predictions(tmp_path)

    def test_a_single_array_or_a_pickle(self, tmp_path: Path) -> None:
        for content in (np.zeros(3), np.array([{}], dtype=object)):
            buffer = io.BytesIO()
            np.save(buffer, content, allow_pickle=True)
            (tmp_path / FILE).write_bytes(buffer.getvalue())
            with pytest.raises(ValueError, match="no predictions that can be used"):
                read_predictions(tmp_path)

    def test_a_report_of_an_earlier_version(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_report(tmp_path, some_result())
        (tmp_path / FILE).unlink()
        assert main(["report", str(tmp_path)]) == 1
        assert "kept none; evaluate again" in capsys.readouterr().err


class TestCommand:
    def test_the_same_report_again(self, tmp_path: Path) -> None:
        write_report(tmp_path, some_result(), facts={"x": 1}, notes=["a note"])
        files = {name: (tmp_path / name).read_bytes() for name in ("summary.json", "per_face.csv", "table.md")}
        for name in files:
            (tmp_path / name).unlink()
        assert main(["report", str(tmp_path)]) == 0
        assert {name: (tmp_path / name).read_bytes() for name in files} == files

    def test_pictures_where_the_photographs_are(self, trained_run: Path, tmp_path: Path) -> None:
        kept = read_predictions(trained_run / "report")
        write_predictions(tmp_path / FILE, kept)
        assert main(["report", str(tmp_path)]) == 0
        assert not (tmp_path / "worst.png").exists()
        assert main(["report", str(tmp_path), "--photographs", str(tmp_path)]) == 1
        root = read_root(trained_run)
        assert main(["report", str(tmp_path), "--photographs", str(root)]) == 0
        assert (tmp_path / "worst.png").read_bytes() == (trained_run / "report" / "worst.png").read_bytes()


def read_root(run: Path) -> Path:
    """The data of a run, from its config."""
    lines = (run / "config.yaml").read_text().splitlines()
    return Path(next(line.split(": ")[1] for line in lines if line.startswith("  root: ")))


def test_photographs_outside_the_root_leave_their_name_alone(tmp_path: Path) -> None:
    face = Face("a", tmp_path / "x" / "a.jpg", np.zeros((68, 2)), Box((1.0, 2.0), 3.0), "a")
    assert origin_of([face], tmp_path).images == ("x/a.jpg",)
    assert origin_of([face], tmp_path / "y").images == ("a.jpg",)
