"""What a sweep needs to start, checked: no trial is started and no run recorded before all of it is right. Driver."""

from __future__ import annotations

import copy
import functools
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.fs
import ray
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler

from hfsuite.errors import ConfigurationError, TrackingError
from hfsuite.search.own_choices import OwnChoices
from hfsuite.search.searchers import SAMPLERS, AnySearcher, check_searcher
from hfsuite.search.spaces import OnlyWhere, can_count, constants_of, describe, grid_size, outside
from hfsuite.search.trial_schedulers import check_trial_scheduler, make_trial_scheduler
from hfsuite.sweeps import cluster, tune_state
from hfsuite.tracking import keeping, provenance, rank_logs, store
from hfsuite.tracking.lock import DriverLock
from hfsuite.tracking.provenance import without_credentials
from hfsuite.tracking.record import OWN_FOLDER, SweepDirectory, SweepRecord, TrialRecord
from hfsuite.tracking.recorder import Recorder
from hfsuite.tracking.state import TrialState
from hfsuite.tracking.sync import mark_lost
from hfsuite.tracking.writer import Writer
from hfsuite.trainers.datasets import is_streamed
from hfsuite.trainers.examination import Examination
from hfsuite.trainers.own_values import is_written
from hfsuite.trainers.seeds import SETTING, SeedRule
from hfsuite.trainers.training import HuggingFaceTrainer
from hfsuite.trials import resources
from hfsuite.trials.head_start import HeadStart
from hfsuite.trials.policy import WorkerPolicy
from hfsuite.trials.trainable import TrainingTrial, trainable_for

if TYPE_CHECKING:
    from ray.train import ScalingConfig

    from hfsuite.sweeps.experiment import Experiment

FINEST = 10_000  # parts of a GPU that Ray tells apart


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a sweep needs to start, checked."""

    experiment: Experiment
    record: SweepRecord
    directory: SweepDirectory
    known: Mapping[str, TrialRecord]
    storage: str
    trainer: HuggingFaceTrainer
    lock: DriverLock
    writer: Writer
    space: Mapping[str, Any]
    only_where: OnlyWhere
    conditions: OnlyWhere
    constants: Mapping[str, Any]
    choices: OwnChoices
    trials: int
    seed: int
    seeds: SeedRule
    searcher: str | AnySearcher
    trial_scheduler: TrialScheduler
    worker_policy: WorkerPolicy
    keep: str
    tries_defaults: bool  # first of all
    trainable: type[TrainingTrial]
    head_start: HeadStart
    reports: int | None  # after which a trial ends
    former: SweepRecord | None  # of a sweep that is taken up again: as it stood
    retry_failed: bool


def checked_plan(
    experiment: Experiment,
    *,
    kind: str,
    space: Mapping[str, Any],
    trials: int,
    workers: int | None,
    gpu: bool | float | None,
    fixed: Mapping[str, Any],
    seed: int,
    name: str | None,
    storage: str | os.PathLike[str],
    searcher: str | AnySearcher,
    trial_scheduler: str | TrialScheduler,
    worker_policy: Mapping[str, Any],
    keep: str,
    deterministic: bool | None,
    try_defaults: bool,
    known_faults: Sequence[str],
    confirms: tuple[str, str] | None = None,
    conditions: OnlyWhere | None = None,
    reports: int | None = None,
    reproduces: str | None = None,
    resumed: SweepRecord | None = None,
    retry_failed: bool = False,
) -> Plan:
    """Checks all that was asked for before a trial is started or a run recorded, and names every mistake at once.

    The sweep's directory is the caller's alone, from now until it releases the plan's lock. The arguments are those of
    `Experiment.sweep`, `confirms` and `conditions` are those of `run_sweep`, and `reports` and `reproduces` those of
    `run_training`.
    """
    fixed = OwnChoices.of(experiment.space, experiment.defaults).read(fixed)
    choices = OwnChoices.of(experiment.space, experiment.defaults, fixed)
    asked = {
        "trials": trials, "workers": workers, "gpu": gpu, "fixed": fixed, "seed": seed, "storage": str(storage),
        "searcher": searcher if isinstance(searcher, str) else None,
        "trial_scheduler": trial_scheduler if isinstance(trial_scheduler, str) else None,
        "worker_policy": dict(worker_policy), "keep": keep, "deterministic": deterministic,
        "try_defaults": try_defaults,
        "not_written": [name for name, value in fixed.items() if not is_written(value)],
    }  # fmt: skip
    faults = [*known_faults, *experiment.setting_faults(fixed)]
    if trials < 1:
        faults.append(f"The number of trials must be at least 1, got {trials}.")
    if seed < 0:
        faults.append(f"A seed is a whole number from 0, got {seed}.")
    if name is not None and not re.fullmatch(r"[\w.@+=-]+", name):
        faults.append(f"A sweep's name may have letters, digits and ._-@+= in it, got {name!r}.")
    name = name or f"{experiment.name}-{datetime.now():%Y%m%d-%H%M%S-%f}"[:-3]
    storage = absolute(storage)

    def attempt(check: Callable[[], Any]) -> Any:
        try:
            return check()
        except (ConfigurationError, TrackingError) as error:
            faults.extend(error.faults if isinstance(error, ConfigurationError) else [str(error)])

    test = experiment.test if confirms is not None else None
    if confirms is not None and test is None:
        faults.append(f"{experiment.name} declares no test: Experiment(test=...) rates a checkpoint on the test part.")
    constants = {**experiment.defaults, **constants_of(space), **fixed}
    only_where = {
        name: condition
        for name, condition in experiment.only_where.items()
        if name in space and isinstance(searcher, str) and searcher in SAMPLERS
    }
    can_vary = {name: each for name, each in space.items() if can_count(name, only_where, space, constants)}
    attempt(lambda: check_searcher(searcher, choices.told(can_vary) if kind == "sweep" else None))
    argument = experiment.trainer.config_argument
    policy = attempt(lambda: WorkerPolicy(**worker_policy))
    attempt(lambda: keeping.parse_keep(keep))
    if resumed is None:
        attempt(lambda: _check_storage(storage, name))
    trainer = attempt(lambda: _scaled(experiment.trainer, workers, gpu))
    size = trainer.scaling_config.num_workers if trainer is not None else 1
    attempt(lambda: check_trial_scheduler(trial_scheduler, searcher, argument, experiment.defaults, size))
    attempt(cluster.connect)
    if trainer is not None and ray.is_initialized():
        attempt(lambda: resources.check_fits(trainer.scaling_config, uses_ray_data=is_streamed(trainer.datasets)))
    trials = grid_size(space) or trials
    seeds = SeedRule(
        seed,
        per_trial=kind == "sweep",
        fills_setting=SETTING in experiment.defaults and SETTING not in fixed and SETTING not in space,
    )
    with ExitStack() as unless_planned:
        lock = resumed and attempt(lambda: unless_planned.enter_context(DriverLock(SweepDirectory.at(storage, name))))
        known: list[TrialRecord] = []
        if resumed is not None and lock is not None:  # the driver before may have written until it let go
            directory = SweepDirectory.at(storage, name)
            resumed, known = directory.read_sweep(), directory.read_trials()
            attempt(lambda: tune_state.check(directory, expected=bool(known)))
        head_start = unless_planned.enter_context(HeadStart())
        sweep_id = resumed.sweep_id if resumed is not None else uuid.uuid4().hex
        uri = resumed.tracking_uri if resumed is not None else None
        if not faults:
            slots = resources.concurrent_trials(trainer.scaling_config, uses_ray_data=is_streamed(trainer.datasets))
            deterministic = not trainer.scaling_config.use_gpu if deterministic is None else deterministic
            trainable = trainable_for(
                trainer, seeds=seeds, deterministic=deterministic, metric=experiment.metric, **asdict(policy),
                examination=Examination(test, experiment.metric, experiment.mode) if test is not None else None,
                logged_to=functools.partial(
                    rank_logs.logged_to, address=store.address(uri), sweep_id=sweep_id,
                    experiment=resumed.mlflow_experiment if resumed else store.experiment_name(experiment.name),
                ),
            )  # fmt: skip
            head_start.begin(trainable, min(trials, slots))
        client = attempt(lambda: store.open_store(uri))  # takes seconds: workers that have begun import meanwhile
        if faults:
            only_tracking = client is None and len(faults) == 1
            raise TrackingError(faults[0]) if only_tracking else ConfigurationError(faults)
        directory = SweepDirectory.at(storage, name)
        lock = lock or unless_planned.enter_context(DriverLock(directory))
        if resumed is None:  # another may have begun, and ended, since it was looked at
            _check_unused(directory, name, without_credentials(storage))
        else:
            mark_lost(directory, resumed, known)
            provenance.note_resumption(resumed.provenance, experiment.module)
        former = copy.copy(resumed)
        record = resumed or SweepRecord(
            sweep_id=sweep_id,
            name=name,
            kind=kind,
            experiment=experiment.name,
            module=experiment.module,
            metric=experiment.metric,
            mode=experiment.mode,
            path=store.below(without_credentials(storage), name),
            planned=trials,
            arguments=asked,
            params=_params(asked, policy, can_vary, trainer.scaling_config, searcher, trial_scheduler)
            | {"deterministic": deterministic},
            mlflow_experiment=store.experiment_name(experiment.name),
            tracking_uri=store.recorded_uri(),
            provenance=provenance.collect(experiment.module),
            created_at=int(time.time() * 1_000),
            reproduces=reproduces,
            confirms=confirms[0] if confirms else None,
            confirms_sweep=confirms[1] if confirms else None,
            decides_at_end=isinstance(make_trial_scheduler(trial_scheduler), PopulationBasedTraining),
        )
        record.state, record.ended_at, record.fault = TrialState.RUNNING, None, None
        directory.write_sweep(record)
        plan = Plan(
            experiment=experiment,
            record=record,
            directory=directory,
            known={each.trial_id: each for each in known},
            storage=storage,
            trainer=trainer,
            lock=lock,
            writer=Writer(Recorder(client, directory), record),
            space=space,
            only_where=only_where,
            conditions=experiment.only_where if conditions is None else conditions,
            constants={**experiment.defaults, **fixed},
            choices=choices,
            seeds=seeds,
            trials=trials,
            seed=seed,
            searcher=searcher,
            trial_scheduler=make_trial_scheduler(trial_scheduler, {argument: space}),
            worker_policy=policy,
            keep=keep,
            tries_defaults=try_defaults and not outside(can_vary, experiment.defaults),
            trainable=trainable,
            head_start=head_start,
            reports=reports,
            former=former,
            retry_failed=retry_failed,
        )
        unless_planned.pop_all()
    return plan


def _params(
    asked: Mapping[str, Any],
    policy: WorkerPolicy,
    space: Mapping[str, Any],
    scaling: ScalingConfig,
    searcher: Any,
    scheduler: Any,
) -> dict[str, Any]:
    """What MLflow shows of a sweep's arguments."""
    return {
        "searcher": searcher if isinstance(searcher, str) else type(searcher).__name__,
        "trial_scheduler": scheduler if isinstance(scheduler, str) else type(scheduler).__name__,
        "trials": asked["trials"],
        "workers": scaling.num_workers,
        "gpu": bool(scaling.use_gpu),
        **({"gpu_share": scaling.num_gpus_per_worker} if 0 < scaling.num_gpus_per_worker < 1 else {}),
        "seed": asked["seed"],
        "keep": asked["keep"],
        **asdict(policy),
        "space": {key: describe(value) for key, value in space.items()},
        "fixed": dict(asked["fixed"]),
    }


def _scaled(trainer: HuggingFaceTrainer, workers: int | None, gpu: bool | float | None) -> HuggingFaceTrainer:
    changes: dict[str, Any] = {}
    if workers is not None:
        if workers < 1:
            raise ConfigurationError(f"The number of workers must be at least 1, got {workers}.")
        changes["num_workers"] = workers
    if gpu is not None:
        changes["use_gpu"] = bool(gpu)
    if gpu is not None and not isinstance(gpu, bool):
        if not 1 / FINEST <= gpu <= 1:
            raise ConfigurationError(
                f"The part of a GPU that a worker takes is at least {1 / FINEST:g} and at most 1, got {gpu:g}."
            )
        gpu = math.floor(gpu * FINEST) / FINEST  # six of 1/6 shall fit
        others = trainer.scaling_config.resources_per_worker or {}
        changes["resources_per_worker"] = {**others, "GPU": gpu}
    try:
        return trainer.with_settings({"scaling_config": changes})
    except ConfigurationError:
        raise
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def absolute(storage: str | os.PathLike[str]) -> str:
    """A storage as it is meant from here."""
    path = os.fspath(storage)
    return path.rstrip("/") if "://" in path else str(Path(path).expanduser().absolute())


def _check_unused(directory: SweepDirectory, name: str, shown: str) -> None:
    """A driver that was ended before its sweep had a record has left nothing that would be missed."""
    if directory.exists:
        raise ConfigurationError(f"There is a sweep {name!r} in {shown} already: choose another name.")
    entry = directory.filesystem.get_file_info(directory.path)
    if entry.is_file or directory.names() - {OWN_FOLDER}:
        raise ConfigurationError(f"There is something other than a sweep in {shown}/{name}: choose another name.")


def _check_storage(storage: str, name: str) -> None:
    """The sweep's directory must be new, and the storage must take a file."""
    shown = without_credentials(storage)
    try:
        filesystem, root = (
            pyarrow.fs.FileSystem.from_uri(storage) if "://" in storage else (pyarrow.fs.LocalFileSystem(), storage)
        )
        _check_unused(SweepDirectory(filesystem, f"{root}/{name}"), name, shown)
        is_new = filesystem.get_file_info(root).type == pyarrow.fs.FileType.NotFound
        marker = f"{root}/.hfsuite_{os.getpid()}_{time.monotonic_ns()}"
        filesystem.create_dir(root, recursive=True)
        with filesystem.open_output_stream(marker) as stream:
            stream.write(b"")
        filesystem.delete_file(marker)
        if is_new and filesystem.type_name == "local":
            with suppress(OSError):  # another sweep has begun to use it meanwhile
                Path(root).rmdir()  # something else may be refused: then nothing shall be left
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0].rstrip(".") + "."
        raise ConfigurationError(
            f"The storage {shown} cannot be written to: {reason} Give a folder or URI that can be (--storage)."
        ) from error
