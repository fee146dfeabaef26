"""What is known of a model: what it was trained for, in words, and the NME that is written down for it."""

from __future__ import annotations

from collections.abc import Mapping

from facelm.evaluation.stored import read_summary
from facelm.models.loading import LoadedModel
from facelm.models.spec import ModelSpec


def describe(spec: ModelSpec) -> str:
    """What weights were trained for, in a line."""
    options = ", ".join(f"{name} {value}" for name, value in spec.codec.items() if name != "name")
    stored = "300W's 1-based coordinates as stored" if spec.pixel_origin == 0 else "0-based coordinates"
    shift = f", landmarks moved by {spec.annotation_shift:g} of the box to the right" if spec.annotation_shift else ""
    return (
        f"codec {spec.codec['name']} ({options}), pixel origin {spec.pixel_origin} ({stored}), "
        f"flip test {spec.flip}{shift}, "
        f"crops of {spec.crop_size} px and {spec.crop_scale:g} times the box, landmarks {spec.scheme.name}"
    )


def known_nme(model: LoadedModel) -> Mapping[str, float]:
    """Inter-ocular NME in percent by subset, of the model's card or publication, else of its run's report.

    A report counts only if it was made from this very file, read as it is meant. Empty where nothing is known.
    """
    if model.published:
        return model.published
    try:
        content = read_summary(model.path.parent.parent) or {}
        measured = content["checkpoint"]["checkpoint"]
        if (measured["sha256"], ModelSpec.from_dict(measured["spec"])) != (model.sha256, model.spec):
            return {}
        return {name: round(row["nme"], 3) for name, row in content["subsets"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def list_nme(nme: Mapping[str, float]) -> str:
    """`common 2.92, challenge 5.64`, or that it is not known."""
    return ", ".join(f"{subset} {value:g}" for subset, value in nme.items()) or "not known"
