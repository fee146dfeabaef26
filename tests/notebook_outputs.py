"""Runs a notebook's cells in this process, and keeps what they show: text and pictures, as Jupyter does.

    python tests/notebook_outputs.py notebooks/4_predict.ipynb       writes the outputs into the file

Pictures are JPEGs of few bytes; a cell's text is what it printed.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

DPI, QUALITY = 60, 70
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def run(path: Path, variables: dict[str, Any], **parameters: Any) -> list[list[dict[str, Any]]]:
    """The outputs of each code cell; `variables` get those of the notebook, `parameters` replace its first cell's."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    show = plt.show
    content = json.loads(path.read_text(encoding="utf-8"))
    outputs: list[list[dict[str, Any]]] = []
    variables["__name__"] = "__main__"
    for cell in (cell for cell in content["cells"] if cell["cell_type"] == "code"):
        shown: list[dict[str, Any]] = []
        plt.show = lambda shown=shown: shown.extend(_figures(plt))
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            exec(compile("".join(cell["source"]), f"{path.name}, a cell", "exec"), variables)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert set(parameters) <= set(variables), "a parameter that the notebook does not have"
            variables |= parameters
        shown += _figures(plt)
        said = [{"name": "stdout", "output_type": "stream", "text": text.getvalue().splitlines(keepends=True)}]
        outputs.append((said if text.getvalue() else []) + shown)
    plt.show = show
    return outputs


def _figures(plt: Any) -> list[dict[str, Any]]:
    found = []
    for number in plt.get_fignums():
        buffer = io.BytesIO()
        plt.figure(number).savefig(buffer, format="jpg", dpi=DPI, pil_kwargs={"quality": QUALITY})
        picture = base64.b64encode(buffer.getvalue()).decode()
        found.append({"data": {"image/jpeg": picture}, "metadata": {}, "output_type": "display_data"})
    plt.close("all")
    return found


def same(kept: list[dict[str, Any]], now: list[dict[str, Any]], *, trained: bool = False) -> str:
    """What a cell says otherwise than it did: words, pictures, or a number that moved; nothing where that is the same.

    Numbers may move by 2 %, or by 0.02; pictures by as much as another release of matplotlib moves letters. What was
    `trained` gives other numbers on another machine: words count then, and that there are as many pictures as large.
    """
    if [one["output_type"] for one in kept] != [one["output_type"] for one in now]:
        return f"{len(kept)} outputs are kept, {len(now)} come out"
    for was, is_now in zip(kept, now, strict=True):
        if "text" in was:
            texts = ["".join(one["text"]) for one in (was, is_now)]
            words = [re.sub(r"\s+", " ", re.sub("─+", "─", NUMBER.sub("#", text))) for text in texts]
            numbers = [np.array([float(one) for one in NUMBER.findall(text)]) for text in texts]
            if words[0] != words[1] or not (trained or np.allclose(*numbers, rtol=0.02, atol=0.02)):
                return f"kept: {texts[0]}\nnow: {texts[1]}"
        else:
            pictures = [picture_of(one) for one in (was, is_now)]
            if pictures[0].shape != pictures[1].shape:
                return f"a picture of {pictures[0].shape} was kept, one of {pictures[1].shape} comes out"
            if not trained and (moved := np.abs(pictures[0] - pictures[1]).mean()) > 4:
                return f"a picture differs by {moved:.1f} of 255 on average"
    return ""


def picture_of(output: dict[str, Any]) -> np.ndarray:
    content = np.frombuffer(base64.b64decode(output["data"]["image/jpeg"]), np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_COLOR).astype(float)


def write(path: Path) -> None:
    """Runs a notebook in an empty folder, and writes its outputs into the file."""
    path = path.resolve()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "notebooks").mkdir()
        os.chdir(Path(folder) / "notebooks")
        outputs = iter(run(path, {}))
    content = json.loads(path.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = next(outputs)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
