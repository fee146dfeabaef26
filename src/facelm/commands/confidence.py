"""What `facelm calibrate --confidence` does: errors that peaks let one expect, out of a report, into a card."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from facelm.evaluation.kept import FILE, Kept, confidences, read_predictions
from facelm.evaluation.metrics import point_distances
from facelm.evaluation.page.numbers import NORMALISER
from facelm.evaluation.plots import expected_error_plot
from facelm.evaluation.stored import in_report
from facelm.files import typed, write_whole
from facelm.geometry.affine import FloatArray
from facelm.geometry.landmarks import normaliser
from facelm.models.cards import read_card, write_card
from facelm.models.expected import ExpectedError, cross_fitted, fit, in_tenths
from facelm.models.spec import ModelSpec


def calibrate_confidence(report: Path, weights: Path | None, figure: Path | None) -> int:
    """Prints the fit, and writes it where it was asked to.

    Raises:
        FileNotFoundError: no report that keeps its predictions, or weights without a card.
        ValueError: too few faces, a report of weights that read otherwise, or a file that is damaged.
    """
    found = in_report(typed(report), FILE)
    if found is None:
        raise FileNotFoundError(f"--confidence {report}: no {FILE} there; facelm.evaluate writes a report with it")
    kept = read_predictions(found.parent)
    spec = spec_of(kept, report)
    peaks, errors, groups = np.asarray(confidences(kept.result.predictions)), errors_of(kept), photographs_of(kept)
    fitted = fit(peaks, errors, groups, spec.flip)
    unit = NORMALISER[kept.result.scheme.normaliser]
    print(said_of(fitted, peaks, errors, groups, unit))
    if figure:
        write_whole(typed(figure), expected_error_plot(cross_fitted(peaks, errors, groups), errors, unit))
    if weights:
        write_into_card(typed(weights), fitted, spec)
        print(f"written into the card of {weights}")
    return 0


def spec_of(kept: Kept, report: Path) -> ModelSpec:
    """What the report says of the weights that it measured.

    Raises:
        ValueError: nothing.
    """
    try:
        return ModelSpec.from_dict(kept.facts["checkpoint"]["spec"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"--confidence {report}: it does not say which weights were measured") from error


def errors_of(kept: Kept) -> FloatArray:
    """The error of each point of each face `[N, K]`, in percent of the scheme's normaliser; NaN where not labelled."""
    faces = kept.result.predictions
    length = normaliser(faces.target, kept.result.scheme, faces.side)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = 100 * point_distances(faces.predicted, faces.target) / length[:, None]
    return np.where(np.isfinite(errors), errors, np.nan)


def photographs_of(kept: Kept) -> list[str]:
    """The photograph of each face: its file without the number that tells faces of one photograph apart, as 300W's."""
    files = [image or name for image, name in zip(kept.origin.images, kept.result.names, strict=True)]
    return [re.sub(r"_\d+$", "", str(Path(file).with_suffix(""))) for file in files]


def said_of(fitted: ExpectedError, peaks: FloatArray, errors: FloatArray, groups: list[str], unit: str) -> str:
    """The fit in words, and ten equal parts of the points by what was expected of them."""
    tenths = in_tenths(cross_fitted(peaks, errors, groups), errors)
    rows = "\n".join(f"  {mean:8.2f}  {measured:8.2f}" for mean, measured in tenths)
    return (
        f"{fitted.faces} faces of {len(set(groups))} photographs; errors in % of the {unit}\n"
        f"expected error of a point = scale * peak ** -{fitted.power:g}, peaks from {fitted.lowest:g} to "
        f"{fitted.highest:g}\n"
        f"rank correlation with the measured error: {fitted.rank_points:.2f} over points, {fitted.rank_faces:.2f} over "
        "faces\n\n  expected  measured   (a tenth of the points each, of photographs that the fit did not know)\n"
        f"{rows}"
    )


def write_into_card(weights: Path, fitted: ExpectedError, measured: ModelSpec) -> None:
    """Writes the card of `weights` anew, with the fit in its spec.

    Raises:
        FileNotFoundError: the weights have no card.
        ValueError: they are read in another way than those that were measured.
    """
    card = read_card(weights) if weights.is_file() else None
    if card is None:
        raise FileNotFoundError(
            f"--weights {weights}: no weights with a card. facelm convert makes both of a checkpoint"
        )
    without = [replace(spec, expected_error=None, version="") for spec in (card.spec, measured)]
    if not without[0].reads_like(without[1]):
        raise ValueError(
            f"--weights {weights}: they are read in another way (flip test, codec, crop or points) than those that "
            "were measured, so their peaks mean something else. Evaluate these weights, or their twin"
        )
    facts = {name: getattr(card, name) for name in ("nme", "data", "licence", "recipe", "commit")}
    write_card(weights, replace(card.spec, expected_error=fitted), **facts)
