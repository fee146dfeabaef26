"""From photographs to landmarks: `Predictor.load("hrnetv2_w18")("photograph.jpg")`.

Read next: `photographs.py` (what is read), `detect.py` (where faces are), `facelm.geometry.boxes` (what a box means),
`facelm.models.inference` (the network and the flip test).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from time import perf_counter
from typing import Any, overload

import numpy as np
import torch
from torch import nn

from facelm.geometry.affine import FloatArray, invert, warp
from facelm.geometry.boxes import Box, BoxConvention, check_boxes, crop_from_image, get_convention, upright_box
from facelm.models.device import pick_device
from facelm.models.fast import for_inference
from facelm.models.inference import normalise, predict_landmarks
from facelm.models.loading import load_model
from facelm.models.own import Network
from facelm.models.spec import ModelSpec
from facelm.predict.candidates import Candidates, distinct, notes, told
from facelm.predict.detect import Detector, DlibDetector, look
from facelm.predict.photographs import OnError, Photograph, Seen, Source, see, see_each
from facelm.predict.prediction import LEAST_SCORE
from facelm.predict.prediction import FaceLandmarks as FaceLandmarks
from facelm.predict.prediction import Prediction as Prediction
from facelm.predict.turned import boxes_in_turned

DEFAULT_MODEL = "hrnetv2_w18"

Convention = str | BoxConvention
"""What boxes are: a name in `facelm.geometry.boxes.CONVENTIONS`, or a measured one."""

_MOST_IMAGES = 16  # of a list that are held at once: of 24 megapixels each, 1.2 GB
_MOST_FACES = 32  # in one forward pass; with the flip test that is 64 crops, 2 GB of activations


class Predictor:
    """Finds faces and their landmarks in photographs.

    Args:
        net: the network, `[B, 3, S, S]` to heatmaps.
        spec: what its weights mean.
        device: "auto" (a GPU where there is one), "cpu", "cuda", ...
        detector: finds the faces of images that come without boxes; None makes a `DlibDetector` when it is needed.
        flip: the flip test (see `facelm.models.inference`); None: the model's, or `exact` where the model has none.
        annotation_shift: None takes the model's: landmarks then lie where the annotators of its training data would
            have put them, in 300W half a per cent of the box further right than a face's symmetry says. 0 takes it off.
        refine: how often a face is cropped again, around the landmarks just found. Boxes of a detector lie
            differently on every face; the second crop is the one that the network was trained on.
        backend: how the network is carried out, see `facelm.models.fast.for_inference`: "auto" takes native kernels on
            a CPU that has a C++ compiler (two seconds of compiling on its first use), else torch with batch norms
            folded; "native" and "torch" insist.
        upright_only: faces are not looked for in the turned photograph where there is no sure one as it is.
        min_score: faces that were detected are left out, with a note, where their `score` is below.

    Raises:
        ValueError: no such device, flip test or backend, `annotation_shift` is none, `refine` is negative, or
            `min_score` is not from 0 to 1.

    Several threads may call one predictor; the network takes one at a time. It can be pickled, and sent to a process
    that was spawned or forked.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: ModelSpec,
        *,
        device: str | torch.device = "auto",
        detector: Detector | None = None,
        flip: str | None = None,
        annotation_shift: float | None = None,
        refine: int = 1,
        backend: str = "auto",
        upright_only: bool = False,
        min_score: float = 0.0,
    ) -> None:
        options: dict[str, Any] = {
            "flip": flip,
            "annotation_shift": annotation_shift,
            "refine": refine,
            "backend": backend,
            "upright_only": upright_only,
            "min_score": min_score,
        }
        self._made_from = net, spec, {"device": str(device), "detector": detector, **options}
        if refine < 0:
            raise ValueError(f"refine={refine}: it is how often a face is cropped again, 0 or more")
        if not 0 <= min_score <= 1:
            raise ValueError(f"min_score={min_score}: scores are from 0 to 1; 0 keeps every face")
        self.device = pick_device(device)
        self.net = for_inference(net.eval().to(self.device), crop_size=spec.crop_size, backend=backend)
        usual = "exact" if spec.flip == "none" else spec.flip
        shift = spec.annotation_shift if annotation_shift is None else annotation_shift
        self.spec = replace(spec, flip=usual if flip is None else flip, annotation_shift=shift)
        self.scheme = spec.landmark_scheme()
        self.codec = spec.build_codec()
        self.refine = refine
        self.upright_only = upright_only
        self.min_score = min_score
        self._detector = detector

    def __reduce__(self) -> tuple[Any, ...]:
        net, spec, options = self._made_from
        return partial(type(self), **options), (net, spec)

    @classmethod
    def load(
        cls,
        source: str | Path = DEFAULT_MODEL,
        device: str | torch.device = "auto",
        *,
        network: Network | None = None,
        **options: Any,
    ) -> Predictor:
        """The predictor of a shipped model's name, a checkpoint, a run folder or an address.

        `network` is the class of a network that is none of facelm's. `options` are `detector`, `flip`,
        `annotation_shift`, `refine`, `backend`, `upright_only` and `min_score`. Raises what
        `facelm.models.loading.load_model` raises.
        """
        model = load_model(source, network=network)
        return cls(model.net, model.spec, device=device, **options)

    @overload
    def __call__(
        self,
        images: list[Any] | tuple[Any, ...],
        boxes: Any = None,
        *,
        convention: Convention = "tight",
        bgr: bool = False,
        on_error: OnError = "raise",
    ) -> list[Prediction]: ...

    @overload
    def __call__(
        self,
        images: Source,
        boxes: Any = None,
        *,
        convention: Convention = "tight",
        bgr: bool = False,
        on_error: OnError = "raise",
    ) -> Prediction: ...

    def __call__(
        self,
        images: Any,
        boxes: Any = None,
        *,
        convention: Convention = "tight",
        bgr: bool = False,
        on_error: OnError = "raise",
    ) -> Prediction | list[Prediction]:
        """The faces of an image, or of each image of a list; crops of up to 16 images go through the network together.

        A list may be long: no more than these images are held, beside those that came as pixels.

        Args:
            images: what `read_photograph` takes, or a list or tuple of these.
            boxes: `[N, 4]` as (x1, y1, x2, y2) in pixels, for a list of images one such array each. None: the
                detector looks for faces.
            convention: what these boxes are: `tight` around the landmarks, `square` (300W's), `dlib`, or a
                `BoxConvention` measured by `facelm calibrate`.
            bgr: whether arrays and tensors are in OpenCV's order; files and PIL images know theirs.
            on_error: what an image that cannot be read, or boxes that are none, mean for the others: "skip" gives a
                prediction without faces in its place, whose `error` says why.

        Raises:
            ValueError: an image that cannot be read, or a box that is not finite, inverted, tiny or outside; of a list,
                the message says which, counted from 0.
            FileNotFoundError: no such image.
            ImportError: faces are to be detected, and there is no detector.
        """
        many = isinstance(images, list | tuple)
        sources = images if many else [images]
        given = [None] * len(sources) if boxes is None else list(boxes) if many else [boxes]
        if len(given) != len(sources):
            raise ValueError(f"{len(sources)} images, but boxes for {len(given)}: give one array [N, 4] for each image")
        find = partial(self.candidates, convention=convention)
        predictions: list[Prediction] = []
        for first in range(0, len(sources), _MOST_IMAGES):
            part = slice(first, first + _MOST_IMAGES)
            number = (first, len(sources)) if many else None
            seen = see_each(sources[part], given[part], find, Candidates(), bgr=bgr, on_error=on_error, number=number)
            predictions += map(_with_source, self.finish(seen), sources[part])
            del seen  # before the next are read
        return predictions if many else predictions[0]

    def see(self, source: Source, boxes: Any = None, *, convention: Convention = "tight") -> Seen[Candidates]:
        """An image read, and the faces in it detected: the first half of a call, for another thread than `finish`.

        Takes and raises what a call does.
        """
        return see(source, partial(self.candidates, xyxy=boxes, convention=convention))

    def finish(self, seen: Sequence[Seen[Candidates]]) -> list[Prediction]:
        """The landmarks of images that were seen; all crops go through the network together."""
        start = perf_counter()
        faces = self.faces_in_boxes([one.photograph for one in seen], [one.where.boxes for one in seen])
        least = [0.0 if one.where.given else self.min_score for one in seen]
        found = [self._also_turned(one, told(one.where, own)) for one, own in zip(seen, faces, strict=True)]
        kept = [[face for face in own if not face.score < limit] for own, limit in zip(found, least, strict=True)]
        took = perf_counter() - start
        return [
            Prediction(
                tuple(own),
                one.photograph.size,
                {**one.seconds, "landmarks": took},
                notes(one.photograph, one.error, own, len(all_of_it) - len(own)),
                one.error,
                self.scheme,
                one.photograph,
            )
            for one, own, all_of_it in zip(seen, kept, found, strict=True)
        ]

    def candidates(self, photograph: Photograph, xyxy: Any = None, convention: Convention = "tight") -> Candidates:
        """The training boxes of the faces in `xyxy` `[N, 4]`, or of those that the detector finds or suspects."""
        if xyxy is None:
            detector = self._detector = self._detector or DlibDetector()
            (found, sure), convention = look(detector, photograph.pixels), detector.convention
        else:
            found = check_boxes(xyxy, *photograph.size)
            sure = len(found)
        convention = get_convention(convention) if isinstance(convention, str) else convention
        return Candidates(tuple(convention.training_box(box) for box in found), sure, xyxy is not None)

    def _also_turned(self, seen: Seen[Candidates], found: list[FaceLandmarks]) -> list[FaceLandmarks]:
        """`found` where a face among them is sure; else those that are in the turned photograph, the surest first."""
        known = seen.where.given or seen.error or any(face.score >= LEAST_SCORE for face in found)
        if self.upright_only or known:
            return found
        boxes = boxes_in_turned(seen.photograph, lambda photograph: self.candidates(photograph).boxes)
        faces = self.faces_in_boxes([seen.photograph], [boxes])[0]
        sure = [face for face in faces if face.score >= LEAST_SCORE]
        return distinct(sorted(sure, key=lambda face: -face.score)) or found

    def faces_in_boxes(
        self, photographs: Sequence[Photograph], boxes: Sequence[Sequence[Box]], refine: int | None = None
    ) -> list[list[FaceLandmarks]]:
        """The landmarks in each training box of each photograph, after `refine` further crops."""
        owners = [photograph for photograph, own in zip(photographs, boxes, strict=True) for _ in own]
        flat = [box for own in boxes for box in own]
        further = self.refine if refine is None else refine
        faces = self._look(owners, flat, last=not further)
        for left in reversed(range(further)):
            pairs = zip(faces, flat, strict=True)
            flat = [refined_box(face.landmarks_image, box, self.scheme.mirror) for face, box in pairs]
            faces = self._look(owners, flat, last=not left)
        remaining = iter(faces)
        return [[next(remaining) for _ in own] for own in boxes]

    @torch.inference_mode()
    def _look(self, photographs: Sequence[Photograph], boxes: Sequence[Box], last: bool) -> list[FaceLandmarks]:
        """The landmarks in `boxes`, one photograph for each; crops before the `last` need no flip test."""
        faces = []
        spec, flip = self.spec, self.spec.flip if last else "none"
        # Weights trained on stored 1-based numbers (pixel_origin 0) saw crops one pixel to the lower right of the box.
        offset = 1 - spec.pixel_origin
        for start in range(0, len(boxes), _MOST_FACES):
            part = slice(start, start + _MOST_FACES)
            moved = [replace(box, center=(box.center[0] + offset, box.center[1] + offset)) for box in boxes[part]]
            matrices = [crop_from_image(box, spec.crop_size, spec.crop_scale) for box in moved]
            pairs = zip(photographs[part], matrices, strict=True)
            crops = np.stack([warp(photograph.pixels, matrix, spec.crop_size) for photograph, matrix in pairs])
            inputs = normalise(torch.from_numpy(crops).to(self.device), spec.mean, spec.std)
            found = predict_landmarks(self.net, inputs, self.codec, self.scheme.mirror, flip, spec.shift_crop)
            landmarks_crop, scores = (tensor.cpu().double() for tensor in found)
            image_from_crop = torch.from_numpy(np.stack([invert(matrix) for matrix in matrices]))
            landmarks = self.codec.landmarks_in_image(landmarks_crop, image_from_crop).numpy()
            landmarks -= spec.stored_offset_image
            confidence = scores.clamp(0, 1).numpy()
            triples = zip(boxes[part], landmarks, confidence, strict=True)
            fit = spec.known_error
            faces += [
                FaceLandmarks(box.xyxy, points, sure, box.rotation, None if fit is None else fit.of(sure))
                for box, points, sure in triples
            ]
        return faces


def _with_source(prediction: Prediction, source: Source) -> Prediction:
    """What the prediction is of: the path or bytes in place of the pixels that were read from these."""
    if not isinstance(source, str | PathLike | bytes):
        return prediction
    return replace(prediction, source=source, name="" if isinstance(source, bytes) else fspath(source))


def refined_box(landmarks_image: FloatArray, box: Box, mirror: Sequence[int]) -> Box:
    """The box around landmarks `[K, 2]` found in `box`, tilted with the head; `box` itself where they are no face's.

    That is where they span less than a third or more than three times of it: nothing there looked like a face.
    """
    refined = upright_box(landmarks_image, mirror)
    return refined if 1 / 3 < refined.side / box.side < 3 else box
