"""Optuna as a Hydra sweeper: `sweep=optuna`. Hydra finds sweepers in the namespace `hydra_plugins` only.

hydra-optuna-sweeper 1.3 is tied to Optuna 2, and repeats its points when a seeded study is called again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from facelm.addresses import public
from facelm.files import take_lock
from facelm.launch.jobs import is_killed, own_process, read_record

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

ATTEMPTS = 200
"""How often a point that was tried before is drawn again before the space counts as exhausted."""

NAMELESS = timedelta(minutes=1)
"""A trial that nobody has put a name to for so long is of a search that was killed just as it asked."""

OPTIONS = {  # conf/sweep/optuna.yaml explains them
    "_target_": "hydra_plugins.facelm_optuna.OptunaSweeper",
    "n_trials": 20,
    "n_jobs": 1,
    "storage": None,
    "study": "facelm",
    "seed": None,
    "params": {},
}
ConfigStore.instance().store(group="hydra/sweeper", name="facelm_optuna", node=OPTIONS, provider="facelm")


class SearchError(CompactHydraException, ValueError):
    """A search that cannot be done as asked; Hydra shows the message alone."""


class OptunaSweeper(Sweeper):
    """Runs `n_trials` jobs whose parameters Optuna chooses to minimise what the job returns.

    A job that fails, or returns no finite number, is a failed trial and the sweep goes on. A point that the study
    has tried is not tried again.

    Raises:
        SearchError: nothing to search, no trials, an override that Optuna cannot draw from, no trial that came to a
            result, or no Optuna.
    """

    def __init__(
        self,
        n_trials: int,
        n_jobs: int = 1,
        storage: str | None = None,
        study: str = "facelm",
        seed: int | None = None,
        params: Mapping[str, str] | None = None,
    ) -> None:
        if n_trials < 1 or n_jobs < 1:
            raise SearchError(f"hydra.sweeper.n_trials and n_jobs are at least 1, got {n_trials} and {n_jobs}")
        self.n_trials, self.n_jobs = n_trials, n_jobs
        self.storage, self.study_name, self.seed = storage, study, seed
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.config: DictConfig = config
        self.hydra_context: HydraContext = hydra_context
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> None:
        """Runs the trials; the best one is logged, and all are in the storage and in sweep.md."""
        fixed, space = self._split(arguments)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        study = self._open_study(folder)
        first_job = 1 + max((int(path.name) for path in folder.iterdir() if path.name.isdigit()), default=-1)
        done = 0
        while done < self.n_trials:
            trials = self._ask(study, space, min(self.n_jobs, self.n_trials - done))
            if not trials:
                log.warning(f"every point of the search space was tried: {done} trials instead of {self.n_trials}")
                break
            self._run(study, trials, fixed, first_job + done)
            done += len(trials)
        self._report(study)

    def _split(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
        """What all jobs share, and what Optuna draws: name -> distribution. The command line wins over the config."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        typed = parser.parse_overrides(list(arguments))
        keys = {override.get_key_element() for override in typed}
        configured = parser.parse_overrides([f"{key}={value}" for key, value in self.params.items()])
        chosen = [*(override for override in configured if override.get_key_element() not in keys), *typed]
        fixed = [str(override.input_line) for override in chosen if not override.is_sweep_override()]
        space = {o.get_key_element(): distribution(o) for o in chosen if o.is_sweep_override()}
        if not space:
            raise SearchError("nothing to search: give hydra.sweeper.params, or KEY=interval(...) on the command line")
        return fixed, space

    def _open_study(self, folder: Path) -> Study:
        optuna = _import_optuna()
        storage = self.storage or str(folder / "optuna.db")
        if "://" not in storage:
            path = Path(storage).expanduser().absolute()
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.with_name(f".{path.name}.lock").open("a", encoding="utf-8") as lock:
                take_lock(lock)  # of two searches that start at once, one makes the tables
                study = self._study(f"sqlite:///{path}")
        else:
            study = self._study(storage)
        _settle(study)
        known = len(study.trials)
        # A seeded sampler starts the same way each time: without `+ known` a second call would repeat the first.
        seed = None if self.seed is None else self.seed + known
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=self.n_jobs > 1)
        log.info(f"study {self.study_name!r} in {public(storage)}: {known} trials, {self.n_trials} to come")
        return study

    def _study(self, storage: str) -> Study:
        study: Study = _import_optuna().create_study(
            storage=storage, study_name=self.study_name, direction="minimize", load_if_exists=True
        )
        return study

    def _ask(self, study: Study, space: Mapping[str, Any], count: int) -> list[Trial]:
        """`count` trials at points that the study has not tried; fewer if there are none left."""
        optuna = _import_optuna()
        tried = {_point(trial.params) for trial in study.trials if trial.params}
        trials: list[Trial] = []
        chooses, anything = study.sampler, optuna.samplers.RandomSampler(seed=self.seed)
        for _ in range(ATTEMPTS):
            if len(trials) == count:
                break
            trial = study.ask(dict(space))
            trial.set_user_attr("searched_by", own_process())
            if new := _point(trial.params) not in tried:
                tried.add(_point(trial.params))
                trials.append(trial)
            else:  # among few points the sampler comes back to the best one; then any other will do
                trial.set_user_attr("repeats", True)
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            study.sampler = chooses if new else anything
        study.sampler = chooses
        return trials

    def _run(self, study: Study, trials: Sequence[Trial], fixed: list[str], first_job: int) -> None:
        jobs = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in trials]
        for number, trial in enumerate(trials, start=first_job):
            trial.set_user_attr("job", number)
            trial.set_user_attr("folder", str(Path(self.config.hydra.sweep.dir).absolute() / str(number)))
        values: list[float | None] = [None] * len(trials)
        try:
            self.validate_batch_is_legal(jobs)
            returns = self.launcher.launch(jobs, initial_job_idx=first_job)
            values = [_value(job) for job in returns]
        finally:  # also when the sweep is stopped: no trial is left running for ever, and finished jobs count
            for trial, value in zip(trials, values, strict=True):
                if value is None:
                    _tell(study, trial)
                else:
                    study.tell(trial, value)

    def _report(self, study: Study) -> None:
        optuna = _import_optuna()
        complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
        without = study.get_trials(states=(optuna.trial.TrialState.FAIL,))
        failed = sum("repeats" not in trial.user_attrs for trial in without)
        if not complete:
            raise SearchError(f"none of the {failed} trials came to a result; their folders say why")
        best = study.best_trial
        point = " ".join(f"{key}={value}" for key, value in best.params.items())
        log.info(f"best of {len(complete)} trials ({failed} failed): {best.value:.4f} with {point}")


def _settle(study: Study) -> None:
    """Tells the study what became of the trials of a search that was killed: their jobs may have finished."""
    optuna = _import_optuna()
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        search = trial.user_attrs.get("searched_by")
        asked = trial.datetime_start or datetime.min
        nobody = search is None and datetime.now() - asked > NAMELESS
        if nobody or is_killed({"status": "running", **(search or {})}):
            _tell(study, trial)


def _tell(study: Study, trial: Trial | FrozenTrial) -> None:
    """Ends a trial with what its job's folder says that it came to."""
    record = read_record(Path(str(trial.user_attrs.get("folder", ""))))
    value = record.get("val_nme") if record.get("status") == "finished" else None
    if value is not None and math.isfinite(value):
        study.tell(trial.number, float(value))
    else:
        study.tell(trial.number, state=_import_optuna().trial.TrialState.FAIL)


def distribution(override: Override) -> BaseDistribution:
    """What Optuna draws from for `override`: Hydra's choice, range or interval, with the tags `log` and `int`.

    Raises:
        SearchError: anything else.
    """
    _import_optuna()
    from optuna import distributions as draws

    sweep = override.value()
    if override.is_discrete_sweep():
        return draws.CategoricalDistribution(list(override.sweep_string_iterator()))
    if isinstance(sweep, IntervalSweep) and sweep.start is not None and sweep.end is not None:
        if "int" in sweep.tags:
            return draws.IntDistribution(int(sweep.start), int(sweep.end), log="log" in sweep.tags)
        return draws.FloatDistribution(float(sweep.start), float(sweep.end), log="log" in sweep.tags)
    raise SearchError(f"{override.input_line}: Optuna draws from choice(), range() and interval()")


def _value(job: JobReturn) -> float | None:
    """What the job returned, if it is a number to compare; a failure is logged."""
    if job.status != JobStatus.COMPLETED:
        log.warning(f"trial failed: {' '.join(job.overrides or [])}: {job._return_value}")
        return None
    value = job.return_value
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _point(params: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, repr(value)) for key, value in params.items()))


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise SearchError("sweep=optuna needs optuna: pip install 'facelm[sweep]'") from error
    return optuna
