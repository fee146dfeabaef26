"""The report of a run folder as what W&B shows: nothing is computed here, all is read from the report's files."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from facelm.evaluation.page.pictures import in_one_file
from facelm.evaluation.page.write import FILE
from facelm.evaluation.scores import SCORES
from facelm.geometry.affine import Image

FACES_ON_THE_PAGE = 60


def report_items(folder: Path, *, pictures: bool) -> dict[str, Any]:
    """`report/table`, `report/ced`, `report/regions`, `report/page` and, with `pictures`, `report/worst` with overlays.

    The page is one file, with `FACES_ON_THE_PAGE` thumbnails in it at most: the first faces, the worst.
    """
    import wandb

    items: dict[str, Any] = {
        "report/table": wandb.Table(columns=["subset", "n", *SCORES], data=_rows(folder)),
        "report/ced": wandb.Image(str(folder / "ced.png")),
        "report/regions": wandb.Image(str(folder / "regions.png")),
    }
    if (folder / FILE).is_file():
        page = in_one_file(folder / FILE, FACES_ON_THE_PAGE if pictures else 0)
        items["report/page"] = wandb.Html(page, inject=False)
    if pictures and (folder / "worst.csv").is_file():
        with (folder / "worst.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        overlays = [wandb.Image(str(folder / row["file"])) for row in rows]
        nme = [float(row["nme"]) if row["nme"] else None for row in rows]
        faces = [
            [int(row["rank"]), row["name"], row["subset"], error, overlay]
            for row, error, overlay in zip(rows, nme, overlays, strict=True)
        ]
        items["report/worst"] = wandb.Table(columns=["rank", "face", "subset", "nme", "overlay"], data=faces)
    return items


def face_pictures(pictures: Sequence[Image], captions: Sequence[str]) -> dict[str, Any]:
    """`val/faces`: one picture of each, as JPEG."""
    import wandb

    pairs = zip(pictures, captions, strict=True)
    return {"val/faces": [wandb.Image(picture, caption=said, file_type="jpg") for picture, said in pairs]}


def data_artifact(facts: Mapping[str, Any]) -> Any:
    """The artifact that stands for the faces of a run: their fingerprints as references, and no file of theirs.

    Runs on the same faces have the same version of it.
    """
    import wandb

    artifact = wandb.Artifact("faces", type="dataset", metadata=dict(facts))
    for part, entry in facts.items():
        artifact.add_reference(f"facelm-faces://{entry['fingerprint']}", name=str(part))
    return artifact


def report_scores(folder: Path) -> dict[str, float]:
    """`test/SUBSET/SCORE` in percent, for the run's summary."""
    scores = {
        f"test/{name}/{score}": row[score] for name, row in _summary(folder)["subsets"].items() for score in SCORES
    }
    return {name: score for name, score in scores.items() if score is not None}


def _rows(folder: Path) -> list[list[Any]]:
    summary = _summary(folder)
    named = [*summary["subsets"].items(), *((f"mean shape, {k}", v) for k, v in summary["mean_shape"].items())]
    return [[name, row["n"], *(row[score] for score in SCORES)] for name, row in named]


def _summary(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return content
