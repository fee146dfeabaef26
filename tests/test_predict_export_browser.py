"""The ONNX file of photographs in a browser: onnxruntime-web (an npm package) in headless Chromium.

Skipped where there is no Chromium, or FACELM_ORT_WEB does not name a folder into which `npm install onnxruntime-web`
was done.
"""

import json
import os
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from facelm.data.synthetic.dataset import draw_face
from facelm.geometry.boxes import box_from_landmarks
from facelm.predict.export import export_onnx
from facelm.predict.onnx_check import open_onnx
from test_predict_export import lively_model

CHROMIUM = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), "")
PACKAGE = Path(os.environ.get("FACELM_ORT_WEB", "/none"), "node_modules/onnxruntime-web/dist")

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and PACKAGE.is_dir()), reason="no Chromium, or FACELM_ORT_WEB names no folder with onnxruntime-web"
)

PAGE = """<script type="module">
import * as ort from "./ort.wasm.min.mjs";
const answer = (found) => fetch("/found", { method: "POST", body: JSON.stringify(found) });
try {
  ort.env.wasm.numThreads = 1;
  const { shape, boxes } = await (await fetch("given.json")).json();
  const image = new Uint8Array(await (await fetch("image.bin")).arrayBuffer());
  const session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
  const found = {};
  for (const number of [0, 1, boxes.length]) {
    const given = new Float32Array(boxes.slice(0, number).flat());
    const { landmarks } = await session.run({
      image: new ort.Tensor("uint8", image, shape), boxes: new ort.Tensor("float32", given, [number, 4]),
    });
    found[number] = { dims: landmarks.dims.map(Number), data: [...landmarks.data] };
  }
  await answer(found);
} catch (error) { await answer({ failed: `${error} ${error.stack}` }); }
</script>"""


def in_browser(folder: Path, image: np.ndarray, boxes: np.ndarray) -> dict:
    """What a page finds with `model.onnx` of the folder, by the number of boxes."""
    for path in PACKAGE.iterdir():
        if path.name.startswith("ort") and path.suffix in (".mjs", ".wasm"):
            (folder / path.name).symlink_to(path)
    (folder / "page.html").write_text(PAGE)
    (folder / "image.bin").write_bytes(image.tobytes())
    (folder / "given.json").write_text(json.dumps({"shape": image.shape, "boxes": boxes.tolist()}))
    found, ready = {}, threading.Event()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *given):
            super().__init__(*given, directory=str(folder))

        def do_POST(self):
            found.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            ready.set()

        def log_message(self, *said):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/page.html"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    browser = subprocess.Popen([CHROMIUM, *options, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert ready.wait(120), "the page gave no answer"
    finally:
        browser.terminate()
        browser.wait()
        server.shutdown()
    return found


def test_landmarks_in_a_browser_are_those_of_onnx_runtime(tmp_path):
    export_onnx(lively_model(), tmp_path / "model.onnx", takes="photographs")
    image, points = draw_face(np.random.default_rng(5))
    box = box_from_landmarks(points).xyxy
    boxes = np.array([box, box + 3], np.float32)
    expected = open_onnx(tmp_path / "model.onnx").run(["landmarks"], {"image": image, "boxes": boxes})[0]
    found = in_browser(tmp_path, image, boxes)
    assert "failed" not in found, found.get("failed")
    for number in (0, 1, 2):
        assert found[str(number)]["dims"] == [number, 68, 2]
        got = np.array(found[str(number)]["data"]).reshape(-1, 68, 2)
        assert (np.abs(got - expected[:number]) < 0.1).sum() >= 0.98 * got.size  # rounding decides on flat maps
