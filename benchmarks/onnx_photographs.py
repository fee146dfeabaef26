"""An ONNX file of whole photographs: what it takes for a face in 24 megapixels, and how far it is from the Predictor.

    python -m benchmarks.onnx_photographs [--faces 40] [--rounds 5]

CPU seconds of one thread, the least of the rounds: other work on the machine only adds. The photograph is a drawn one,
enlarged: a JPEG of a real one is larger and takes longer to decode.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

import cv2
import numpy as np
from PIL import Image

from facelm.models.loading import load_model
from facelm.predict import Predictor
from facelm.predict.export import export_onnx
from facelm.predict.onnx_check import drawn_faces

WIDE, HIGH = 6000, 4000


def seconds(work: Callable[[], object], rounds: int) -> float:
    """The least CPU time of `work`."""
    took = []
    for _ in range(rounds):
        start = process_time()
        work()
        took.append(process_time() - start)
    return min(took)


def main(arguments: list[str] | None = None) -> None:
    """Exports the shipped network, and prints the times and the distance."""
    import onnxruntime

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="hrnetv2_w18", help="what is exported")
    parser.add_argument("--faces", type=int, default=40, help="drawn faces that are compared with the Predictor")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    model = load_model(args.checkpoint)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "photographs.onnx"
        export_onnx(model, file, takes="photographs")

        def session() -> onnxruntime.InferenceSession:
            return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

        run = session()
        photographs, boxes = drawn_faces(args.faces)
        large = cv2.resize(photographs[0].pixels, (WIDE, HIGH), interpolation=cv2.INTER_CUBIC)
        scale = np.array([WIDE, HIGH, WIDE, HIGH]) / np.array([*photographs[0].size] * 2)
        place = {"image": large, "boxes": (boxes[0].xyxy * scale)[None].astype(np.float32)}
        Image.fromarray(large).save(coded := io.BytesIO(), "JPEG", quality=95)
        print(f"{WIDE} x {HIGH} pixels, a JPEG of {len(coded.getvalue()) / 1e6:.1f} MB; CPU seconds")
        print(f"  decoding with Pillow  {seconds(lambda: np.asarray(Image.open(coded)), args.rounds):.2f}")
        print(f"  making the session    {seconds(session, args.rounds):.2f}")
        print(f"  one face              {seconds(lambda: run.run(None, place), args.rounds):.2f}")

    predictor = Predictor(model.net, model.spec, device="cpu", flip="none", refine=0)
    apart = []
    for photograph, box in zip(photographs, boxes, strict=True):
        found = predictor(photograph.pixels, box.xyxy[None], convention="square")[0].landmarks_image
        same = run.run(None, {"image": photograph.pixels, "boxes": box.xyxy[None].astype(np.float32)})[0][0]
        pixel = box.side * model.spec.crop_scale / model.spec.crop_size
        apart.append(np.abs(found - same).max() / pixel)
    print(f"{args.faces} drawn faces: at most {max(apart):.4f} px of the crop from the Predictor")


if __name__ == "__main__":
    main()
