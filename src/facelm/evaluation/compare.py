"""Runs against a baseline, face by face: the same faces are easy or hard for all of them, so small differences show.

The mean over 200 faces has a standard error near 0.1 NME points; the mean of paired differences a third of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facelm.evaluation.metrics import Interval, paired_bootstrap
from facelm.evaluation.stored import in_report, read_faces
from facelm.evaluation.tables import table_lines
from facelm.geometry.affine import FloatArray

HEADER = ("run", "faces", "n", "baseline", "NME", "difference", "95 % interval", "relative")


def read_face_errors(run: Path) -> dict[str, dict[str, float]]:
    """Inter-ocular NME in percent by subset and face name, from a run folder's report (or a report folder itself).

    Raises:
        FileNotFoundError: there is no report.
        ValueError: a face has no error: it was predicted to lie nowhere; or the report is damaged.
    """
    path = in_report(run, "per_face.csv")
    if path is None:
        raise FileNotFoundError(f"{run} holds no report/per_face.csv: evaluate it (python -m facelm.evaluate)")
    errors: dict[str, dict[str, float]] = {}
    for face in read_faces(path):
        if not face.subsets:  # what its error would be divided by is not labelled
            continue
        if face.nme is None:
            raise ValueError(f"{path}: '{face.name}' has no finite error, so no difference can be averaged")
        for subset in face.subsets:
            errors.setdefault(subset, {})[face.name] = face.nme
    return errors


def paired_difference(baseline: dict[str, float], other: dict[str, float]) -> tuple[FloatArray, Interval]:
    """The errors `[N]` of the baseline, and `other - baseline` on the same faces with its 95 % bootstrap interval.

    Raises:
        ValueError: the two were not measured on the same faces.
    """
    if baseline.keys() != other.keys():
        only = sorted(baseline.keys() ^ other.keys())
        raise ValueError(
            f"the runs were not measured on the same faces: {len(baseline)} against {len(other)}, "
            f"'{only[0]}' in one of them only"
        )
    names = sorted(baseline)
    first = np.array([baseline[name] for name in names])
    return first, paired_bootstrap(first, np.array([other[name] for name in names]))


def paired_table(baseline: Path, runs: Sequence[tuple[str, Path]]) -> str:
    """Markdown: each of `runs` (name, folder) against the baseline, for every subset that both were measured on.

    Raises:
        FileNotFoundError: a run without a report.
        ValueError: a run measured on other faces, or on no subset of the baseline's.
    """
    reference, cells = read_face_errors(baseline), []
    for name, run in runs:
        found = read_face_errors(run)
        if not reference.keys() & found.keys():
            raise ValueError(f"{name} was measured on {', '.join(found)}, the baseline on {', '.join(reference)} only")
        for subset in [subset for subset in reference if subset in found]:
            errors, (mean, low, high) = paired_difference(reference[subset], found[subset])
            was = float(errors.mean())
            numbers = [f"{was:.2f}", f"{was + mean:.2f}", f"{mean:+.3f}", f"{low:+.3f} to {high:+.3f}"]
            cells.append([name, subset, str(len(errors)), *numbers, f"{100 * mean / was:+.1f} %"])
    title = (
        f"Difference to {baseline}, paired by face. NME in percent, inter-ocular; below 0 the run is the better one."
    )
    return "\n".join([title, "", *table_lines(HEADER, cells)]) + "\n"
