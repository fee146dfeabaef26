"""Evaluation: `python -m facelm.evaluate checkpoint=PATH [data.root=PATH ...]`, on one device.

Training ends with the same report, made by the same functions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from facelm.addresses import shareable
from facelm.data.datamodule import FaceDataModule
from facelm.data.dataset import in_photograph
from facelm.data.faces import Face
from facelm.data.synthetic.folder import is_drawn
from facelm.evaluation.kept import origin_of
from facelm.evaluation.known_faces import (
    fingerprints,
    other_faces,
    photographs,
    shared_photographs,
    trained_on,
    unlike_report,
)
from facelm.evaluation.metrics import mean_shape_in_box
from facelm.evaluation.predictions import face_heatmaps, predict_faces
from facelm.evaluation.report import print_table, write_report
from facelm.evaluation.scores import EvaluationResult, evaluate_faces, subset_masks
from facelm.geometry.correspondence import Correspondence, correspondence
from facelm.launch.build import framed_data, plain
from facelm.launch.errors import command_line, program
from facelm.launch.jobs import key_of
from facelm.launch.key_names import OF_THE_CHECKPOINT, THE_CHECKPOINT_S
from facelm.launch.local import with_local
from facelm.launch.paths import CONF_DIR
from facelm.launch.recorded import group_of, recorded_data, recorded_group, recorded_root, with_places
from facelm.launch.run_log import git_commit, tracked
from facelm.models import own
from facelm.models.device import pick_device
from facelm.models.download import local_file
from facelm.models.loading import LoadedModel, load_model

log = logging.getLogger(__name__)

FACES = (
    "root",
    "file",
    "annotations",
    "annotations_at",
    "first_pixel",
    "exif",
    "train_list",
    "val_list",
    "train",
    "val",
    "test",
    "on_error",
    "hold_out",
)
"""The keys of `data` that say which faces are measured."""


def evaluate(
    model: LoadedModel,
    data: FaceDataModule,
    device: torch.device,
    report_dir: Path,
    measured: tuple[Sequence[Face], list[str]] | None = None,
    same: Correspondence | None = None,
    *,
    heatmaps: bool = False,
) -> EvaluationResult:
    """Measures every subset on disk, or `measured`, in one pass over the faces, writes the report, prints the table.

    `same` says which points of the model those of the data are, where these have another scheme. With
    `heatmaps` the page has those of the faces that are looked at first.
    """
    faces, labels = measured or data.evaluation_faces()
    originals = data.originals(faces)
    loader = data.faces_loader(faces)
    predictions = predict_faces(model.net, model.spec, loader, device, same, total=len(faces))
    shape = None
    if model.mean_shape is not None:
        centers = np.array([face.box.center for face in faces])
        shape = mean_shape_in_box(model.mean_shape, centers, np.array([face.box.side for face in faces]))
        shape = same.mapped(shape) if same else shape
    result = evaluate_faces(
        predictions,
        [face.name for face in faces],
        subset_masks(labels, [face.subsets for face in faces], data.source.published),
        scheme=same.target if same else model.spec.landmark_scheme(),
        mean_shape_image=shape,
        compared=same.compared if same else None,
    )
    published, notes = what_is_known(model, result)
    if same:  # what was published is about its own points
        published, count = {}, f"{len(same.pairs)} of the {same.target.num_landmarks} points of {same.target.name}"
        notes.insert(0, f"Measured on {count}, those that {same.source.name} has too")
    notes += trained_on(faces, model.faces) + shared_photographs(recorded_group(model.record), group_of(type(data)))
    absent = [name for name in data.source.published if name not in result.subsets]
    if absent and not data.val_list:
        notes.append(f"{' and '.join(absent)} absent under {shareable(str(data.root))}")
    facts = {
        "checkpoint": {"path": shareable(str(model.path)), "sha256": model.sha256, "spec": model.spec.to_dict()},
        "data": {
            "root": shareable(str(data.root)),
            "faces": len(faces),
            "fingerprints": fingerprints([_compared(face, same) for face in faces] if same else faces, labels),
            "contents": photographs(faces, labels, originals.content),
        },
        "command": this_command(),
        "commit": git_commit(),
        "run": {"config": shareable(model.record)},
    }
    write_report(
        report_dir,
        result,
        image_of=lambda index: in_photograph(*originals.load(index)),
        facts=facts,
        published=published,
        notes=notes,
        origin=origin_of(faces, data.root, model.mean_shape),
        heatmaps_of=(lambda i: face_heatmaps(model.net, model.spec, loader.dataset[0, i], device, same))
        if heatmaps
        else None,
    )
    print_table(result, published=published, notes=notes)
    log.info(f"report in {report_dir}")
    return result


def _compared(face: Face, same: Correspondence) -> Face:
    """The face with its points that are compared alone: what was measured, for its fingerprint."""
    return replace(face, landmarks_image=np.where(same.compared[:, None], face.landmarks_image, np.nan))


def this_command() -> list[str]:
    """The Hydra job at hand as it was typed, without whose machine it was; empty where there is none."""
    if not HydraConfig.initialized():
        return []
    job = HydraConfig.get()
    return ["facelm", str(job.job.config_name), *shareable(list(job.overrides.task))]


def what_is_known(model: LoadedModel, result: EvaluationResult) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The NME published for the subsets of `result`, by the model's title; and notes, among them what it learned from.

    Numbers of subsets that `result` does not have, such as those of a model's twin, are notes: beside its rows they
    would pass for theirs.
    """
    here = {name: nme for name, nme in model.published.items() if name in result.subsets}
    elsewhere = [f"{name} {nme:g}" for name, nme in model.published.items() if name not in result.subsets]
    notes = list(model.notes)
    if model.card and model.card.data:
        notes.append(f"{model.title} was trained on {model.card.data}")
    if elsewhere:
        notes.append(f"{model.title}, published NME: {', '.join(elsewhere)}")
    return {model.title: here} if here else {}, notes


def compared_points(cfg: DictConfig, model: LoadedModel, typed: Sequence[str]) -> Correspondence | None:
    """Which points of the model those of the scheme that `as` names are; None where it names none.

    Raises:
        FileNotFoundError: no such scheme or file.
        ValueError: nothing says which points are the same, or the faces with those points are not named.
    """
    if cfg["as"] is None:
        return None
    if not names_faces(typed):
        raise ValueError(
            f"as={cfg['as']} says what points the faces have: name these too, with data=NAME data.root=PATH"
        )
    return correspondence(model.spec.landmark_scheme(), str(cfg["as"]))


def spec_changes(cfg: DictConfig) -> dict[str, Any]:
    """The entries of the checkpoint's spec that the config replaces."""
    return {
        key: plain(cfg.codec) if key == "codec" else cfg[key]
        for key in ("flip", "annotation_shift", "codec", "pixel_origin")
        if cfg[key] is not None
    }


def names_faces(typed: Sequence[str]) -> bool:
    """Whether overrides say which faces to measure."""
    return any(key_of(one) in ("data", *(f"data.{key}" for key in FACES)) for one in typed)


def evaluation_data(
    cfg: DictConfig,
    model: LoadedModel,
    typed: Sequence[str],
    local: Sequence[str] = (),
    same: Correspondence | None = None,
) -> FaceDataModule:
    """The data module framed as the checkpoint needs it; `same` where the data have another landmark scheme.

    Where the overrides `typed` name no faces, a run's checkpoint is measured on that run's own (root, lists,
    annotations). `local` are local.yaml's: its `data.root` counts where the run's is not on this machine.

    Raises:
        ValueError: a key was typed that is the checkpoint's affair, or what the checkpoint says of its data is not
            plain.
    """
    own = (*OF_THE_CHECKPOINT, "data.pixel_origin")
    if refused := [one for one in typed if any(f"{key_of(one)}.".startswith(f"{key}.") for key in own)]:
        raise ValueError(f"{refused[0]}: {THE_CHECKPOINT_S}")
    node: dict[str, Any] = plain(cfg.data)
    recorded = {} if names_faces(typed) else recorded_data(model.record)
    if recorded:
        kept = {key_of(one) for one in typed} | {key_of(one) for one in local if not names_faces([one])}
        run = model.path.parent.parent
        if root := recorded_root(run):
            recorded["root"] = root
        elif "data.root" in map(key_of, local) and not Path(recorded.get("root", "")).expanduser().exists():
            recorded.pop("root", None)
        recorded = with_places({key: value for key, value in recorded.items() if f"data.{key}" not in kept}, run)
        node |= {key: value for key, value in recorded.items() if key in node}
        log.info(f"data as in the checkpoint's run: {node['root']}")
    elif "data.hold_out" not in map(key_of, typed):
        node["hold_out"] = 0  # of other data, nobody can say which tenth was held out
    if "pixel_origin" in node:
        node["pixel_origin"] = model.spec.pixel_origin
    data = framed_data(OmegaConf.create(node), replace(model.spec, scheme=same.target) if same else model.spec)
    if recorded and model.faces.get("validated"):
        data.held_out(model.faces["validated"])
    return data


def report_folder(cfg: DictConfig, model: LoadedModel, typed: Sequence[str], *, same_faces: bool = True) -> Path:
    """`report_dir`, else `report/` of the run that the checkpoint belongs to, else this job's output folder.

    What was measured in another way than the run's own (`flip=`, `codec=`, ...), on other faces or faces that were
    named, or of another checkpoint than the run's result does not replace the run's report.
    """
    if cfg.report_dir:
        return Path(cfg.report_dir).expanduser()
    run_dir = model.path.parent.parent
    of_a_run = model.path.parent.name == "checkpoints" and (run_dir / "config.yaml").is_file()
    if (
        of_a_run
        and same_faces
        and not spec_changes(cfg)
        and not names_faces(typed)
        and local_file(run_dir) == model.path
    ):
        return run_dir / "report"
    return Path(HydraConfig.get().runtime.output_dir)


@program
@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="evaluate")
@command_line
def main(cfg: DictConfig) -> None:
    """The Hydra entry."""
    typed = list(HydraConfig.get().overrides.task)
    cfg, local = with_local(cfg)
    device = pick_device(cfg.device)
    model = load_model(cfg.checkpoint, network=own.named(cfg.network), **spec_changes(cfg))
    same = compared_points(cfg, model, typed)
    if not (same or any(key_of(one) == "data" for one in typed)) and (
        (group := recorded_group(model.record)) and group != HydraConfig.get().runtime.choices.get("data")
    ):
        others = [
            one for one in HydraConfig.get().overrides.task if one in typed or not key_of(one).startswith("data.")
        ]
        cfg = hydra.compose(str(HydraConfig.get().job.config_name), overrides=[*others, f"data={group}"])
    with tracked(cfg, Path(HydraConfig.get().runtime.output_dir), job_type="evaluate") as tracker:
        tracker.log_source({"path": model.path, "sha256": model.sha256, "run": model.run})
        data = evaluation_data(cfg, model, typed, local, same)
        data.prepare_data()
        measured = data.evaluation_faces()
        validated = model.validated if cfg.pixel_origin is None else ""  # else their landmarks are read otherwise
        changed = []
        if not names_faces(typed):
            changed = other_faces(*measured, model.faces, validated, data.source.validates[1])
        report_dir = report_folder(cfg, model, typed, same_faces=not changed)
        if not (changed or cfg.report_dir) and report_dir == model.path.parent.parent / "report":
            changed = unlike_report(report_dir, *measured, data.originals(measured[0]).content)
            report_dir = report_folder(cfg, model, typed, same_faces=not changed)
        if changed:
            log.warning(f"the data have changed since the run: {'; '.join(changed)}. Its own report stays as it is")
        if not measured[0]:
            raise FileNotFoundError(
                f"nothing to evaluate under {data.root}: {changed[0]}. Name faces: data.val_list=FILE"
            )
        evaluate(model, data, device, report_dir, measured, same, heatmaps=cfg.report.heatmaps)
        tracker.log_report(report_dir, drawn=is_drawn(data.root))


if __name__ == "__main__":
    main()
