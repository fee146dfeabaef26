"""Faces as Lightning sees them: as data sets, and loaders that repeat exactly."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch.utils.data import DataLoader

from facelm import checked
from facelm.data.augment import Augmentation
from facelm.data.dataset import FaceDataset, ImageSource, Originals, Photographs
from facelm.data.face_arrays import FaceArrays
from facelm.data.faces import Face, FaceSource, data_fingerprint, name_hashes
from facelm.data.partition import Partition, measured, partition
from facelm.data.sampler import EpochBatches, Keys
from facelm.data.storage.caching import Part, cache_kind, cached, chosen
from facelm.data.storage.coding import QUALITY, Jpeg
from facelm.data.storage.framing import EvaluationCrop, Surroundings
from facelm.data.storage.kept_index import KeptSource
from facelm.data.w300.source import W300Faces
from facelm.data.workers import PatientLoader
from facelm.geometry.landmarks import LandmarkScheme, get_scheme

log = logging.getLogger(__name__)

Loader = DataLoader[dict[str, Any]]


class FaceDataModule(L.LightningDataModule):
    """Train and validation faces of `source`, or of a 300W tree under `root`.

    What validates: see `partition`, whose `share` is `hold_out`. `batch_size` is per device. `crop_size` and
    `crop_scale` frame every crop; `pixel_origin` 1 turns the stored 1-based coordinates into 0-based ones, 0 uses them
    as they are (as the references do); `first_pixel` and `exif`: see `index_faces`.

    With `cache` raw or jpeg (of `cache_quality`), `setup` decodes every photograph once into `cache_dir` (`cache.py`),
    training faces at most `cache_size` pixels large and validation faces as the very crops; with auto it chooses one of
    them, which `cache` then says. `faces_loader` always reads the photographs.
    """

    def __init__(
        self,
        *,
        root: str,
        crop_size: int,
        crop_scale: float = 1.25,
        landmarks: str | Mapping[str, Any] | LandmarkScheme = "ibug68",
        augmentation: Augmentation | None = None,
        batch_size: int = 16,
        eval_batch_size: int = 32,
        num_workers: int = 2,
        annotations: Literal["pts", "json", "csv"] = "pts",
        annotations_at: str | None = None,
        pixel_origin: int = 1,
        first_pixel: int = 1,
        exif: Literal["auto", "apply", "ignore"] = "auto",
        train_list: str | None = None,
        val_list: str | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        hold_out: float = 0.1,
        drop_last: bool = False,
        cache: Literal["none", "raw", "jpeg", "auto", "disk"] = "none",
        cache_dir: str | None = None,
        cache_size: int = 512,
        cache_quality: int = QUALITY,
        seed: int = 0,
        source: FaceSource | None = None,
    ) -> None:
        super().__init__()
        for key, faces in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if faces < 1:
                raise ValueError(f"data.{key}={faces}: a batch holds at least one face")
        checked.integer(num_workers, "data.num_workers (processes that load faces; 0: this one does)", 0, 4096)
        if not 0 <= hold_out < 1:
            raise ValueError(f"data.hold_out={hold_out} is a share of the training faces: 0 or more, below 1")
        self.root = Path(root).expanduser()
        self.crop_size = crop_size
        self.crop_scale = crop_scale
        self.scheme = get_scheme(landmarks)
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.train_list = train_list
        self.val_list = val_list
        self.hold_out = hold_out
        self.drop_last = drop_last
        self.cache = self._asked_cache = cache_kind(cache)
        self.cache_dir = cache_dir
        self.cache_size = cache_size
        self.cache_quality = Jpeg(cache_quality).quality
        self.seed = seed
        self.source: FaceSource = source or W300Faces(
            self.root,
            annotations=annotations,
            annotations_at=annotations_at,
            pixel_origin=pixel_origin,
            first_pixel=first_pixel,
            exif=exif,
            on_error=on_error,
        )
        self._kept = KeptSource(self.source, cache_dir)
        self.train_faces = self.val_faces = FaceArrays.of([])
        self.val_name = ""
        self._fingerprint = ""
        self.validated = ""  # a fingerprint of the validation faces: val/nme of others does not compare
        self._train_source: ImageSource | None = None
        self._val_source: ImageSource | None = None
        self._resumed = {"epoch": 0, "batches": 0}
        self._known_held_out: Container[int] | None = None

    def setup(self, stage: str | None = None) -> None:
        """Indexes and checks every face, so a broken file stops the run before it starts."""
        if self.train_faces:
            return
        chosen = self._partition()
        self.train_faces, self.val_faces, self.val_name = chosen.train, chosen.val, chosen.val_name
        self._fingerprint = data_fingerprint(self.train_faces)
        self.validated = data_fingerprint(self.val_faces) if self.val_faces else ""
        validated = f"{len(self.val_faces)} validate ({self.val_name})" if self.val_faces else "none validate"
        log.info(f"{len(self.train_faces)} faces train, {validated}")
        self._train_source, self._val_source = self._sources()

    def train_dataloader(self) -> Loader:
        """Augmented crops in an order that depends on (seed, epoch) alone.

        Raises:
            ValueError: `drop_last`, and there are fewer faces than a batch has; or several devices under a trainer that
                would replace this loader's sampler.
        """
        if self.drop_last and len(self.train_faces) < self.batch_size * self._world_size:
            raise ValueError(
                f"data.drop_last=true leaves out incomplete batches, and {len(self.train_faces)} training faces are "
                f"fewer than one batch of {self.batch_size} x {self._world_size} devices: nothing would train. Set "
                "data.drop_last=false or a smaller data.batch_size"
            )
        connector: Any = getattr(self.trainer, "_accelerator_connector", None)
        if self._world_size > 1 and connector is not None and connector.use_distributed_sampler:
            raise ValueError(
                "FaceDataModule gives each device its own faces: with several devices, use "
                "Trainer(use_distributed_sampler=False)"
            )
        batches = EpochBatches(
            len(self.train_faces),
            self.batch_size,
            seed=self.seed,
            drop_last=self.drop_last,
            start=lambda: self._resumed["batches"] if batches.epoch == self._resumed["epoch"] else 0,
            rank=self._rank,
            world_size=self._world_size,
        )
        # Lightning starts the workers before it names the epoch: a resumed run would train on epoch 0 once more.
        batches.set_epoch(self._resumed["epoch"])
        return self._loader(self._dataset(self.train_faces, self.augmentation, self._train_source), batches)

    def val_dataloader(self) -> Loader | list[Loader]:
        """Evaluation crops of every validation face; nothing where no face validates."""
        if not self.val_faces:
            return []
        return self._evaluation_loader(self.val_faces, self._val_source)

    def test_dataloader(self) -> Loader:
        """Evaluation crops of `evaluation_faces`, each rank its part."""
        return self._evaluation_loader(self.evaluation_faces()[0])

    def predict_dataloader(self) -> Loader:
        """As for a test; Lightning cuts the faces of a prediction into batches itself."""
        batches: Any = self.test_dataloader().batch_sampler
        faces, _ = self.evaluation_faces()
        return PatientLoader(
            self._dataset(faces, None),
            batch_size=self.eval_batch_size,
            sampler=Keys(batches),
            num_workers=self.num_workers,
        )

    def evaluation_faces(self) -> tuple[FaceArrays, list[str]]:
        """(faces, the subset of each) of the validation list and every evaluation subset on disk.

        With neither, those that are held out of training, or `held_out` says were.

        Raises:
            FileNotFoundError: neither a list nor a subset, and `hold_out` is 0.
        """
        share = (lambda: self.val_faces or self._partition().val) if self.hold_out else None
        return measured(self._kept, self.train_list, self.val_list, self._known_held_out, share)

    def held_out(self, names: Container[int]) -> None:
        """Says which faces a training held out, by `name_hashes`: the share of today's faces may be others."""
        self._known_held_out = names

    def faces_loader(self, faces: Sequence[Face]) -> Loader:
        """Evaluation crops of `faces`, on one device."""
        return self._loader(self._dataset(faces, None), EpochBatches(len(faces), self.eval_batch_size, shuffle=False))

    def _evaluation_loader(self, faces: Sequence[Face], source: ImageSource | None = None) -> Loader:
        """Evaluation crops of `faces` in their order, each rank its part."""
        batches = EpochBatches(
            len(faces), self.eval_batch_size, shuffle=False, rank=self._rank, world_size=self._world_size
        )
        return self._loader(self._dataset(faces, None, source), batches)

    def _partition(self) -> Partition:
        return partition(self._kept, train_list=self.train_list, val_list=self.val_list, share=self.hold_out)

    def _sources(self) -> tuple[ImageSource | None, ImageSource | None]:
        """Caches of the faces that train and that validate, built if need be; None: the photographs."""
        parts: list[Part] = [(self.train_faces, self.surroundings if self.augmentation else self.crop)]
        parts += [(self.val_faces, self.crop)] if self.val_faces else []
        self.cache = chosen(self._asked_cache, parts, self.cache_dir, self.cache_quality)
        train, *val = (cached(self.cache, part, self.cache_dir, self.cache_quality) for part in parts)
        return train, val[0] if val else None

    @property
    def crop(self) -> EvaluationCrop:
        """What a cache stores of faces that are not augmented."""
        return EvaluationCrop(self.crop_size, self.crop_scale)

    @property
    def surroundings(self) -> Surroundings:
        """What a cache stores of faces that train; without an augmentation as far as the undisturbed crop reaches."""
        reach = self.augmentation.geometry.reach if self.augmentation else self.crop.reach / self.crop_scale
        return Surroundings(self.crop_scale * reach, self.cache_size)

    def originals(self, faces: Sequence[Face]) -> Originals:
        """What `faces` are measured on and shown from."""
        return Photographs(faces)

    def _dataset(
        self, faces: Sequence[Face], augmentation: Augmentation | None, source: ImageSource | None = None
    ) -> FaceDataset:
        return FaceDataset(
            faces,
            crop_size=self.crop_size,
            crop_scale=self.crop_scale,
            scheme=self.scheme,
            augmentation=augmentation,
            seed=self.seed,
            source=source or self.originals(faces),
        )

    def _loader(self, dataset: FaceDataset, batches: EpochBatches) -> Loader:
        return PatientLoader(
            dataset,
            batch_sampler=batches,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    @property
    def _accumulated(self) -> int:
        return int(self.trainer.accumulate_grad_batches) if self.trainer else 1

    @property
    def global_batch(self) -> int:
        """Faces of an optimizer step: batch x devices x nodes x accumulated batches."""
        return self.batch_size * self._world_size * self._accumulated

    def position(self) -> dict[str, Any]:
        """Where training stands, for the checkpoint: epoch, batches of it done, and what their order rests on."""
        epoch, batches = self._resumed["epoch"], self._resumed["batches"]
        if self.trainer:
            loop: Any = self.trainer.fit_loop
            epoch = loop.epoch_progress.current.processed
            between_epochs = epoch == loop.epoch_progress.current.started
            batches = 0 if between_epochs else loop.epoch_loop.batch_progress.current.ready
        return {"epoch": epoch, "batches": batches, **self._order(), "validated": self.validated, "cache": self.cache}

    def go_on_from(self, position: dict[str, Any]) -> None:
        """Makes training start at a checkpoint's `position()`.

        Raises:
            ValueError: seed, faces or global batch differ from the checkpoint's, so the batches would not be the rest
                of its run.
        """
        now = self._order() | ({"cache": self.cache} if self._asked_cache == "auto" else {})
        if changed := [key for key in now if key in position and position[key] != now[key]]:
            told = ", ".join(f"{key} {position[key]}, now {now[key]}" for key in changed)
            raise ValueError(
                f"the checkpoint's run cannot go on with other batches ({told}). Give seed, data, data.cache and "
                "data.batch_size x devices x trainer.accumulate_grad_batches as they were, or start a new run from the "
                "weights alone with model.weights=PATH"
            )
        self._resumed = {"epoch": position["epoch"], "batches": position["batches"]}

    def _order(self) -> dict[str, Any]:
        """What the order of the training faces and their batches depends on."""
        return {
            "seed": self.seed,
            "faces": len(self.train_faces),
            "names and landmarks": self._fingerprint,
            "global batch": self.global_batch,
            "batches a step": self._accumulated,
        }

    def face_names(self) -> dict[str, torch.Tensor]:
        """`name_hashes` `[N]` int64 of the faces that train and of those that validate, for the checkpoint."""
        faces = {"trained": self.train_faces, "validated": self.val_faces}
        return {name: torch.tensor(name_hashes(those), dtype=torch.int64) for name, those in faces.items()}
