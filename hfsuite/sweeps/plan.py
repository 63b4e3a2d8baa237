"""A sweep that is about to begin: checked, recorded, its first workers on their way. Driver."""

from __future__ import annotations

import copy
import functools
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
from hfsuite.sweeps.job import Job
from hfsuite.sweeps.launching import number_of
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
from hfsuite.trials import resources
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
        slots: how many trials run at once.
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
        trainable = _trainable(job, sweep_id, record)
        slots = resources.concurrent_trials(job.trainer.scaling_config, uses_ray_data=job.trainer.is_streamed)
        head_start = unless_planned.enter_context(HeadStart())
        head_start.begin(trainable, min(job.trials, slots))
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
            former=former,
        )
        unless_planned.pop_all()
    return plan


def _trainable(job: Job, sweep_id: str, resumed: SweepRecord | None) -> type[TrainingTrial]:
    experiment, test = job.experiment, job.experiment.test if job.purpose.confirms is not None else None
    logged_to = functools.partial(
        rank_logs.logged_to, address=store.address(resumed.tracking_uri if resumed else None), sweep_id=sweep_id,
        experiment=resumed.mlflow_experiment if resumed else store.experiment_name(experiment.name),
    )  # fmt: skip
    return trainable_for(
        job.trainer,
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
        **({"gpu_share": scaling.num_gpus_per_worker} if 0 < scaling.num_gpus_per_worker < 1 else {}),
        "seed": asked.seed,
        "keep": asked.keep,
        **asdict(asked.policy),
        "space": {key: describe(value) for key, value in job.can_vary.items()},
        "fixed": dict(job.fixed),
        "deterministic": job.is_deterministic,
    }
