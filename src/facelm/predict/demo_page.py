"""`facelm demo` on the screen: a page of Gradio's that calls nothing but the machine it runs on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2

from facelm.predict.demo import COLUMNS, SHOWN, Demo, State, draw_examples
from facelm.predict.predictor import Predictor

INSTALL = "facelm demo needs Gradio: pip install 'facelm[demo]'"

_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
}
"""Environment, read when Gradio is imported: it asks for newer releases and counts its users otherwise."""

_STYLE = """
footer { display: none !important }
#said textarea { font-size: 1.05em }
"""

_HELP = """
Drop a photograph, paste one, or take one with the camera. Two clicks on the result, at opposite corners of a face, find
the face in that box. Where boxes are shown, a click on a corner takes the corner up, and the next puts it down.
Photographs stay on the machine that runs this page, and are deleted when it stops.
"""


@contextmanager
def opened(
    predictor: Predictor,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    most_megabytes: int = 30,
    browser: bool = False,
) -> Iterator[str]:
    """The page, open until the block ends; gives its address. What was uploaded is deleted with it.

    Raises:
        ImportError: Gradio is not installed.
        OSError: the port is taken, or there is no such host.
    """
    with tempfile.TemporaryDirectory(prefix="facelm-demo-") as name:
        os.environ.update(_QUIET, GRADIO_TEMP_DIR=name)
        folder = Path(name)
        page = build(Demo(predictor, folder), draw_examples(folder))
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                inbrowser=browser,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                max_file_size=most_megabytes * 2**20,
                allowed_paths=[name],
                show_error=True,
                footer_links=[],
                ssr_mode=False,
                css=_STYLE,
            )
            yield address
        finally:
            page.close(verbose=False)


def build(demo: Demo, examples: list[str]) -> Any:
    """The page as Gradio's Blocks.

    Raises:
        ImportError: Gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise ImportError(INSTALL) from error

    with gr.Blocks(analytics_enabled=False, title="facelm demo") as page:
        state = gr.State(None)
        gr.Markdown(f"# facelm\n{_HELP}")
        with gr.Row():
            with gr.Column():
                given: Any = gr.Image(label="photograph", sources=["upload", "webcam", "clipboard"], elem_id="given")
                given.preprocess = _path_of  # a subclass would have Gradio write a .pyi file beside this one
                gr.Examples(examples, given, label="drawn faces to try", cache_examples=False)
            with gr.Column():
                said = gr.Textbox(label="what was found", lines=2, interactive=False, elem_id="said")
                picture = gr.Image(
                    label="result", interactive=False, format="jpeg", elem_id="picture", buttons=["fullscreen"]
                )
                shown = gr.CheckboxGroup(list(SHOWN), value=list(SHOWN[:2]), label="show", elem_id="shown")
                again = gr.Button("Find the faces again", elem_id="again")
        files = gr.File(label="download", file_count="multiple", interactive=False, elem_id="files")
        table = gr.Dataframe(headers=COLUMNS, label="points", interactive=False, elem_id="table", max_height=400)
        results = [state, picture, said, files, table]

        def look(path: str | None, what: list[str]) -> list[Any]:
            return _answer(demo, what, lambda: demo.look(path) if path else None)

        def click(now: State | None, what: list[str], event: gr.SelectData) -> list[Any]:
            if now is None:
                return _answer(demo, what, lambda: None)
            return _answer(demo, what, lambda: demo.click(now, *event.index, corners="boxes" in what), now)

        click.__annotations__["event"] = gr.SelectData  # Gradio finds it by its type
        gr.on([given.change, again.click], look, [given, shown], results, show_progress_on=[picture])
        picture.select(click, [state, shown], results, show_progress_on=[picture])
        shown.change(lambda now, what: demo.picture(now, what) if now else None, [state, shown], picture)
    return page


def _path_of(payload: Any) -> str | None:
    """An upload as it is: facelm reads it, and says what is wrong with it."""
    return None if payload is None else str(payload.path)


def _answer(demo: Demo, shown: list[str], act: Callable[[], State | None], before: State | None = None) -> list[Any]:
    """What `act` leads to, as everything that the page shows; what failed is said there, and `before` stays."""
    try:
        state = act()
    except (ValueError, OSError, ImportError, MemoryError, cv2.error) as error:
        said = f"That failed: {str(error) or type(error).__name__}."
        state = before and replace(before, corner=None, said=said)
        if state is None:
            return [None, None, said, None, None]
    if state is None:
        return [None, None, "", None, None]
    return [state, demo.picture(state, shown), state.said, demo.files(state), demo.table(state)]
