"""The pages in a real browser: Chromium opens them from the disk, a script in a copy uses them as a person would."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import cv2
import numpy as np
import pytest

from browser import CHROMIUM, NO_CHROMIUM, Browser
from facelm.cli import main
from facelm.evaluation.kept import FILE, read_predictions, write_predictions
from facelm.evaluation.page.heatmaps import COLUMNS, TILE

pytestmark = pytest.mark.skipif(not CHROMIUM, reason=NO_CHROMIUM)

WATCH = """<script>
window.failures = [];
const failed = (event) => {
  const said = `${event.type}: ${event.message ?? event.reason ?? event.violatedDirective}`;
  if (!said.includes("ResizeObserver loop")) failures.push(said);
};
for (const kind of ["error", "unhandledrejection", "securitypolicyviolation"]) addEventListener(kind, failed, true);
const error = console.error; console.error = (...said) => { failures.push(said.join(" ")); error(...said); };
</script>"""

USE = """<script>
const wait = (ready) => new Promise((done) => { const ask = () => (ready() ? done() : setTimeout(ask, 20)); ask(); });
const tiles = () => [...document.querySelectorAll(".tile")].map((one) => Number(one.dataset.face));
(async () => {
  const found = { first: tiles() };
  await wait(() => document.querySelectorAll(".chart .plot:not(:empty)").length >= 4);
  found.plots = document.querySelectorAll(".chart .plot:not(:empty)").length;
  const presets = [...document.querySelectorAll(".presets button")];
  for (const one of presets) { one.click(); found[one.textContent] = tiles(); }
  presets[0].click();
  const sort = document.getElementById("sort");
  sort.value = "yaw"; sort.dispatchEvent(new Event("change")); found.yaw = tiles();
  const subset = document.querySelector(".presets select");
  subset.value = "challenge"; subset.dispatchEvent(new Event("change")); found.challenge = tiles();
  subset.value = ""; subset.dispatchEvent(new Event("change"));
  const named = document.getElementById("named");
  named.value = DATA.faces.names[2]; named.dispatchEvent(new Event("input")); found.named = tiles();
  document.querySelector(".tile").click();
  found.open = document.getElementById("large").open;
  found.title = document.querySelector("#large h3").textContent;
  const point = document.querySelector("#large .point"), heat = () => document.querySelectorAll("#large .heat").length;
  found.asks = Boolean(point.offsetParent);
  if (found.asks) { point.value = "30"; point.dispatchEvent(new Event("change")); }
  found.heat = heat();
  if (found.asks) { point.value = ""; point.dispatchEvent(new Event("change")); }
  found.cold = heat();
  found.large = document.querySelectorAll("#large svg path").length;
  document.querySelector("#large input[type=checkbox]").click();
  found.without = document.querySelectorAll("#large svg path").length;
  const slider = document.getElementById("threshold");
  slider.value = 12; slider.dispatchEvent(new Event("input"));
  found.threshold = document.querySelector("#ced table").textContent;
  await wait(() => [...document.images].every((one) => one.complete));
  found.pictures = [...document.querySelectorAll(".tile img")].filter((one) => one.naturalWidth > 0).length;
  found.wide = document.documentElement.scrollWidth;
  const names = performance.getEntriesByType("resource").map((one) => one.name);
  found.requests = names.filter((name) => !/^(file|data|blob):/.test(name));
  found.failures = failures;
  return found;
})().catch((error) => ({ failed: `${error.stack}` })).then((found) => {
  const said = document.createElement("pre");
  said.id = "found";
  said.textContent = JSON.stringify(found);
  document.body.replaceChildren(said);
});
</script>"""


def used(page: Path, folder: Path, width: int) -> tuple[dict, dict]:
    """What a person finds who opens a page, and what the page holds."""
    text = page.read_text(encoding="utf-8")
    copy = page.with_name("used.html")
    copy.write_text(text.replace("<head>", f"<head>{WATCH}").replace("</body>", f"{USE}</body>"), encoding="utf-8")
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", "--dump-dom",
        f"--window-size={width},900", "--virtual-time-budget=30000", copy.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    said = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert said, done.stderr[-2000:] + done.stdout[-2000:]
    data = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(unescape(said[1])), json.loads(data[1])


@pytest.fixture(scope="module")
def pages(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a report of drawn faces, and one that compares it with a better one."""
    pytest.importorskip("bokeh", reason="no Bokeh here (pip install 'facelm[report]')")
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(trained_run, folder / "run")
    kept = read_predictions(folder / "run" / "report")
    faces = kept.result.predictions
    faces.predicted[:] = faces.target + (faces.predicted - faces.target) / 2
    shutil.copytree(folder / "run" / "report", folder / "better")
    write_predictions(folder / "better" / FILE, kept)
    assert main(["report", str(folder / "better")]) == 0
    assert main(["compare", str(folder / "run" / "report"), str(folder / "better"), "--out", str(folder / "both")]) == 0
    return {"report": folder / "run" / "report" / "index.html", "comparison": folder / "both" / "index.html"}


def by(data: dict, facet: str, way: int) -> list[int]:
    """Faces sorted by a number of theirs; 1 is the smallest first."""
    values = data["faces"]["facets"][facet]["values"]
    return sorted(range(len(values)), key=lambda face: (way * values[face], face))


def sound(found: dict, data: dict, width: int) -> None:
    """What holds for every page."""
    assert "failed" not in found, found["failed"]
    assert found["failures"] == []
    assert found["requests"] == []
    assert found["plots"] == 4
    assert found["wide"] <= width
    assert found["yaw"] == by(data, "yaw", -1)[: len(found["yaw"])]
    challenge = [
        face for face, those in enumerate(data["faces"]["subsets"]) if data["subsets"].index("challenge") in those
    ]
    assert sorted(found["challenge"]) == challenge
    assert found["named"] == [2]
    assert found["open"]
    assert found["title"].startswith(data["faces"]["names"][2])
    assert found["without"] == found["large"] - 3 * len(data["runs"])
    assert "at most 12.00 %" in found["threshold"]
    assert found["pictures"] > 0


@pytest.mark.parametrize("width", [1400, 500])
def test_a_report(width: int, pages: dict[str, Path], tmp_path: Path) -> None:
    found, data = used(pages["report"], tmp_path, width)
    sound(found, data, width)
    assert found["first"] == found["Worst"] == by(data, "error", -1)
    assert found["Best"] == by(data, "error", 1)
    assert (found["asks"], found["heat"], found["cold"]) == (True, 1, 0)
    assert found["Median"][0] == by(data, "error", 1)[len(found["Best"]) // 2]


def test_a_comparison(pages: dict[str, Path], tmp_path: Path) -> None:
    found, data = used(pages["comparison"], tmp_path, 1400)
    sound(found, data, 1400)
    assert (found["asks"], found["heat"]) == (False, 0)
    assert found["first"] == found["Changed most"] == by(data, "changed by", -1)[:12]
    assert found["Got better"] == by(data, "change", 1)[:12]
    assert data["table"]["rows"][0][-1] == "better"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    found = Browser(tmp_path)
    yield found
    found.close()


def test_a_click_shows_the_heatmap_of_a_point(pages: dict[str, Path], browser: Browser, tmp_path: Path) -> None:
    """What is painted is the point's tile of the sheet, on the very pixels of the thumbnail."""
    tab = browser.open(pages["report"].as_uri())
    tab.wait("document.body?.dataset.ready === 'yes'")
    tab.run("document.querySelector('.tile').click()")
    x, y, left, top, side = tab.run("""(() => {
      const [x, y] = pointsOf(LANDMARKS.predicted[0], large.face)[30];
      const { left, top, width } = document.querySelector("#large .picture").getBoundingClientRect();
      return [x, y, left, top, width];
    })()""")
    tab.click(left + (x + 0.5) * side / 320, top + (y + 0.5) * side / 320)
    point = int(tab.wait("document.querySelector('#large .point').value"))
    places = np.array(tab.run("pointsOf(LANDMARKS.predicted[0], large.face)"))
    assert np.hypot(*(places[point] - (x, y))) < 1, "another point lies there"
    assert tab.run("document.querySelector('#large output').textContent").startswith("peak ")
    file = tab.run("HEAT.files[large.face]")
    tab.run("large.annotated = large.predicted = false; drawLarge()")
    tab.run("""for (const one of document.querySelectorAll("#large .picture img, #large circle")) one.remove()""")
    tab.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 300)))")
    tab.screenshot(tmp_path / "shown.png", whole=False)
    shown = cv2.imread(str(tmp_path / "shown.png")).astype(float)[..., 2]  # red: 17 where there is no heat, 255 in full
    left, top, side = (round(one) for one in (left, top, side))
    painted = (cv2.resize(shown[top : top + side, left : left + side], (320, 320)) - 17) / (255 - 17) / 0.9
    sheet = cv2.imread(str(pages["report"].parent / file), cv2.IMREAD_GRAYSCALE)
    row, column = TILE * (point // COLUMNS), TILE * (point % COLUMNS)
    kept = cv2.resize(sheet[row : row + TILE, column : column + TILE], (320, 320)).astype(float) / 255
    assert np.abs(painted - kept).mean() < 0.02
    assert np.corrcoef(painted.ravel(), kept.ravel())[0, 1] > 0.995
