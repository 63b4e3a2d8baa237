"""A sweep that is about to begin: checked, recorded, its first workers on their way. Driver."""

from __future__ import annotations

import copy
import functools
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler

from hfsuite.ranks.examination import Examination
from hfsuite.search.spaces import describe
from hfsuite.search.trial_schedulers import make_trial_scheduler
from hfsuite.sweeps import checks, tune_state
from hfsuite.sweeps.head_start import HeadStart
from hfsuite.sweeps.job import SEARCH, Job
from hfsuite.sweeps.launching import number_of
from hfsuite.sweeps.request import AUTO, GROW
from hfsuite.sweeps.storage import check_unused
from hfsuite.tracking import provenance, rank_logs, store
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.lock import DriverLock
from hfsuite.tracking.record import SweepRecord, TrialRecord
from hfsuite.tracking.recorder import Recorder
from hfsuite.tracking.secrets import without_credentials
from hfsuite.tracking.state import TrialState
from hfsuite.tracking.sync import mark_lost
from hfsuite.tracking.writer import Writer
from hfsuite.trainers.training import HuggingFaceTrainer
from hfsuite.trials import resources
from hfsuite.trials.gpu_group import Group
from hfsuite.trials.gpu_slots import SharedGpus
from hfsuite.trials.resources import MOST_A_GPU, TrialRequest
from hfsuite.trials.trainable import TrainingTrial, trainable_for


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a sweep needs to start.

    Args:
        job: what is done.
        record: of the sweep.
        directory: the sweep's; this driver's alone while it has the lock.
        known: its trials by their ids, where it is taken up again.
        lock: of the directory.
        writer: brings records to MLflow.
        trial_scheduler: Ray Tune's, made.
        trainable: the class of the trials.
        head_start: their first workers.
        slots: how many trials can run at once.
        shared: the GPUs that trials share; None if none do.
        former: the record of a sweep that is taken up again, as it stood.
    """

    job: Job
    record: SweepRecord
    directory: SweepDirectory
    known: Mapping[str, TrialRecord]
    lock: DriverLock
    writer: Writer
    trial_scheduler: TrialScheduler
    trainable: type[TrainingTrial]
    head_start: HeadStart
    slots: int
    shared: SharedGpus | None
    former: SweepRecord | None


def make_plan(job: Job, faults: Sequence[str] = ()) -> Plan:
    """Checks all that was asked for before a trial is started or a run recorded, then begins what takes long.

    The sweep's directory is the caller's alone, from now until it releases the plan's lock.

    Args:
        job: what was asked for.
        faults: mistakes that the caller has found already; they are told with all others.

    Raises:
        ConfigurationError: something cannot be; the mistakes are named, and nothing was started.
        TrackingError: the MLflow store cannot be used.
    """
    checks.check(job, faults)
    directory, record, known = job.directory, job.purpose.resumed, []
    with ExitStack() as unless_planned:
        if record is not None:  # the driver before may have written until it let go
            lock = unless_planned.enter_context(DriverLock(directory))
            record, known = directory.read_sweep(), directory.read_trials()
            tune_state.check(directory, expected=bool(known))
        sweep_id = record.sweep_id if record is not None else uuid.uuid4().hex
        head_start = unless_planned.enter_context(HeadStart())
        trainable, slots, shared = _begin(job, sweep_id, record, head_start)
        # This takes seconds: workers that have begun import meanwhile.
        client = store.open_store(record.tracking_uri if record is not None else None)
        former = copy.copy(record)
        if record is not None:
            mark_lost(directory, record, known)
            provenance.note_resumption(record.provenance, job.experiment.module)
        else:
            lock = unless_planned.enter_context(DriverLock(directory))
            check_unused(directory, job.name, without_credentials(job.storage))  # another may have begun, and ended
            record = _new_record(job, sweep_id)
        record.state, record.ended_at, record.fault = TrialState.RUNNING, None, None
        directory.write_sweep(record)
        argument = job.experiment.trainer.config_argument
        plan = Plan(
            job=job,
            record=record,
            directory=directory,
            known={each.trial_id: each for each in known},
            lock=lock,
            writer=Writer(Recorder(client, directory), record),
            trial_scheduler=make_trial_scheduler(job.request.trial_scheduler, {argument: job.space}),
            trainable=trainable,
            head_start=head_start,
            slots=slots,
            shared=shared,
            former=former,
        )
        unless_planned.pop_all()
    return plan


def _begin(
    job: Job, sweep_id: str, resumed: SweepRecord | None, head_start: HeadStart
) -> tuple[type[TrainingTrial], int, SharedGpus | None]:
    """Starts the first workers. Returns the trials' class, how many can run at once, and the GPUs that they share."""
    at_once = resources.concurrent_trials(job.trainer.scaling_config, uses_ray_data=job.trainer.is_streamed)
    groups = min(job.trials, at_once)
    if (slots := _slots(job, groups)) == 1 and job.at_end != GROW:
        trainable = _trainable(job, job.trainer, sweep_id, resumed)
        head_start.begin(trainable, groups)
        return trainable, at_once, None
    trainable = _trainable(job, job.trainer_in_slots(slots), sweep_id, resumed)
    request = TrialRequest.of(trainable.given.value.scaling_config, owner=trainable.owner)
    size = 1 if job.gpu_share == AUTO else slots
    shared = SharedGpus([Group.made(request, slots) for _ in range(groups)], size)
    head_start.begin_in_slots(trainable, shared)
    return trainable, groups * slots, shared


def _slots(job: Job, groups: int) -> int:
    """How many trials each of so many groups of GPUs can hold; 1 where Ray itself gives trials their GPUs."""
    share, scaling, uses_ray_data = job.gpu_share, job.trainer.scaling_config, job.trainer.is_streamed
    wanted = math.ceil(job.trials / groups)
    if share == AUTO:
        return resources.trials_a_gpu(scaling, min(wanted, MOST_A_GPU), uses_ray_data=uses_ray_data)
    if share is None or scaling.num_workers == 1 or job.purpose.kind != SEARCH:
        return 1
    return resources.trials_a_gpu(scaling, min(wanted, int(1 // float(share))), uses_ray_data=uses_ray_data)


def _trainable(
    job: Job, trainer: HuggingFaceTrainer, sweep_id: str, resumed: SweepRecord | None
) -> type[TrainingTrial]:
    experiment, test = job.experiment, job.experiment.test if job.purpose.confirms is not None else None
    logged_to = functools.partial(
        rank_logs.logged_to, address=store.address(resumed.tracking_uri if resumed else None), sweep_id=sweep_id,
        experiment=resumed.mlflow_experiment if resumed else store.experiment_name(experiment.name),
    )  # fmt: skip
    return trainable_for(
        trainer,
        seeds=job.seeds,
        deterministic=job.is_deterministic,
        metric=experiment.metric,
        examination=Examination(test, experiment.metric, experiment.mode) if test is not None else None,
        logged_to=logged_to,
        **asdict(job.request.policy),
    )


def _new_record(job: Job, sweep_id: str) -> SweepRecord:
    experiment, purpose = job.experiment, job.purpose
    confirms, confirms_sweep = purpose.confirms or (None, None)
    return SweepRecord(
        sweep_id=sweep_id,
        name=job.name,
        kind=purpose.kind,
        experiment=experiment.name,
        module=experiment.module,
        metric=experiment.metric,
        mode=experiment.mode,
        path=store.below(without_credentials(job.storage), job.name),
        planned=job.trials,
        arguments=job.arguments,
        params=_params(job),
        mlflow_experiment=store.experiment_name(experiment.name),
        tracking_uri=store.recorded_uri(),
        provenance={**provenance.collect(experiment.module), "launch": number_of(experiment.name, experiment.module)},
        created_at=int(time.time() * 1_000),
        reproduces=purpose.reproduces,
        confirms=confirms,
        confirms_sweep=confirms_sweep,
        decides_at_end=isinstance(make_trial_scheduler(job.request.trial_scheduler), PopulationBasedTraining),
    )


def _params(job: Job) -> dict[str, Any]:
    """What MLflow shows of what was asked for."""
    asked, scaling = job.request, job.trainer.scaling_config
    named = {
        name: each if isinstance(each, str) else type(each).__name__
        for name, each in (("searcher", asked.searcher), ("trial_scheduler", asked.trial_scheduler))
    }
    return {
        **named,
        "trials": asked.trials,
        "workers": scaling.num_workers,
        "gpu": bool(scaling.use_gpu),
        **({"gpu_share": job.gpu_share} if job.gpu_share is not None else {}),
        "seed": asked.seed,
        "keep": asked.keep,
        **asdict(asked.policy),
        "space": {key: describe(value) for key, value in job.can_vary.items()},
        "fixed": dict(job.fixed),
        "deterministic": job.is_deterministic,
    }
