"""Weights & Biases: `logger=wandb`. Online with a key, else offline; never a question, never in training's way.

Everything shown there is read from the run folder, so it is there as CSV, Markdown, JSON and PNG too.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from facelm.geometry.affine import Image
from facelm.loggers.server import offline_because
from facelm.loggers.tracker import RunPlan, Tracker
from facelm.loggers.wandb_report import data_artifact, face_pictures, report_items, report_scores
from facelm.models.download import sha256
from facelm.models.spec import read_facelm_checkpoint

log = logging.getLogger(__name__)

MODES = ("online", "offline", "disabled")
LONGEST_TAG, LONGEST_NAME = 64, 128  # what the server takes
STEP = "trainer/global_step"


class WandbTracker(Tracker):
    """A W&B run, with its own files under RUN/wandb.

    `group` is by default the sweep, `job_type` train or evaluate, `name` the experiment with short overrides, `id` that
    of the run that is resumed. `tags` are added to the experiment, the overrides and the run's own tags. `mode` null
    means WANDB_MODE, or else online; whatever it is, a run without a key or without an answer from the server is
    offline. `checkpoints` uploads best.ckpt and last.ckpt; `pictures` shows faces that are not drawn, too.
    `finish_timeout` is how many seconds the end of a run waits for its upload.

    Nothing that goes wrong with W&B ends a run: it is logged as a warning.

    Raises:
        ValueError: an unknown mode.
    """

    def __init__(
        self,
        *,
        project: str,
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
        id: str | None = None,
        mode: str | None = None,
        checkpoints: bool = True,
        pictures: bool = False,
        init_timeout: float = 60.0,
        finish_timeout: float = 300.0,
    ) -> None:
        if mode not in (None, *MODES):
            raise ValueError(f"logger.wandb.mode is one of {', '.join(MODES)} or null, got {mode!r}")
        self._given: dict[str, Any] = {"project": project, "entity": entity, "notes": notes}
        self._group, self._job_type, self._name, self._tags, self._id = group, job_type, name, tuple(tags), id
        self._mode = mode
        self._checkpoints, self._pictures = checkpoints, pictures
        self._init_timeout, self._finish_timeout = init_timeout, finish_timeout
        self._run: Any = None
        self._scores: dict[str, float] = {}
        self._environment: dict[str, str | None] = {}

    # --- Opening and closing ----------------------------------------------------------------------------------------

    def start(self, plan: RunPlan) -> None:
        """Opens the run: online if it can be, else offline, and says which."""
        super().start(plan)
        asked = self._mode or os.environ.get("WANDB_MODE")
        if asked == "disabled":
            return
        self._put_folders_into(plan.folder.resolve() / "wandb")
        with _harmless("the run is not recorded"):
            self._open(plan, asked)
        if self._run is None:
            return
        with _harmless("the run lacks its config"):
            self._run.config.update(dict(plan.config), allow_val_change=True)
            self._run.define_metric(STEP)
            self._run.define_metric("*", step_metric=STEP, step_sync=True)
            self._run.define_metric("val/nme", step_metric=STEP, step_sync=True, summary="min")

    def _open(self, plan: RunPlan, asked: str | None) -> None:
        import wandb  # takes seconds: only for runs that use it

        known = wandb.setup().settings
        asked = asked or known.mode
        reason = "as asked" if asked in ("offline", "dryrun") else offline_because(known.base_url)
        if not reason:
            try:
                self._run = self._init(plan, "online")
            except Exception as error:  # a refused key, a server that stops answering: the run goes on without it
                reason = " ".join(str(error).split())[:200]
        if self._run is None:
            self._run = self._init(plan, "offline")
            log.info(f"W&B is offline ({reason}). To upload the run: wandb sync {Path(self._run.dir).parent}")
        else:
            log.info(f"W&B: {self._run.url}")

    def _init(self, plan: RunPlan, mode: Literal["online", "offline"]) -> Any:
        import wandb

        short = plan.short_overrides()
        run_id = self._id or plan.resumed.get("id")
        if run_id is None and plan.sweep:
            run_id = uuid4().hex[:8]  # a WANDB_RUN_ID would make one run of all jobs
        return wandb.init(
            **self._given,
            dir=plan.folder.resolve(),
            group=self._group or plan.sweep,
            job_type=self._job_type or plan.job_type,
            name=(self._name or _name(plan.experiment, short))[:LONGEST_NAME],
            tags=list(
                dict.fromkeys(tag[:LONGEST_TAG] for tag in (plan.experiment, *short, *plan.tags, *self._tags) if tag)
            ),
            id=run_id,
            resume="allow" if mode == "online" and run_id else None,
            mode=mode,
            settings=wandb.Settings(
                quiet=True,
                silent=mode == "offline",  # `start` says it, once
                reinit="create_new",  # a run that is open already, in a notebook say, is not ours
                disable_git=True,  # facts.json has facelm's commit; wandb would record the current folder's
                x_disable_meta=True,  # host, user, program and the command line, keys in its addresses included
                host="",
                program="facelm",
                init_timeout=self._init_timeout,
                finish_timeout=self._finish_timeout,
            ),
        )

    def finish(self, exit_code: int) -> None:
        """Closes the run as finished (0) or failed, waiting for its upload at most `finish_timeout` seconds."""
        try:
            if self._run is not None:
                with _harmless("the run was not closed"):
                    self._close(exit_code)
        finally:
            self._run = None
            self._put_folders_back()

    def _close(self, exit_code: int) -> None:
        import wandb

        begin, limit = time.monotonic(), self._finish_timeout
        broken = True
        try:
            self._run.finish(exit_code=exit_code)
            broken = False
        finally:
            # The next job of a sweep gets a service of its own, with its own folders.
            if broken or wandb.setup().most_recent_active_run is None:
                wandb.teardown()
        if not self._run.offline and time.monotonic() - begin > limit:
            log.warning(f"W&B: not all was uploaded in {limit:g} s. The rest: wandb sync {Path(self._run.dir).parent}")

    def _put_folders_into(self, folder: Path) -> None:
        for name in ("DATA", "ARTIFACT", "CACHE"):
            variable = f"WANDB_{name}_DIR"
            self._environment[variable] = os.environ.get(variable)
            os.environ.setdefault(variable, str(folder / name.lower()))

    def _put_folders_back(self) -> None:
        for variable, value in self._environment.items():
            if value is None:
                os.environ.pop(variable, None)
        self._environment = {}

    # --- What is logged ---------------------------------------------------------------------------------------------

    def loggers(self) -> list[Logger]:
        """metrics.csv and the run."""
        if self._run is None:
            return super().loggers()
        return [*super().loggers(), _HarmlessWandbLogger(self._run, self.folder)]

    def identity(self) -> dict[str, str]:
        """id, project, entity, and the name of the artifact that will hold the checkpoints."""
        if self._run is None:
            return {}
        run = self._run
        names = {"id": run.id, "project": run.project, "entity": run.entity, "artifact": f"model-{run.id}"}
        return {"tracker": "wandb", **{key: str(value) for key, value in names.items() if value}}

    def log_facts(self, facts: Mapping[str, Any]) -> None:
        """Adds them to the config as `facts`."""
        if self._run is not None:
            with _harmless("the run lacks its facts"):
                self._run.config.update({"facts": dict(facts)}, allow_val_change=True)
            if data := facts.get("data"):
                with _harmless("the run does not name its faces"):
                    self._run.log_artifact(data_artifact(data))

    def shows_faces(self, *, drawn: bool) -> bool:
        """Drawn ones; others with `pictures`."""
        return self._run is not None and (drawn or self._pictures)

    def log_faces(self, pictures: Sequence[Image], captions: Sequence[str], step: int, *, drawn: bool) -> None:
        """`val/faces`, which moves with the slider of the steps."""
        if self.shows_faces(drawn=drawn):
            with _harmless("the faces were not shown"):
                self._run.log({**face_pictures(pictures, captions), STEP: step})

    def log_report(self, folder: Path, *, drawn: bool = False) -> None:
        """The table, curves, bars, page, and faces where these are shown; the scores also as `test/SUBSET/SCORE`."""
        if self._run is not None:
            with _harmless("the report was not logged"):
                self._run.log(report_items(folder, pictures=drawn or self._pictures))
                self._scores = report_scores(folder)
                self._run.summary.update(self._scores)

    def log_checkpoints(self, folder: Path, nme: Mapping[str, float]) -> None:
        """The artifact model-ID with a version for each of best and last, or one with both aliases if they are one.

        A run without validation has no best.
        """
        if self._run is None or not self._checkpoints:
            return
        with _harmless("the checkpoints were not logged"):
            found = [alias for alias in ("last", "best") if (folder / f"{alias}.ckpt").is_file()]
            facts = {alias: _checkpoint_facts(folder / f"{alias}.ckpt") for alias in found}
            if "best" in facts:
                facts["best"] |= {name: score for name, score in self._scores.items() if name.endswith("/nme")}
            same = len(found) == 2 and facts["best"]["global_step"] == facts["last"]["global_step"]
            for alias in ["best"] if same else found:
                self._log_checkpoint(
                    folder / f"{alias}.ckpt",
                    ["best", "last"] if same else [alias],
                    {"val/nme": nme.get(alias), **facts[alias]},
                )

    def _log_checkpoint(self, path: Path, aliases: list[str], metadata: dict[str, Any]) -> None:
        import wandb

        artifact = wandb.Artifact(self.identity()["artifact"], type="model", metadata=metadata)
        # The file is done; a copy of it in wandb's own folders, a hundred megabytes a run, would gain nothing.
        artifact.add_file(str(path.resolve()), name="model.ckpt", policy="immutable", skip_cache=True)
        self._run.log_artifact(artifact, aliases=aliases)

    def log_source(self, checkpoint: Mapping[str, Any]) -> None:
        """Name, path and sha256 of the checkpoint go into the config; online, the run is linked to its artifact."""
        if self._run is None:
            return
        origin = checkpoint.get("run") or {}
        name = origin.get("artifact") or Path(checkpoint["path"]).name
        facts = {"name": name, "sha256": checkpoint["sha256"]}
        with _harmless("the run lacks its checkpoint's name"):
            self._run.config.update({"source": facts}, allow_val_change=True)
        if self._run.offline or "artifact" not in origin:  # offline, use_artifact raises
            return
        with _harmless(f"the run is not linked to the artifact {name}"):
            import wandb

            place = "/".join(origin[key] for key in ("entity", "project", "artifact") if key in origin)
            artifact = wandb.Api(timeout=10).artifact(f"{place}:{Path(checkpoint['path']).stem}")
            if artifact.metadata.get("sha256") != checkpoint["sha256"]:
                raise ValueError(f"it holds another file than {checkpoint['path']}")
            self._run.use_artifact(artifact)


def _name(experiment: str, overrides: list[str]) -> str:
    """The experiment and its overrides, without the longest ones if there is no room for all."""
    parts = list(overrides)
    while parts and len(" ".join([experiment, *parts])) > LONGEST_NAME:
        parts.remove(max(parts, key=len))
    return " ".join([experiment, *parts])


def _checkpoint_facts(path: Path) -> dict[str, Any]:
    """Epoch, optimizer steps and SHA-256 of a checkpoint."""
    content = read_facelm_checkpoint(path)
    return {"epoch": content["epoch"], "global_step": content["global_step"], "sha256": sha256(path)}


@contextmanager
def _harmless(consequence: str) -> Iterator[None]:
    """Turns whatever goes wrong with W&B into a warning: no dashboard is worth a training."""
    try:
        yield
    except Exception as error:
        log.warning(f"W&B: {consequence} ({type(error).__name__}: {error})")


class _HarmlessWandbLogger(WandbLogger):
    """Lightning's logger on a run that is open; after the first error it logs nothing more."""

    def __init__(self, run: Any, folder: Path) -> None:
        super().__init__(experiment=run, project=run.project, save_dir=folder)
        self._works = True

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs `metrics` at `step`."""
        if self._works:
            self._works = False
            with _harmless("nothing more is logged"):
                super().log_metrics(metrics, step)
                self._works = True
