"""The LightningModule: crops in, heatmap loss out, and one metric that holds every validation face."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from facelm.evaluation.metrics import FacePredictions, LandmarkErrors
from facelm.geometry.boxes import box_side_image
from facelm.models.fast import for_inference
from facelm.models.hrnet import is_hrnet
from facelm.models.inference import normalise, predict_landmarks
from facelm.models.loading import load_model
from facelm.models.native.training import for_training
from facelm.models.own import Network
from facelm.models.spec import ModelSpec, checkpoint_facts
from facelm.training.losses import HeatmapMSE
from facelm.training.schedule import Schedule, TrainingPlan, clip_warmup
from facelm.training.watch import subsets_of, validation_errors

log = logging.getLogger(__name__)

Batch = dict[str, Tensor]

FAR = 1e4  # crop pixels: where a landmark that is not labelled is put, outside of every heatmap


class LitLandmarks(L.LightningModule):
    """Trains a heatmap network and validates it by inter-ocular NME in image pixels.

    `spec` says what the weights mean and goes into every checkpoint; `record` is the run's plain config and
    `mean_shape` the mean training shape in units of the box, kept beside it for reports; the attribute `run` names the
    run in its tracker, for a resumed one to go on there. Learning rate:
    `optimizer`'s own, times global batch / `base_batch` if `scale_lr`.

    A batch is a dict as `FaceDataset` gives it: `image` uint8 `[B, S, S, 3]` RGB, `landmarks_crop` float `[B, K, 2]` in
    crop pixels (training alone needs no more), `landmarks_image` `[B, K, 2]` in the photograph's pixels,
    `image_from_crop` `[B, 3, 3]`, and `index` `[B]`, which tells the faces of an evaluation apart.

    Logged: `train/loss` every step, `train/grad_norm` before clipping when Lightning logs, `val/loss`, `val/nme` and
    `test/nme` in percent, by region (`val/nme_REGION`) and by subset (`val/SUBSET/nme`). `measured` holds the faces of
    the last validation.
    """

    def __init__(
        self,
        *,
        spec: ModelSpec,
        net: nn.Module,
        loss: nn.Module | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
        schedule: Schedule | None = None,
        base_batch: int = 64,
        scale_lr: bool = False,
        clip_warmup: bool = False,
        channels_last: bool = True,
        compile_net: bool = False,
        native: bool = False,
        record: dict[str, Any] | None = None,
        mean_shape: list[list[float]] | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.codec = spec.build_codec()
        self.scheme = spec.landmark_scheme()
        spec.require_network(net)
        self.net = net
        if channels_last:
            self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compile_net:
            self.net.compile()  # in place: the names in the state dict stay as they are
        self.native = native and not compile_net
        self.loss = loss or HeatmapMSE()
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.base_batch = base_batch
        self.scale_lr = scale_lr
        self.clip_warmup = clip_warmup
        self.record = record or {}
        self.mean_shape = mean_shape
        self.run: dict[str, str] = {}
        self.val_errors = LandmarkErrors(spec.scheme.num_landmarks)
        self.measured: FacePredictions | None = None
        self._inference: Callable[[Tensor], Tensor] | None = None
        self._settings: list[dict[str, Any]] = []

    @classmethod
    def from_checkpoint(cls, path: str | Path, *, network: Network | None = None, **recipe: Any) -> LitLandmarks:
        """The trained module of a run folder, a checkpoint or a shipped name, to validate, test and predict with.

        `network` is the class of a network that is none of facelm's. `recipe` holds arguments of the constructor; to
        train it further, at least `optimizer` and `schedule`.

        Raises: as `facelm.models.loading.load_model`.
        """
        model = load_model(path, network=network)
        shape = None if model.mean_shape is None else model.mean_shape.tolist()
        given: dict[str, Any] = {"record": dict(model.record), "mean_shape": shape} | recipe
        return cls(spec=model.spec, net=model.net, **given)

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Any:
        """Refused: a checkpoint holds what the weights mean, and no arguments.

        Raises:
            ValueError: always; it names `from_checkpoint`.
        """
        raise ValueError("a checkpoint of facelm's holds its model whole: use LitLandmarks.from_checkpoint(PATH)")

    def on_fit_start(self) -> None:
        """On a CPU, hands the training steps to native code where it can be had: the same numbers up to rounding."""
        if self.native and self.device.type == "cpu" and is_hrnet(self.net):
            precision = str(self.trainer.precision)
            reason = "16-mixed is not theirs" if precision == "16-mixed" else for_training(self.net)
            log.info("training steps by %s", f"torch: {reason}" if reason else "native code")

    def forward(self, images: Tensor) -> Tensor:
        """Heatmaps `[B, K, S/4, S/4]` of uint8 crops `[B, S, S, 3]`."""
        output: Tensor = self.net(self._inputs(images))
        return output

    def _inputs(self, images: Tensor) -> Tensor:
        return normalise(images, self.spec.mean, self.spec.std, next(self.net.parameters()).dtype)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss against heatmaps that are drawn here, on the device."""
        loss = self._loss_of(self(batch["image"]), batch)
        # sync_dist: the mean over all ranks, as one process with the whole batch would log it.
        self.log("train/loss", loss, batch_size=len(batch["image"]), prog_bar=True, sync_dist=True)
        return loss

    def _loss_of(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss of heatmaps `[B, K, S/4, S/4]`."""
        landmarks_crop = batch["landmarks_crop"].to(self.dtype)
        known = landmarks_crop.isfinite().all(-1)  # [B, K]; a landmark that is not labelled weighs nothing
        landmarks_crop = torch.where(known[..., None], landmarks_crop, -FAR)
        target, weight = self.codec.encode(landmarks_crop, known.to(landmarks_crop))
        weight = weight * known
        loss: Tensor = self.loss(output, target, weight, landmarks_crop / self.codec.stride)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Logs the length of the gradient before it is clipped, at the steps that are logged."""
        if (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            gradients = [one.grad for one in self.net.parameters() if one.grad is not None]
            self.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps predictions and annotations in image pixels, keyed by face; `val/loss` is of the crops as they are."""
        output = self._measure(batch)
        if "landmarks_crop" in batch:
            loss, count = self._loss_of(output[: len(batch["image"])], batch), len(batch["image"])
            self.log("val/loss", loss, batch_size=count, on_step=False, on_epoch=True, sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """As in validation, without the loss."""
        self._measure(batch)

    def _measure(self, batch: Batch) -> Tensor:
        """Keeps a batch's predictions; the network's output: that of the crops, and of mirrored ones behind it."""
        side = box_side_image(batch["image_from_crop"].cpu().numpy(), self.spec.crop_size, self.spec.crop_scale)
        net, outputs = self._validated(), []

        def kept(inputs: Tensor) -> Tensor:
            outputs.append(net(inputs))
            return outputs[0]

        predicted = self._predicted(batch, kept)[0]
        self.val_errors.update(batch["index"], predicted, batch["landmarks_image"], torch.from_numpy(side))
        return outputs[0]

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """`landmarks_image` `[B, K, 2]` in the photograph's pixels and `confidence` `[B, K]`, with `index` if given."""
        landmarks_image, confidence = self._predicted(batch, self._validated())
        index = {"index": batch["index"]} if "index" in batch else {}
        return {"landmarks_image": landmarks_image, "confidence": confidence, **index}

    def _predicted(self, batch: Batch, net: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """(landmarks in image pixels, confidence) of a batch."""
        spec = self.spec
        landmarks_crop, confidence = predict_landmarks(
            net, self._inputs(batch["image"]), self.codec, self.scheme.mirror, spec.flip, spec.shift_crop
        )
        # In the matrix's own precision: a float32 batch stays one, which an accelerator without float64 needs.
        image_from_crop = batch["image_from_crop"]
        return self.codec.landmarks_in_image(landmarks_crop.to(image_from_crop.dtype), image_from_crop), confidence

    def _validated(self) -> Callable[[Tensor], Tensor]:
        """The network as it is validated: on a CPU in its fast form, made from the weights of this validation."""
        if self.device.type != "cpu":
            return self.net
        if self._inference is None:
            self._inference = for_inference(self.net, crop_size=self.spec.crop_size)
        return self._inference

    def on_validation_epoch_end(self) -> None:
        """Logs `val/nme` over every face once, whatever the number of ranks; and by region and subset."""
        self._log_nme("val")

    def on_test_epoch_end(self) -> None:
        """Logs `test/nme`, as `val/nme`."""
        self._log_nme("test")

    def on_predict_epoch_end(self) -> None:
        """Lets go of the fast form of these weights."""
        self._inference = None

    def _log_nme(self, split: str) -> None:
        self._inference = None  # the weights go on changing
        faces = self.measured = self.val_errors.compute()
        self.val_errors.reset()
        datamodule = self._datamodule()
        subsets = subsets_of(datamodule.val_faces) if split == "val" and datamodule else {}
        found = validation_errors(faces, self.scheme, subsets, split)
        if not math.isfinite(error := found[f"{split}/nme"]):
            lost = int((~np.isfinite(faces.predicted).all(axis=(1, 2))).sum())
            raise ValueError(
                f"{split}/nme is {error}: {lost} of {len(faces.index)} faces have no finite landmarks. "
                "The training has diverged, or started from such weights; a lower optim.optimizer.lr is the usual cure"
            )
        # Every rank has computed the same values from all faces: nothing is left to reduce.
        for name, value in found.items():
            own = name == f"{split}/nme"
            self.log(name, value, batch_size=len(faces.index), prog_bar=own, rank_zero_only=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer and its schedule, stepped every iteration; says batch, rate and iterations in one line."""
        if self.make_optimizer is None or self.schedule is None:
            raise ValueError(
                "this LitLandmarks has no recipe to train by: give it optimizer= (a function of the parameters) and "
                "schedule= (of facelm.training.schedule), also in from_checkpoint(PATH, optimizer=..., schedule=...)"
            )
        optimizer = self.make_optimizer(self.net.parameters())
        plan = self._plan()
        for group in optimizer.param_groups:
            group["lr"] *= plan.lr_factor
        schedule = self.schedule
        if self.clip_warmup:
            clipped = clip_warmup(schedule.warmup_iterations, plan.total_iterations)
            schedule = dataclasses.replace(schedule, warmup_iterations=clipped)  # type: ignore[type-var]
        plan.report(optimizer.param_groups[0]["lr"], schedule.warmup_iterations)

        def factor(iteration: int) -> float:
            return schedule.factor(
                iteration,
                iterations_per_epoch=plan.iterations_per_epoch,
                total_iterations=plan.total_iterations,
            )

        scheduler = LambdaLR(optimizer, factor)
        self._settings = [
            {name: value for name, value in group.items() if name not in ("params", "lr")}
            for group in optimizer.param_groups
        ]
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "train/lr"},
        }

    def _plan(self) -> TrainingPlan:
        trainer = self.trainer
        steps = int(trainer.estimated_stepping_batches)  # asks for the loaders, too
        an_epoch = max(1, -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches))
        epochs = trainer.max_epochs or 0  # where it is set, max_steps cuts a training short and leaves its plan alone
        loader: Any = trainer.train_dataloader
        own: Any = self._datamodule() or getattr(loader, "batch_sampler", None) or loader
        batch_size = int(own.batch_size)
        global_batch = batch_size * trainer.world_size * trainer.accumulate_grad_batches
        return TrainingPlan(
            batch_size=batch_size,
            devices=trainer.world_size,
            global_batch=global_batch,
            lr_factor=global_batch / self.base_batch if self.scale_lr else 1.0,
            iterations_per_epoch=an_epoch,
            total_iterations=an_epoch * epochs if epochs > 0 else steps,
        )

    def on_train_start(self) -> None:
        """Gives a resumed optimizer the settings of this run's config: it came with those of the checkpoint's."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        scheduler: Any = self.lr_schedulers()
        scheduler.base_lrs = [settings["initial_lr"] for settings in self._settings]
        for group, settings, factor in zip(optimizer.param_groups, self._settings, scheduler.lr_lambdas, strict=True):
            group.update(settings, lr=settings["initial_lr"] * factor(scheduler.last_epoch))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the spec, the plain config, the versions, where in the data the run stands, and which faces they are."""
        checkpoint["facelm"] = checkpoint_facts(self.spec, self.record, self.mean_shape)
        checkpoint["facelm"]["run"] = self.run
        if datamodule := self._datamodule():
            checkpoint["facelm"] |= {"position": datamodule.position(), "faces": datamodule.face_names()}

    def _datamodule(self) -> Any:
        """The data module that knows its position, if the trainer has one: a plain DataLoader has none."""
        found = getattr(self.trainer, "datamodule", None)
        return found if hasattr(found, "go_on_from") else None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another model or landmark scheme, or of other batches; else the data go on there."""
        ModelSpec.from_checkpoint(checkpoint).require_same_network(self.spec)
        if datamodule := self._datamodule():
            if "position" not in checkpoint["facelm"]:
                raise ValueError("the checkpoint's run had a DataLoader of its own: go on with that one")
            datamodule.go_on_from(checkpoint["facelm"]["position"])
        averages = any(isinstance(callback, WeightAveraging) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        if "current_model_state" in checkpoint and not averages:
            log.info("ema.decay=null: goes on from the last iteration's weights, not from their average")
            checkpoint["state_dict"] = checkpoint["current_model_state"]
