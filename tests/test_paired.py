"""Paired comparison of runs, from their per-face reports."""

import csv
import re

import numpy as np
import pytest

from facelm.cli import main as facelm
from facelm.paired import paired_difference, paired_table, read_face_errors


def report(folder, errors, subset="val"):
    (folder / "report").mkdir(parents=True)
    with (folder / "report" / "per_face.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "subset", "nme"])
        writer.writerows([name, subset, error] for name, error in errors.items())
    (folder / "report" / "summary.json").write_text(
        f'{{"subsets": {{"{subset}": {{"nme": {np.mean(list(errors.values()))}}}}}}}'
    )
    return folder


@pytest.fixture
def errors():
    rng = np.random.default_rng(0)
    return {f"face {i}": error for i, error in enumerate(rng.lognormal(1.2, 0.5, 200))}


def test_a_small_constant_gain_is_certain_though_the_faces_differ_a_lot(tmp_path, errors):
    better = {name: error - 0.05 + 0.01 * (-1) ** i for i, (name, error) in enumerate(reversed(errors.items()))}
    first, (mean, low, high) = paired_difference(errors, better)
    assert first.std() > 1
    assert mean == pytest.approx(-0.05)
    assert -0.06 < low < mean < high < -0.04
    text = paired_table(report(tmp_path / "a", errors), [("b", report(tmp_path / "b", better))])
    assert re.search(r"\| b \| val \| 200 \| [\d.]+ \| [\d.]+ \| -0\.050 \| -0\.051 to -0\.049 \| -1\.\d % \|", text)


def test_only_the_same_faces(errors):
    with pytest.raises(ValueError, match="not measured on the same faces: 200 against 199, 'face 0' in one of them"):
        paired_difference(errors, {name: error for name, error in errors.items() if name != "face 0"})


def test_no_report(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no report/per_face\.csv"):
        read_face_errors(tmp_path)


def test_command(tmp_path, errors, capsys):
    first = report(tmp_path / "first", errors)
    report(tmp_path / "second", {name: 2 * error for name, error in errors.items()})
    folders = [str(tmp_path / name) for name in ("first", "second")]
    assert facelm(["compare", *folders, "--baseline", str(first)]) == 0
    said = capsys.readouterr().out
    assert "+100.0 % |" in said
    assert said.count("second") == 2
    assert facelm(["compare", *folders, "--baseline", str(tmp_path)]) == 1
