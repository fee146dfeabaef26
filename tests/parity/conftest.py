"""Folders of reference numbers, and the table of how closely facelm agrees with them.

`golden` runs a test once with the small copy kept in `tests/golden` and once with the folder in `FACELM_GOLDEN` (by
default `../shared/golden` beside the checkout). A file or array that a folder lacks is skipped by name. `agree`
compares, records a row for the table and fails beyond the tolerance. A run in which nothing was compared fails.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "golden"
GIVEN = Path(os.environ.get("FACELM_GOLDEN") or ROOT.parent / "shared" / "golden")


@dataclass
class Agreement:
    """One row of the table; `largest` is relative to the tolerance's kind ('abs' or 'rel')."""

    what: str
    folder: str
    cases: int
    largest: float
    tolerance: str


@dataclass
class Table:
    rows: list[Agreement] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


TABLE = Table()


class Arrays(dict[str, np.ndarray]):
    """The arrays of one .npz; an array that is not there skips the test by name."""

    def __init__(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        super().__init__(arrays)
        self.name = name

    def __missing__(self, key: str) -> np.ndarray:
        TABLE.skipped.append(f"{self.name}: {key}")
        pytest.skip(f"{self.name} has no array {key!r}")


class Golden:
    """A folder of reference numbers."""

    def __init__(self, label: str, folder: Path) -> None:
        self.label = label
        self.folder = folder

    def path(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            TABLE.skipped.append(f"{self.label}/{name}")
            pytest.skip(f"{self.label} has no {name}")
        return path

    def npz(self, name: str) -> Arrays:
        with np.load(self.path(name), allow_pickle=False) as archive:
            return Arrays(f"{self.label}/{name}", {key: archive[key] for key in archive.files})

    def json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def photographs(self) -> Path:
        """The folder of the two test faces' photographs: beside this folder, or in `shared` beside the checkout."""
        for shared in (self.folder.parent, ROOT.parent / "shared"):
            if self.label != "kept" and (shared / "300w_originals" / "test_300w.json").exists():
                return shared / "300w_originals"
        TABLE.skipped.append(f"{self.label}: 300w_originals/test_300w.json")
        pytest.skip(f"{self.label} has no 300w_originals/test_300w.json beside it")

    def test_faces(self) -> dict[str, np.ndarray]:
        """file name -> landmarks `[68, 2]` as stored, of the two test faces."""
        content = json.loads((self.photographs() / "test_300w.json").read_text(encoding="utf-8"))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        points = {names[a["image_id"]]: np.array(a["keypoints"], dtype=np.float64) for a in content["annotations"]}
        return {name: values.reshape(-1, 3)[:, :2] for name, values in points.items()}


def _folders() -> list[Any]:
    folders = [pytest.param(Golden("kept", KEPT), id="kept")]
    if GIVEN.is_dir():
        folders.append(pytest.param(Golden("golden", GIVEN), id="golden"))
    return folders


@pytest.fixture(params=_folders())
def golden(request: pytest.FixtureRequest) -> Golden:
    return request.param


@pytest.fixture
def agree(request: pytest.FixtureRequest):
    """agree(what, actual, expected, atol=0, rtol=0): records the largest difference, fails beyond the tolerance.

    Non-finite values must stand in the same places. With `rtol`, the difference is relative to the largest
    expected magnitude of the array (`scale="array"`) or to each value (`scale="value"`).
    """

    def compare(
        what: str, actual: Any, expected: Any, *, atol: float = 0.0, rtol: float = 0.0, scale: str = "array"
    ) -> None:
        actual, expected = np.asarray(actual), np.asarray(expected)
        if actual.shape != expected.shape:
            pytest.fail(f"{what}: shape {actual.shape}, reference {expected.shape}")
        actual, expected = actual.astype(np.float64), expected.astype(np.float64)
        finite = np.isfinite(expected)
        same_special = np.array_equal(actual[~finite], expected[~finite], equal_nan=True)
        difference = np.abs(actual[finite] - expected[finite])
        if rtol:
            reference = np.abs(expected[finite])
            size = reference if scale == "value" else reference.max(initial=0.0)
            difference = difference / np.maximum(size, np.finfo(np.float64).tiny)
        largest = float(difference.max(initial=0.0)) if same_special else float("inf")
        tolerance = rtol or atol
        folder = request.getfixturevalue("golden").label if "golden" in request.fixturenames else "faces"
        kind = "rel " if rtol else ""
        TABLE.rows.append(
            Agreement(what, folder, int(expected.size), largest, f"{kind}{tolerance:g}" if tolerance else "exact")
        )
        if not largest <= tolerance:
            pytest.fail(f"{what}: largest difference {largest:.3g}, tolerance {kind}{tolerance:g}")

    return compare


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A parity run (`make parity` sets FACELM_PARITY) that compared nothing is a failure, not a success."""
    if os.environ.get("FACELM_PARITY"):
        given = [row for row in TABLE.rows if row.folder == "golden"]
        if not given and exitstatus in (0, 5):
            session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not TABLE.rows and not os.environ.get("FACELM_PARITY"):
        return
    write = terminalreporter.write_line
    write("")
    write(f"agreement with the references in {GIVEN.name}/ (golden) and tests/golden (kept)")
    merged: dict[tuple[str, str, str], tuple[int, float]] = {}
    for row in TABLE.rows:
        cases, largest = merged.get((row.what, row.folder, row.tolerance), (0, 0.0))
        merged[row.what, row.folder, row.tolerance] = (cases + row.cases, max(largest, row.largest))
    write(f"{'what':<62} {'folder':<7} {'values':>9} {'largest':>10}  tolerance")
    for (what, folder, tolerance), (cases, largest) in merged.items():
        write(f"{what:<62} {folder:<7} {cases:>9} {largest:>10.2e}  {tolerance}")
    for name in dict.fromkeys(TABLE.skipped):
        write(f"skipped, not in the folder: {name}")
    if os.environ.get("FACELM_PARITY") and not any(row.folder == "golden" for row in TABLE.rows):
        write(f"nothing was compared: {GIVEN} is absent or holds none of the reference files")
