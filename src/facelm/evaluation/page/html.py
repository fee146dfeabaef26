"""The HTML of a page: the files of this folder and the numbers in one, so that nothing is fetched."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

SCRIPTS = ("bokeh.min.js", "bokeh-api.min.js")

INSTALL = "pip install 'facelm[report]'"


def page_html(title: str, content: Mapping[str, Any]) -> str:
    """The page that shows `content`: plain values, see `numbers.report_content`.

    Whatever it holds is text there: nothing in it becomes HTML or a script.
    """
    scripts = charts()
    numbers = {**content, "charts": bool(scripts), "install": INSTALL}
    # ASCII only, so that no line separator or half a surrogate is left, and no tag can begin or end in it
    data = json.dumps(numbers, allow_nan=False, separators=(",", ":"))
    data = data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    parts = {
        "TITLE": html.escape(title.encode("utf-8", "replace").decode()),
        "STYLE": _file("page.css"),
        "DATA": data,
        "CHARTS": scripts,
        "SCRIPT": _file("charts.js") + _file("faces.js") + _file("page.js"),
    }
    before, *rest = _file("page.html").split("{{")
    return before + "".join(parts[name] + text for name, text in (one.split("}}", 1) for one in rest))


@cache
def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


@cache
def charts() -> str:
    """Bokeh's script, or nothing where it is not installed: the page then says what to install."""
    found = find_spec("bokeh")
    places = list(found.submodule_search_locations or []) if found else []
    for place in places:
        files = [Path(place) / "server" / "static" / "js" / name for name in SCRIPTS]
        if all(file.is_file() for file in files):
            return "\n".join(file.read_text(encoding="utf-8").replace("</script", "<\\/script") for file in files)
    return ""
