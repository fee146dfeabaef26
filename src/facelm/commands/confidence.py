"""What `facelm calibrate --confidence` does: errors that peaks let one expect, out of a report, into a card."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from facelm import checked
from facelm.evaluation.kept import FILE, Kept, confidences, read_predictions
from facelm.evaluation.metrics import point_distances
from facelm.evaluation.page.numbers import NORMALISER
from facelm.evaluation.plots import expected_error_plot
from facelm.evaluation.stored import in_report
from facelm.files import typed, write_whole
from facelm.geometry.affine import FloatArray
from facelm.geometry.landmarks import normaliser
from facelm.models.cards import read_card
from facelm.models.expected import ExpectedError, cross_fitted, fit, in_tenths, over_expected, rank_over_faces
from facelm.models.reading import card_path
from facelm.models.spec import ModelSpec
from facelm.predict.prediction import DOUBTFUL_ABOVE


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
    expected = cross_fitted(peaks, errors, groups)
    print(f"{fitted.faces} faces of {len(set(groups))} photographs; errors in % of the {unit}")
    print(said_of(fitted, expected, errors))
    if figure:
        write_whole(typed(figure), expected_error_plot(expected, errors, unit))
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


def said_of(fitted: ExpectedError, expected: FloatArray, errors: FloatArray) -> str:
    """The fit in words, and how `errors` `[N, K]` agree with what a fit to other photographs `expected` of them."""
    parts = [np.quantile(parts, (0.1, 0.5, 0.9)) for parts in over_expected(expected, errors)]
    points, faces = (", ".join(f"{part:.2f}" for part in quantiles) for quantiles in parts)
    rows = "\n".join(f"  {mean:8.2f}  {measured:8.2f}" for mean, measured in in_tenths(expected, errors))
    return (
        f"expected error of a point = scale * peak ** {-fitted.power:.2f} * mean peak of the face ** "
        f"{-fitted.power_of_face:.2f}, peaks from {fitted.lowest:g} to {fitted.highest:g}\n\n"
        "of photographs that the fit did not know:\n"
        f"rank correlation with the measured error: {fitted.rank_points:.2f} over points, {fitted.rank_faces:.2f} over "
        f"faces, {rank_over_faces(expected, errors):.2f} over the faces for one point\n"
        f"10 %, 50 % and 90 % of the points are off by less than {points} of what was expected, of the faces {faces}\n"
        f"{doubtful_points(expected, errors)}\n\n"
        f"  expected  measured   (a tenth of the points each)\n{rows}"
    )


def doubtful_points(expected: FloatArray, errors: FloatArray) -> str:
    """How many points overlays show as doubtful, and how far off they and the others are."""
    both = np.isfinite(expected) & np.isfinite(errors)
    doubtful = expected[both] > DOUBTFUL_ABOVE
    means = [f"{errors[both][one].mean():.1f} %" if one.any() else "none" for one in (doubtful, ~doubtful)]
    share = 100 * doubtful.mean()
    return f"expected above {DOUBTFUL_ABOVE:g} %: {share:.1f} of 100 points, mean error {means[0]}; others {means[1]}"


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
    path = card_path(weights)  # all else that the card says stays as it is written
    content = checked.read_json(path)
    content["spec"]["expected_error"] = fitted.to_dict()
    write_whole(path, json.dumps(content, indent=2) + "\n")
