"""What a sweep needs to start, checked: no trial is started and no run recorded before all of it is right. Driver."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.fs
import ray
from ray.tune.schedulers import TrialScheduler

from hfsuite.errors import ConfigurationError, TrackingError
from hfsuite.search.searchers import AnySearcher, check_searcher
from hfsuite.search.spaces import grid_size
from hfsuite.search.trial_schedulers import check_trial_scheduler, make_trial_scheduler
from hfsuite.sweeps import cluster
from hfsuite.tracking import runs, store
from hfsuite.tracking.writer import Writer
from hfsuite.trainers.datasets import is_streamed
from hfsuite.trainers.training import HuggingFaceTrainer
from hfsuite.trials import resources
from hfsuite.trials.head_start import HeadStart
from hfsuite.trials.policy import WorkerPolicy
from hfsuite.trials.trainable import TrainingTrial, trainable_for

if TYPE_CHECKING:
    from hfsuite.sweeps.experiment import Experiment


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a sweep needs to start, checked."""

    experiment: Experiment
    kind: str
    name: str
    storage: str
    trainer: HuggingFaceTrainer
    writer: Writer
    experiment_id: str
    space: Mapping[str, Any]
    constants: Mapping[str, Any]
    trials: int
    seed: int
    searcher: str | AnySearcher
    trial_scheduler: TrialScheduler
    worker_policy: WorkerPolicy
    trainable: type[TrainingTrial]
    head_start: HeadStart

    @property
    def path(self) -> str:
        """The sweep's directory on storage, a path or a URI, as it may be recorded."""
        folder, mark, query = store.without_credentials(self.storage).partition("?")
        return f"{folder}/{self.name}{mark}{query}"

    def tags(self) -> dict[str, str]:
        """By which the sweep's runs are found again."""
        return {
            runs.KIND: self.kind,
            runs.SWEEP: self.name,
            runs.MODULE: self.experiment.module,
            runs.PATH: self.path,
        }


def checked_plan(
    experiment: Experiment,
    *,
    kind: str,
    space: Mapping[str, Any],
    trials: int,
    workers: int | None,
    gpu: bool | None,
    fixed: Mapping[str, Any],
    seed: int,
    name: str | None,
    storage: str | os.PathLike[str],
    searcher: str | AnySearcher,
    trial_scheduler: str | TrialScheduler,
    worker_policy: Mapping[str, Any],
    known_faults: Sequence[str],
) -> Plan:
    """Checks all that was asked for before a trial is started or a run recorded, and names every mistake at once."""
    faults = [*known_faults, *experiment.setting_faults(fixed)]
    if trials < 1:
        faults.append(f"The number of trials must be at least 1, got {trials}.")
    if name is not None and not re.fullmatch(r"[\w.@+=-]+", name):
        faults.append(f"A sweep's name may have letters, digits and ._-@+= in it, got {name!r}.")
    name = name or f"{experiment.name}-{datetime.now():%Y%m%d-%H%M%S-%f}"[:-3]
    storage = _absolute(storage)

    def attempt(check: Callable[[], Any]) -> Any:
        try:
            return check()
        except (ConfigurationError, TrackingError) as error:
            faults.extend(error.faults if isinstance(error, ConfigurationError) else [str(error)])

    attempt(lambda: check_searcher(searcher, space if kind == "sweep" else None))
    attempt(lambda: check_trial_scheduler(trial_scheduler, searcher, experiment.trainer.config_argument))
    policy = attempt(lambda: WorkerPolicy(**worker_policy))
    attempt(lambda: _check_storage(storage, name))
    trainer = attempt(lambda: _scaled(experiment.trainer, workers, gpu))
    attempt(cluster.connect)
    if trainer is not None and ray.is_initialized():
        attempt(lambda: resources.check_fits(trainer.scaling_config, uses_ray_data=is_streamed(trainer.datasets)))
    trials = grid_size(space) or trials
    seeded = {"seed": seed} if "seed" in experiment.defaults else {}
    with ExitStack() as unless_planned:
        head_start = unless_planned.enter_context(HeadStart())
        if not faults:
            slots = resources.concurrent_trials(trainer.scaling_config, uses_ray_data=is_streamed(trainer.datasets))
            trainable = trainable_for(trainer, **asdict(policy))
            head_start.begin(trainable, min(trials, slots))
        client = attempt(store.open_store)  # takes seconds: workers that have begun import meanwhile
        if faults:
            only_tracking = client is None and len(faults) == 1
            raise TrackingError(faults[0]) if only_tracking else ConfigurationError(faults)
        plan = Plan(
            experiment=experiment,
            kind=kind,
            name=name,
            storage=storage,
            trainer=trainer,
            experiment_id=store.experiment_id(client, experiment.name),
            writer=Writer(client),
            space=space,
            constants={**experiment.defaults, **seeded, **fixed},
            trials=trials,
            seed=seed,
            searcher=searcher,
            trial_scheduler=make_trial_scheduler(trial_scheduler),
            worker_policy=policy,
            trainable=trainable,
            head_start=head_start,
        )
        unless_planned.pop_all()
    return plan


def _scaled(trainer: HuggingFaceTrainer, workers: int | None, gpu: bool | None) -> HuggingFaceTrainer:
    changes: dict[str, Any] = {}
    if workers is not None:
        if workers < 1:
            raise ConfigurationError(f"The number of workers must be at least 1, got {workers}.")
        changes["num_workers"] = workers
    if gpu is not None:
        changes["use_gpu"] = gpu
    try:
        return trainer.with_settings({"scaling_config": changes})
    except ConfigurationError:
        raise
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def _absolute(storage: str | os.PathLike[str]) -> str:
    path = os.fspath(storage)
    return path.rstrip("/") if "://" in path else str(Path(path).expanduser().absolute())


def _check_storage(storage: str, name: str) -> None:
    """The sweep's directory must be new, and the storage must take a file."""
    shown = store.without_credentials(storage)
    try:
        filesystem, root = (
            pyarrow.fs.FileSystem.from_uri(storage) if "://" in storage else (pyarrow.fs.LocalFileSystem(), storage)
        )
        if filesystem.get_file_info(f"{root}/{name}").type != pyarrow.fs.FileType.NotFound:
            raise ConfigurationError(f"There is a sweep {name!r} in {shown} already: choose another name.")
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
