"""An experiment: what is trained, what may be varied, and what counts as better."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hfsuite.errors import ConfigurationError, TrialFailed, UnknownName, did_you_mean
from hfsuite.search.groups import check_groups, check_names, drawn_in
from hfsuite.search.spaces import OnlyWhere, check_only_where, check_space
from hfsuite.search.values import type_fault
from hfsuite.sweeps import in_words
from hfsuite.sweeps.launching import launch
from hfsuite.tracking import declared
from hfsuite.trainers.examination import Test
from hfsuite.trainers.seeds import SETTING
from hfsuite.trainers.training import HuggingFaceTrainer

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from hfsuite.search.searchers import AnySearcher
    from hfsuite.sweeps.confirm import Confirmation
    from hfsuite.sweeps.result import SweepResult, TrialResult
    from hfsuite.trials.policy import Decisions, Isolation


NAME_LIMIT = 100  # characters of an experiment's name: the folders of its sweeps have longer ones


@dataclass(frozen=True, kw_only=True, repr=False)
class Experiment:
    """A trainer with a search space and an objective. Declare one in a module, as `experiment`.

    Args:
        name: what its sweeps and its MLflow experiment are called.
        trainer: what a trial runs. Its `scaling_config` says how many workers a trial has unless told otherwise.
        space: from the names of settings to Ray Tune domains (`tune.loguniform(...)`), or constants.
        only_where: settings of the space that count only where others have certain values, and keep their default value
            elsewhere: `{"warmup_ratio": {"lr_scheduler_type": ["linear", "cosine"]}}`. For the searchers with names of
            Optuna's; Ray Tune's own draw every setting each time.
        metric: the reported number to optimise.
        mode: "min" or "max".
        defaults: every setting that the training function takes, with its default value, whose type is the setting's.
            A setting called `seed` gets the trial's seed, which follows from the sweep's and the trial's number.
        progress: reported numbers to show while a sweep runs, besides the metric.
        test: rates a checkpoint on data that no search may see: gets it and the trial's settings, and returns numbers,
            the metric's among them. `hfsuite confirm` has it called in a rank of the trial.

    Raises:
        ConfigurationError: the parts do not fit together; all mistakes are named.
    """

    name: str
    trainer: HuggingFaceTrainer
    space: Mapping[str, Any]
    metric: str
    mode: Literal["min", "max"]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    only_where: OnlyWhere = field(default_factory=dict)
    progress: Sequence[str] = ()
    test: Test | None = None
    module: str = field(default_factory=lambda: _calling_module())

    def __post_init__(self) -> None:
        faults = check_declaration(self)
        if not faults or (isinstance(self.space, Mapping) and isinstance(self.defaults, Mapping)):
            faults += dict.fromkeys([*check_names(self.space), *check_names(self.defaults)])
            faults += check_groups(self.space, self.defaults)
            whole = {name: domain for name, domain in self.space.items() if not check_groups({name: domain}, {})}
            faults += check_space(whole, self.defaults)
            faults += check_only_where(self.only_where, self.space, self.defaults)
            if isinstance(self.trainer, HuggingFaceTrainer):
                faults += _not_taken(self.trainer, self.defaults)
        if faults:
            raise ConfigurationError([f"Experiment {str(self.name)[:NAME_LIMIT]!r}: {fault}" for fault in faults])

    def __repr__(self) -> str:
        return in_words.of_experiment(self)

    def sweep(
        self,
        *,
        trials: int = 10,
        searcher: str | AnySearcher = "tpe",
        trial_scheduler: str | TrialScheduler = "asha",
        workers: int | None = None,
        gpu: bool | float | None = None,
        set: Mapping[str, Any] | None = None,
        seed: int = 0,
        name: str | None = None,
        storage: str | os.PathLike[str] = "results",
        isolation: Isolation = "warm",
        decisions: Decisions = "awaited",
        stop_grace_s: float = 10.0,
        trials_per_group: int | None = None,
        memory_limit_gb: float = 1.5,
        keep: str = "best",
        deterministic: bool | None = None,
        try_defaults: bool = True,
    ) -> SweepResult:
        """Searches. Returns when all trials have ended. Driver; of several threads one after another.

        Args:
            trials: how many configurations to try; where the space lists values with `grid_search`, all are tried.
            searcher: what to try next: "tpe", "random", "qmc", "gp", "cmaes", "grid", or a searcher of Ray Tune's.
            trial_scheduler: what to stop: "asha", "median", "fifo", or a trial scheduler of Ray Tune's.
            workers: workers a trial; None for the trainer's.
            gpu: whether each worker has a GPU, or the part of one that it takes: with 0.5, two trials run on each. None
                for the trainer's.
            set: settings to fix; one that the space varies is then not varied.
            seed: of the searcher, and of all trials: see `hfsuite.trainers.seeds`.
            name: of the sweep; must be new in `storage`.
            storage: a folder, or a URI that Ray can write to.
            isolation: "warm": a trial leaves its workers to the next; "process": every trial has new ones.
            decisions: "awaited": ranks wait in each report for the trial scheduler's answer; "pipelined": they go on,
                and learn of it in their next report.
            stop_grace_s: seconds that a stopped training function has to unwind before its workers are killed.
            trials_per_group: workers are replaced after so many trials; None for no limit.
            memory_limit_gb: gigabytes that a trial may leave in a worker; one that holds more is replaced.
            keep: which checkpoints stay: "best" (the best one of the three best trials, and the last of each trial that
                may be taken up again), "best:5", "all", "none", or "reference" (as "best", and MLflow points to them
                instead of holding them; for storage that whoever loads a model can read).
            deterministic: whether PyTorch shall compute the same bits each time; by default on CPUs, where a step
                takes 1.015 times as long.
            try_defaults: whether the first trial has the default settings, with the searchers whose names are Optuna's.

        Raises:
            ConfigurationError: something asked for cannot be; all mistakes are named, and nothing was started.
            TrackingError: the MLflow store cannot be used.
            MetricNotReported: the first report has no such metric.
        """
        from hfsuite.sweeps.sweep import run_sweep

        launch(self)
        return run_sweep(
            self,
            trials=trials,
            searcher=searcher,
            trial_scheduler=trial_scheduler,
            workers=workers,
            gpu=gpu,
            fixed=set or {},
            seed=seed,
            name=name,
            storage=storage,
            worker_policy={
                "isolation": isolation,
                "decisions": decisions,
                "stop_grace_s": stop_grace_s,
                "trials_per_group": trials_per_group,
                "memory_limit_gb": memory_limit_gb,
            },
            keep=keep,
            deterministic=deterministic,
            try_defaults=try_defaults,
        )

    def resume(
        self,
        sweep: str | None = None,
        *,
        storage: str | os.PathLike[str] = "results",
        searcher: AnySearcher | None = None,
        trial_scheduler: TrialScheduler | None = None,
        retry_failed: bool = False,
    ) -> SweepResult:
        """Takes an interrupted sweep up again: finished trials stay, others go on from their last checkpoint. Driver.

        Args:
            sweep: its name; by default the newest of this experiment in `storage` that has not completed.
            storage: where it is.
            searcher: one like the sweep's own, if that was an object and not a name. Ray Tune restores its state.
            trial_scheduler: likewise; it begins anew, since Ray Tune does not save it.
            retry_failed: whether failed trials are tried again.

        Raises:
            ConfigurationError: there is no such sweep, it is being run, or it was asked to do what cannot be any more.
            TrackingError: the MLflow store cannot be used.
        """
        from hfsuite.sweeps.finding import find_directory
        from hfsuite.sweeps.sweep import resume_sweep

        launch(self)
        directory, found = find_directory(sweep, os.fspath(storage), experiment=self.name)
        return resume_sweep(
            self, directory, found, searcher=searcher, trial_scheduler=trial_scheduler, retry_failed=retry_failed
        )

    def train(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        workers: int | None = None,
        gpu: bool | float | None = None,
        seed: int = 0,
        name: str | None = None,
        storage: str | os.PathLike[str] = "results",
        deterministic: bool | None = None,
    ) -> TrialResult:
        """Trains once, with `config` over the default values; tracked as a trial is. Driver.

        Raises:
            TrialFailed: the training failed; with the rank's traceback.
            ConfigurationError, TrackingError, MetricNotReported: as for `sweep`.
        """
        from hfsuite.sweeps.sweep import run_training

        launch(self)
        trial = run_training(
            self, fixed=config or {}, workers=workers, gpu=gpu, seed=seed, name=name, storage=storage,
            deterministic=deterministic,
        )  # fmt: skip
        if trial.failure is not None:
            raise TrialFailed(trial.failure)
        return trial

    def confirm(self, sweep: str, *, top: int = 3, seeds: int = 5, **options: Any) -> Confirmation:
        """Trains a sweep's finalists with the same fresh seeds and tests them. See `hfsuite.sweeps.confirm`. Driver.

        Args:
            sweep: its name, or the id of its run.
            top: how many of the best trials.
            seeds: how many seeds at most.
            options: `workers`, `gpu`, `storage` and `name`, as for `sweep`.

        Raises:
            UnknownName: MLflow has no such sweep.
            ConfigurationError: it cannot be done, with every reason.
        """
        from hfsuite.sweeps.confirm import confirm
        from hfsuite.tracking import runs, store

        launch(self)
        client = store.open_store()
        if (parent := runs.find_sweep(client, sweep)) is None:
            raise UnknownName(f"MLflow has no sweep {sweep!r}. {did_you_mean(sweep, runs.sweep_names(client))}")
        return confirm(client, parent, self, top=top, seeds=seeds, **options)

    def setting_faults(self, values: Mapping[str, Any]) -> list[str]:
        """What is wrong with values for this experiment's settings; empty if nothing is."""
        faults = []
        for name, value in values.items():
            if name not in self.defaults:
                faults.append(f"{self.name} has no setting {name!r}. {did_you_mean(name, self.defaults)}")
            elif inside := drawn_in(name, value) or check_names({name: value}):
                faults += inside
            elif fault := type_fault(name, value, self.defaults[name]) or seed_fault(name, value):
                faults.append(fault)
        return faults


def check_declaration(experiment: Experiment) -> list[str]:
    """What is wrong with the parts of a declaration, each for itself; empty if nothing is."""
    faults, name = [], experiment.name
    if not isinstance(name, str) or not name or any(character in name for character in "/\\:'\""):
        faults.append(f"An experiment's name is used for folders, so it cannot be {name!r}.")
    elif len(name) > NAME_LIMIT:
        faults.append(f"An experiment's name is used for folders: at most {NAME_LIMIT} characters, got {len(name)}.")
    if not isinstance(experiment.trainer, HuggingFaceTrainer):
        faults.append(f"trainer must be a TransformersTrainer or an AccelerateTrainer, got {experiment.trainer!r}.")
    if not isinstance(experiment.metric, str) or not experiment.metric:
        faults.append(f"metric must be the name of one reported number, got {experiment.metric!r}.")
    if experiment.mode not in ("min", "max"):
        faults.append(f"mode must be 'min' or 'max', got {experiment.mode!r}.")
    for part in ("space", "defaults"):
        if not isinstance(value := getattr(experiment, part), Mapping):
            faults.append(f"{part} must be a dict from the names of settings to their values, got {value!r}.")
    progress = experiment.progress
    if isinstance(progress, str) or not (
        isinstance(progress, Sequence) and all(isinstance(each, str) for each in progress)
    ):
        faults.append(f"progress must be a list of names of reported numbers, got {progress!r}.")
    if experiment.test is not None and not callable(experiment.test):
        faults.append(f"test must be a function of a checkpoint and the settings, got {experiment.test!r}.")
    if isinstance(experiment.defaults, Mapping) and (fault := seed_fault(SETTING, experiment.defaults.get(SETTING))):
        faults.append(fault)
    return faults


def seed_fault(name: str, value: Any) -> str | None:
    """A sentence if a value cannot be a seed, of a setting that is one."""
    is_negative = name == SETTING and isinstance(value, int) and value < 0
    return f"A seed is a whole number from 0, got {value}." if is_negative else None


def _not_taken(trainer: HuggingFaceTrainer, defaults: Mapping[str, Any]) -> list[str]:
    """Settings that the training function of a TransformersTrainer, which gets them as keywords, does not accept."""
    if trainer.config_argument != "trainer_init_config":
        return []
    parameters = list(inspect.signature(trainer.function).parameters.values())
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return []
    taken = {parameter.name for parameter in parameters[2:]}
    function = getattr(trainer.function, "__name__", "the training function")
    return [f"{function} does not take the setting {name!r}." for name in defaults if name not in taken]


def _calling_module() -> str:
    """What declares the experiment: a module, or a program by its file's name; see `hfsuite.tracking.declared`."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") in (__name__, "dataclasses"):
        frame = frame.f_back
    module = frame.f_globals if frame else {}
    spec, name = module.get("__spec__"), str(module.get("__name__", ""))
    if spec is not None:
        return str(spec.name)
    return declared.name_of_main() if name == declared.MAIN else name
