"""The report's files and the printed table, read back as a user or a script would."""

from __future__ import annotations

import csv
import errno
import json
import os
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from facelm import files
from facelm.data.images import read_image
from facelm.evaluation.metrics import FacePredictions
from facelm.evaluation.report import print_table, write_report
from facelm.evaluation.scores import SCORES, EvaluationResult, Score, evaluate_faces, subset_masks
from facelm.loggers.wandb_report import report_scores

PUBLISHED = {"mmpose 1.x": {"common": 2.92, "full": 3.45}}


def evaluation(errors: list[float], labels: list[str]) -> EvaluationResult:
    """Faces whose NME is `errors`; the mean shape is half an inter-ocular distance off."""
    target = np.random.default_rng(0).uniform(0, 200, (len(errors), 68, 2))
    size = np.linalg.norm(target[:, 36] - target[:, 45], axis=-1)[:, None, None]
    predicted = target + np.array(errors)[:, None, None] * size * [0.6, 0.8]
    names = [f"helen/testset/{i},_1" for i in range(len(errors))]
    predictions = FacePredictions(np.arange(len(errors)), predicted, target)
    return evaluate_faces(predictions, names, subset_masks(labels), mean_shape_image=target + 0.5 * size * [0, 1])


@pytest.fixture(scope="module")
def result() -> EvaluationResult:
    return evaluation([0.02, 0.04, 0.09, 0.25], ["common", "common", "challenge", "challenge"])


def printed(result: EvaluationResult, *, width: int = 200, terminal: bool = True, **options) -> str:
    stream = StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, color_system=None)
    print_table(result, console=console, **options)
    return stream.getvalue()


class TestFolder:
    def test_holds_every_file_and_nothing_else(self, result: EvaluationResult, tmp_path: Path) -> None:
        folder = tmp_path / "new" / "report"
        grey = np.full((200, 200, 3), 90, dtype=np.uint8)
        assert write_report(folder, result, image_of=lambda _: grey) == folder
        numbers = ["per_face.csv", "predictions.npz", "summary.json", "table.md", "where.md", "worst.csv"]
        pictures = ["ced.png", "index.html", "index_files", "regions.png", "worst", "worst.png"]
        assert sorted(path.name for path in folder.iterdir()) == sorted(numbers + pictures)

    def test_worst_faces_with_a_picture_of_each(self, result: EvaluationResult, tmp_path: Path) -> None:
        shades = [np.full((400, 400, 3), 50 * index, dtype=np.uint8) for index in range(4)]
        write_report(tmp_path, result, image_of=lambda index: shades[index])
        with (tmp_path / "worst.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["name"] for row in rows] == [result.names[row] for row in (3, 2, 1, 0)]
        assert [float(row["nme"]) for row in rows] == pytest.approx([25, 9, 4, 2])
        assert rows[0]["subset"] == "challenge+full"
        corners = [read_image(tmp_path / row["file"])[-2, -2].tolist() for row in rows]
        assert corners == [[shade] * 3 for shade in (150, 100, 50, 0)]

    def test_summary_is_in_percent_under_the_documented_names(self, result: EvaluationResult, tmp_path: Path) -> None:
        facts = {"file": Path("runs/best.ckpt"), "epoch": np.int64(3), "loss": np.float32("nan"), "size": (256, 256)}
        write_report(tmp_path, result, facts=facts, published=PUBLISHED, notes=["test is absent"])
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert list(summary["subsets"]) == ["common", "challenge", "full"]
        full = summary["subsets"]["full"]
        assert list(full)[:8] == ["n", "nme", "nme_interpupil", "nme_box", "fr@8", "fr@10", "auc@8", "auc@10"]
        assert (full["n"], full["nme"], full["fr@8"], full["fr@10"]) == pytest.approx((4, 10.0, 50.0, 25.0))
        assert full["auc@10"] == pytest.approx(100 * (0.8 + 0.6 + 0.1) / 4)
        assert full["nme_ci95"][0] < 10.0 < full["nme_ci95"][1]
        assert full["regions"]["eyes"] == pytest.approx(10.0)
        assert summary["mean_shape"]["common"]["nme"] == pytest.approx(50.0)
        assert summary["checkpoint"] == {"file": "runs/best.ckpt", "epoch": 3, "loss": None, "size": [256, 256]}
        assert (summary["published"], summary["notes"]) == (PUBLISHED, ["test is absent"])

    def test_a_score_is_declared_in_one_place(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(SCORES, "median", Score("median", lambda errors: float(np.median(errors.nme))))
        found = evaluation([0.02, 0.04, 0.09], ["common"] * 3)
        write_report(tmp_path, found)
        assert json.loads((tmp_path / "summary.json").read_text())["subsets"]["common"]["median"] == pytest.approx(4)
        assert report_scores(tmp_path)["test/common/median"] == pytest.approx(4)
        header, _, row = (line.split(" | ") for line in (tmp_path / "table.md").read_text().splitlines()[:3])
        assert row[[title.strip("| ") for title in header].index("median")].strip("| ") == "4.00"
        assert "median" in printed(found)

    def test_numbers_that_are_not_finite_are_null(self, tmp_path: Path) -> None:
        write_report(tmp_path, evaluation([np.nan, np.inf], ["common", "common"]))
        text = (tmp_path / "summary.json").read_text()
        assert "NaN" not in text
        assert "Infinity" not in text
        row = json.loads(text)["subsets"]["common"]
        assert (row["nme"], row["nme_ci95"], row["fr@8"], row["auc@8"]) == (None, [None, None], 100.0, 0.0)
        first = (tmp_path / "per_face.csv").read_text().splitlines()[1]
        assert first == '"helen/testset/0,_1",common' + "," * 8
        assert "| common | 2 | - | - |" in (tmp_path / "table.md").read_text()

    def test_faces_without_a_number_are_counted_in_every_form(self, tmp_path: Path) -> None:
        found = evaluation([0.02, 0.04, np.nan, 0.25], ["common", "common", "challenge", "challenge"])
        write_report(tmp_path, found, image_of=lambda _: np.full((200, 200, 3), 90, dtype=np.uint8))
        summary = json.loads((tmp_path / "summary.json").read_text())
        counts = {name: row.get("unmeasured", 0) for name, row in summary["subsets"].items()}
        assert counts == {"common": 0, "challenge": 1, "full": 1}
        assert summary["subsets"]["full"]["nme"] is None  # neither dropped nor averaged away
        assert (summary["subsets"]["full"]["fr@8"], summary["subsets"]["common"]["nme"]) == pytest.approx((50, 3))
        said = [" ".join(summary["notes"]), (tmp_path / "table.md").read_text(), printed(found)]
        assert all("1 of 2 faces (challenge), 1 of 4 faces (full)" in text for text in said)

    def test_per_face_lines(self, result: EvaluationResult, tmp_path: Path) -> None:
        write_report(tmp_path, result)
        with (tmp_path / "per_face.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0])[:5] == ["name", "subset", "nme", "nme_interpupil", "nme_box"]
        assert list(rows[0])[5:] == ["nme_jaw", "nme_brows", "nme_nose", "nme_eyes", "nme_mouth"]
        assert [row["subset"] for row in rows] == ["common+full", "common+full", "challenge+full", "challenge+full"]
        assert [float(row["nme"]) for row in rows] == pytest.approx([2, 4, 9, 25])
        assert rows[3]["name"] == "helen/testset/3,_1"


class TestMarkdown:
    def test_rows_published_and_notes(self, result: EvaluationResult, tmp_path: Path) -> None:
        write_report(tmp_path, result, published=PUBLISHED, notes=["challenge is made up"])
        lines = (tmp_path / "table.md").read_text().splitlines()
        assert lines[0].startswith("| subset | n | NME | interval |")
        assert lines[0].endswith("| AUC@10 | mmpose 1.x |")
        assert lines[2].startswith("| common | 2 | 3.00 | 2.00-4.00 |")
        assert [line.rsplit("|", 2)[1].strip() for line in lines[2:5]] == ["2.92", "-", "3.45"]
        table = [line for line in lines if line.startswith("|")]
        assert table[-1].startswith("| mean shape, full | 4 | 50.00 |")
        assert len({line.count("|") for line in table}) == 1
        assert lines[-1] == "challenge is made up"

    def test_without_a_mean_shape(self, result: EvaluationResult, tmp_path: Path) -> None:
        bare = EvaluationResult(**{**vars(result), "mean_shape": {}})
        write_report(tmp_path, bare)
        assert "ean shape" not in (tmp_path / "table.md").read_text()
        assert json.loads((tmp_path / "summary.json").read_text())["mean_shape"] == {}


class TestConsole:
    def test_shows_rows_published_notes_and_title(self, result: EvaluationResult) -> None:
        text = printed(result, published=PUBLISHED, notes=["[test] is absent under data.root"], title="run [1]")
        assert "run [1]" in text
        assert "[test] is absent under data.root" in text
        full = next(line for line in text.splitlines() if line.startswith(" full"))
        assert full.split()[:3] == ["full", "4", "10.00"]
        assert full.split()[-1] == "3.45"

    def test_a_log_file_gets_every_column(self, result: EvaluationResult) -> None:
        text = printed(result, width=80, terminal=False, published=PUBLISHED)
        assert "inter-pupil" in text
        assert "…" not in text

    @pytest.mark.parametrize("width", [80, 100])
    def test_a_narrow_terminal_loses_columns_not_digits(self, result: EvaluationResult, width: int) -> None:
        text = printed(result, width=width, published=PUBLISHED)
        assert "…" not in text
        assert all(len(line) <= width for line in text.splitlines())
        assert f"Not shown in {width} columns: inter-pupil" in text
        assert "2.00-4.00" in text


class TestFailures:
    def test_folder_that_is_a_file(self, result: EvaluationResult, tmp_path: Path) -> None:
        taken = tmp_path / "report"
        taken.write_text("mine")
        with pytest.raises(OSError, match=r"cannot write the report to '.*report'.*report_dir=PATH"):
            write_report(taken, result)
        assert taken.read_text() == "mine"

    def test_full_disk_keeps_the_earlier_report(
        self, result: EvaluationResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "summary.json").write_text("earlier")

        def full_disk(_: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(files, "_sync", full_disk)
        with pytest.raises(OSError, match=r"summary.json': No space left on device.*on a disk with space left"):
            write_report(tmp_path, result)
        assert (tmp_path / "summary.json").read_text() == "earlier"
        assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]

    def test_no_permission(self, result: EvaluationResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(files, "_sync", refuse)
        with pytest.raises(PermissionError, match=r"Permission denied\. Is it a folder that you may write to"):
            write_report(tmp_path, result)

    def test_numbers_are_safe_when_a_photograph_is_gone(self, result: EvaluationResult, tmp_path: Path) -> None:
        def gone(_: int) -> np.ndarray:
            raise FileNotFoundError("no image helen/testset/0_1")

        with pytest.raises(FileNotFoundError, match="no image"):
            write_report(tmp_path, result, image_of=gone)
        assert (tmp_path / "summary.json").exists()
        assert (tmp_path / "ced.png").exists()
