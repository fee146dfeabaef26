"""`facelm demo` in a real browser: what a person does on it, and that nothing leaves the machine.

FACELM_DOCS=1 writes docs/demo.png, the picture of docs/prediction.md.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from browser import CHROMIUM, HERE, NO_CHROMIUM, Browser, Tab, until
from facelm import read_image
from facelm.data.w300.annotations import read_pts
from facelm.evaluation.overlay import encoded
from facelm.predict import Predictor

pytest.importorskip("gradio", reason="no Gradio here (pip install 'facelm[demo]')")
pytest.importorskip("dlib", reason="no dlib here (pip install 'facelm[detect]')")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason=NO_CHROMIUM),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*downcast|.*copy keyword"),  # Gradio's own
]

from facelm.predict.demo import LEAST, draw_examples  # noqa: E402
from facelm.predict.demo_page import opened  # noqa: E402

DOCS = Path(__file__).resolve().parents[1] / "docs"
SAID = "document.querySelector('#said textarea').value"
PICTURE = "document.querySelector('#picture img')"
INPUT = "#given input[type=file]"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """The page's address, and the addresses that this process called meanwhile."""
    called: list[str] = []
    connect = socket.socket.connect

    def watched(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple):
            called.append(str(address[0]))
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE"):
            patch.setenv(name, os.environ.get(name, ""))  # put back at the end
        patch.setattr(socket.socket, "connect", watched)
        with opened(Predictor.load(device="cpu"), most_megabytes=2) as address:
            yield address, called


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path / "browser")
    yield browser
    browser.close()


@pytest.fixture
def faces(tmp_path: Path) -> list[Path]:
    """Pictures of one drawn face, one more, one more, and four."""
    return [Path(path) for path in draw_examples(tmp_path)]


def loaded(browser: Browser, address: str, width: int = 1400, height: int = 1000) -> Tab:
    tab = browser.open(address, width, height)
    tab.wait(f"document.querySelector('{INPUT}') !== null")
    return tab


def give(tab: Tab, path: Path, says: str) -> str:
    tab.upload(INPUT, path)
    return str(tab.wait(f"{SAID}.includes({says!r}) && {SAID}"))


def on_picture(tab: Tab, x: float, y: float, natural: tuple[int, int]) -> None:
    """A click on the result at a pixel of the photograph, of that width and height."""
    tab.run(f"{PICTURE}.scrollIntoView({{block: 'center'}})")
    left, top, width, height = tab.run(
        f"(() => {{ const r = {PICTURE}.getBoundingClientRect(); return [r.left, r.top, r.width, r.height] }})()"
    )
    scale = min(width / natural[0], height / natural[1])  # the picture is fitted into its element
    x0, y0 = left + (width - scale * natural[0]) / 2, top + (height - scale * natural[1]) / 2
    tab.click(x0 + scale * x, y0 + scale * y)


def test_several_faces(page: tuple[str, list[str]], browser: Browser, faces: list[Path], tmp_path: Path) -> None:
    tab = loaded(browser, page[0])
    assert "4 faces" in give(tab, faces[3], "found in")
    tab.wait(f"{PICTURE} && {PICTURE}.naturalWidth > 0")
    assert tab.wait("document.querySelectorAll('#files a').length") == 7
    assert "confidence" in tab.run("document.querySelector('#table').innerText")
    before = tab.run(f"{PICTURE}.src")
    tab.run("[...document.querySelectorAll('#shown input')].slice(2).forEach((one) => one.click())")
    tab.wait(f"{PICTURE}.src !== {before!r} && {PICTURE}.complete")
    assert tab.run("document.documentElement.scrollWidth") <= 1400
    if os.environ.get("FACELM_DOCS"):
        tab.size(1400, 1000)
        tab.wait("document.fonts.ready.then(() => true)")
        tab.run("document.querySelectorAll('#shown input')[2].click()")
        time.sleep(2)
        tab.screenshot(tmp_path / "demo.png", whole=False)
        small = PIL.Image.open(tmp_path / "demo.png").convert("RGB").resize((1050, 750), PIL.Image.Resampling.LANCZOS)
        small.quantize(96).save(DOCS / "demo.png", optimize=True)
    tab.size(390, 844)
    assert tab.run("document.documentElement.scrollWidth") <= 390
    assert browser.leaving() == []
    assert set(page[1]) <= set(HERE)


def test_downloads(page: tuple[str, list[str]], browser: Browser, faces: list[Path]) -> None:
    tab = loaded(browser, page[0])
    give(tab, faces[0], "found in")
    tab.wait("document.querySelectorAll('#files a').length === 4")
    for number in range(4):
        tab.run(f"document.querySelectorAll('#files a')[{number}].click()")
    names = [f"drawn_1.{ending}" for ending in ("csv", "jpg", "json", "pts")]
    until(lambda: sorted(path.name for path in browser.downloads.iterdir()) == names)
    content = json.loads((browser.downloads / "drawn_1.json").read_text())
    assert content["image"] == "drawn_1.png"
    (face,) = content["faces"]
    assert np.allclose(read_pts(browser.downloads / "drawn_1.pts"), face["landmarks"], atol=0.001)
    assert read_image(browser.downloads / "drawn_1.jpg").shape == read_image(faces[0]).shape


def test_what_is_no_photograph(
    page: tuple[str, list[str]], browser: Browser, tmp_path: Path, faces: list[Path]
) -> None:
    tab = loaded(browser, page[0])
    give(tab, faces[0], "found in")
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture at all")
    said = give(tab, bad, "failed")
    assert said.startswith("That failed: bad.jpg: no image that OpenCV can decode")
    tab.wait("document.querySelectorAll('#files a').length === 0")
    blank = tmp_path / "blank.png"
    blank.write_bytes(encoded(np.full((200, 300, 3), 90, np.uint8), ".png"))
    assert "Draw a box" in give(tab, blank, "No face")
    large = tmp_path / "large.png"
    large.write_bytes(encoded(np.random.default_rng(0).integers(0, 256, (1000, 1000, 3)).astype(np.uint8), ".png"))
    tab.upload(INPUT, large)
    tab.wait("/exceed the maximum/.test(document.body.innerText)")


def test_boxes_by_hand(page: tuple[str, list[str]], browser: Browser, faces: list[Path]) -> None:
    tab = loaded(browser, page[0])
    give(tab, faces[3], "4 faces")
    height, width, _ = read_image(faces[3]).shape
    tab.wait(f"{PICTURE}.naturalWidth === {LEAST}")
    on_picture(tab, 10, 10, (width, height))
    tab.wait(f"{SAID}.includes('opposite corner')")
    on_picture(tab, width / 2 - 10, height / 2 - 10, (width, height))
    assert "5 faces" in tab.wait(f"{SAID}.includes('faces') && {SAID}")
    on_picture(tab, 30, 30, (width, height))
    tab.wait(f"{SAID}.includes('opposite corner')")
    on_picture(tab, 30, 30, (width, height))
    tab.wait(f"{SAID}.includes('no box')")
    tab.run("document.querySelector('#again').click()")
    tab.wait(f"{SAID}.includes('4 faces')")


def test_a_second_tab_has_its_own(page: tuple[str, list[str]], browser: Browser, faces: list[Path]) -> None:
    first, second = loaded(browser, page[0]), loaded(browser, page[0])
    give(first, faces[3], "4 faces")
    give(second, faces[0], "1 face")
    assert "4 faces" in first.run(SAID)
    first.send("Page.bringToFront")
    before = first.wait(f"{PICTURE}.src")
    first.run("document.querySelectorAll('#shown input')[2].click()")
    first.wait(f"{PICTURE}.src !== {before!r} && {PICTURE}.naturalWidth > 0")
    assert "1 face" in second.run(SAID)
