"""`index.html` of a report, written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facelm.addresses import CUT, shareable
from facelm.evaluation.kept import Kept
from facelm.evaluation.page.heatmaps import HeatmapsOf, write_heatmaps
from facelm.evaluation.page.html import page_html
from facelm.evaluation.page.numbers import learning_curves, report_content, report_rows
from facelm.evaluation.page.pictures import Writer, remove_others, write_thumbnails
from facelm.evaluation.plots import ImageOf

FILE = "index.html"


def write_report_page(
    folder: Path,
    kept: Kept,
    table: Mapping[str, Any],
    image_of: ImageOf | None,
    write: Writer,
    heatmaps_of: HeatmapsOf | None = None,
) -> None:
    """Writes index.html with that `table` (`header`, `rows`, `captions`, `own` rows) and its pictures, by `write`.

    The learning curves are those of the run that `folder` is the `report` of. Pictures that an earlier page left and
    this one does not show are removed.

    Raises: what `write`, `image_of` and `heatmaps_of` raise.
    """
    shown = report_rows(kept)
    files, sharp = write_thumbnails(folder, kept.result, shown, image_of, write)
    heatmaps = write_heatmaps(folder, kept.result, shown, heatmaps_of, write)
    remove_others(folder, {*files, *heatmaps["files"].values()})
    curves = learning_curves(folder.resolve().parent) if folder.resolve().name == "report" else {}
    content = report_content(kept, table, shown, files, sharp, curves)
    content["faces"]["heatmaps"] = heatmaps
    write(folder / FILE, page_html(title(kept.facts), content).encode())


def title(facts: Mapping[str, Any]) -> str:
    """What a report calls itself: the name of its checkpoint, else "Report"."""
    checkpoint = facts.get("checkpoint")
    path = checkpoint.get("path") if isinstance(checkpoint, Mapping) else None
    return f"Report of {shareable(path).removeprefix(CUT)}" if isinstance(path, str) else "Report"
