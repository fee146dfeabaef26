"""Paired comparison of runs, from their per-face reports."""

import csv
import json
import re

import numpy as np
import pytest

from facelm.cli import main as facelm
from facelm.evaluation.compare import paired_difference, paired_table, read_face_errors


def report(folder, errors, subset="val"):
    (folder / "report").mkdir(parents=True)
    with (folder / "report" / "per_face.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "subset", "nme"])
        named = subset if isinstance(subset, dict) else dict.fromkeys(errors, subset)
        writer.writerows([name, named[name], error] for name, error in errors.items())
    mean = np.mean([error for error in errors.values() if error])
    (folder / "report" / "summary.json").write_text(json.dumps({"subsets": {"val": {"nme": mean}}}))
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


def test_a_face_counts_in_each_of_its_subsets(tmp_path, errors):
    """per_face.csv joins a face's subsets by `+`; a run that was measured on one of them has that one to compare."""
    subsets = {name: ("common+full", "challenge+full", "test")[i % 3] for i, name in enumerate(errors)}
    whole = report(tmp_path / "whole", errors, subsets)
    common = {name: 2 * error for name, error in errors.items() if subsets[name] == "common+full"}
    text = paired_table(whole, [("same", whole), ("part", report(tmp_path / "part", common, "common"))])
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines() if line.startswith("| ")][2:]
    assert rows == [
        ["same", "common", "67"],
        ["same", "full", "134"],
        ["same", "challenge", "67"],
        ["same", "test", "66"],
        ["part", "common", "67"],
    ]
    with pytest.raises(ValueError, match=r"part was measured on common, the baseline on val only"):
        paired_table(report(tmp_path / "val", errors), [("part", tmp_path / "part")])


def test_a_face_without_an_error_is_named(tmp_path, errors):
    with pytest.raises(ValueError, match=r"per_face\.csv: 'face 3' has no finite error"):
        read_face_errors(report(tmp_path, errors | {"face 3": ""}))


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
    reports = [f"{folder}/report" for folder in folders]  # what facelm.evaluate report_dir=FOLDER leaves
    capsys.readouterr()
    assert facelm(["compare", *reports, "--baseline", reports[0]]) == 0
    assert "+100.0 % |" in capsys.readouterr().out


def test_a_job_that_failed_and_a_folder_that_is_no_run_are_left_out(tmp_path, errors, capsys):
    for name in ("0", "1"):
        report(tmp_path / name, errors)
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "result.json").write_text('{"status": "failed", "overrides": ["lr=9"]}')
    (tmp_path / "3").mkdir()
    folders = [str(tmp_path / str(i)) for i in range(4)]
    assert facelm(["compare", *folders, "--baseline", folders[0]]) == 0
    said = capsys.readouterr()
    assert "| failed |" in said.out
    assert f"warning: left out: {folders[3]} is no run folder" in said.err
    assert f"warning: without a report, so without a difference: {folders[2]}" in said.err
    assert facelm(["compare", folders[3]]) == 1
    assert "nothing to compare" in capsys.readouterr().err
