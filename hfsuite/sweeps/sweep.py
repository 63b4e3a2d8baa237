"""A sweep from beginning to end: check all, open the parent run, let Ray Tune work, collect the results. Driver."""

from __future__ import annotations

import dataclasses
import functools
import os
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import pyarrow.fs
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from hfsuite.declaration import Declaration
from hfsuite.errors import ConfigurationError
from hfsuite.ranks.determinism import COST
from hfsuite.search.own_choices import OwnChoices
from hfsuite.search.searchers import SAMPLERS, VARIANTS, AnySearcher
from hfsuite.search.spaces import describe, is_searched, outside
from hfsuite.search.trial_schedulers import Budget, what_hyperband_needs
from hfsuite.sweeps.display import Display
from hfsuite.sweeps.job import TRAINING, Job, Purpose
from hfsuite.sweeps.launching import are_others_before
from hfsuite.sweeps.log_lines import LogLines
from hfsuite.sweeps.observer import SweepObserver
from hfsuite.sweeps.plan import Plan, make_plan
from hfsuite.sweeps.request import DEFAULTS, Request
from hfsuite.sweeps.result import SweepResult, TrialResult, address, best_trial
from hfsuite.sweeps.trial_settings import TrialSettings
from hfsuite.sweeps.tuning import run_tune
from hfsuite.tracking.declared import MAIN, SCRIPT, UNREADABLE
from hfsuite.tracking.directory import REPORTS_FILE, ReportReader, SweepDirectory
from hfsuite.tracking.record import trial_directory
from hfsuite.tracking.secrets import HIDDEN, without_credentials
from hfsuite.tracking.state import TrialState
from hfsuite.trials import resources

if TYPE_CHECKING:
    from collections.abc import Iterator


AFTER_ERROR_S = 10.0  # for MLflow to record a sweep's end: the error waits meanwhile

P = ParamSpec("P")
R = TypeVar("R")
_turn = threading.RLock()


def _in_turn(run: Callable[P, R]) -> Callable[P, R]:
    """Ray Tune keeps what it runs in variables of the process, so sweeps of several threads take turns."""

    @functools.wraps(run)
    def waiting(*args: P.args, **kwargs: P.kwargs) -> R:
        with _turn:
            return run(*args, **kwargs)

    return waiting


@_in_turn
def run(job: Job, faults: Sequence[str] = ()) -> SweepResult:
    """Runs the trials of a job, and returns when all are over.

    Args:
        job: what is asked for.
        faults: mistakes that the caller has found already; they are told with all others.

    Raises:
        ConfigurationError: something asked for cannot be; all mistakes are named, and nothing was started.
        TrackingError: the MLflow store cannot be used.
        MetricNotReported: the first report has no such metric.
    """
    return _run(make_plan(job, faults))


def run_training(
    experiment: Declaration, request: Request, *, reports: int | None = None, reproduces: str | None = None,
    faults: Sequence[str] = (),
) -> TrialResult:  # fmt: skip
    """Trains once; a training that failed is returned too. See `Purpose` for the arguments, and `run`."""
    alone = dataclasses.replace(request, trials=1, searcher=VARIANTS, trial_scheduler="fifo", try_defaults=False)
    result = run(Job(experiment, alone, Purpose(kind=TRAINING, reports=reports, reproduces=reproduces)), faults)
    if result.interrupted:
        raise KeyboardInterrupt
    (trial,) = result.trials
    trial.tracking_fault = result.tracking_fault
    return trial


def resume_sweep(
    experiment: Declaration,
    directory: SweepDirectory,
    storage: str,
    *,
    searcher: AnySearcher | None = None,
    trial_scheduler: TrialScheduler | None = None,
    retry_failed: bool = False,
) -> SweepResult:
    """Takes an interrupted sweep up again. See `Experiment.resume`.

    Args:
        experiment: what it is of.
        directory: the sweep's.
        storage: the folder or URI that it is in.
        searcher: one like the sweep's own, if that was an object; likewise `trial_scheduler`.
        trial_scheduler: likewise.
        retry_failed: whether failed trials are tried again.
    """
    record = directory.read_sweep()
    if record.experiment != experiment.name:
        raise ConfigurationError(
            f"The sweep {record.name!r} is of the experiment {record.experiment}, not {experiment.name}."
        )
    if record.confirms is not None:
        raise ConfigurationError(
            f"{record.name!r} is a confirmation, which begins anew: "
            f"hfsuite confirm {record.confirms_sweep or record.confirms}."
        )
    asked = record.arguments
    chosen = {"searcher": searcher or asked["searcher"], "trial_scheduler": trial_scheduler or asked["trial_scheduler"]}
    faults = [
        f"The sweep {record.name!r} had a {argument.replace('_', ' ')} of its own, {record.params[argument]}, which "
        f"could not be written down: give one like it, experiment.resume({argument}=...)."
        for argument, value in chosen.items()
        if value is None
    ]
    choices = OwnChoices.of(experiment.space, experiment.defaults)
    faults += choices.faults(asked["fixed"], asked.get("not_written", []))
    purpose = Purpose(kind=record.kind, resumed=record, retry_failed=retry_failed)
    named = {name: DEFAULTS[name] if value is None else value for name, value in chosen.items()}
    return run(Job(experiment, Request.of_record(record, storage, **named), purpose), faults)


def _run(plan: Plan) -> SweepResult:
    """Lets Ray Tune run the trials and MLflow know of them; returns when all are over."""
    record = plan.record
    with closing(plan.lock), plan.head_start, closing(plan.writer), _closed_whatever_happens(plan):
        plan.writer.begin()  # a store that takes nothing ends the sweep here
        observer = _observer(plan)
        if not observer.display.console.is_terminal:
            LogLines(observer.display.console, [], plan.job.trials).plan(record)
        for told in _beforehand(plan):
            observer.display.console.print(told, soft_wrap=True)
        run_tune(plan, observer)
        observer.settle()
        result = SweepResult(
            name=record.name,
            experiment=record.experiment,
            module=record.module,
            metric=record.metric,
            mode=record.mode,
            run_id=None,
            tracking_uri=without_credentials(plan.writer.recorder.client.tracking_uri),
            path=record.path,
            trials=sorted(observer.trials.values(), key=lambda trial: trial.number),
            planned=record.planned,
            interrupted=observer.interruption.is_wished,
        )
        best = best_trial(result.trials, result.metric, result.mode)
        record.best = best.number if best is not None else None
        _end(plan, _sweep_state(result))
        if fault := _finish(plan, observer.display):
            result.tracking_fault = f"{fault} Fill it in later: hfsuite sync {record.name}{_where(plan)}"
        observer.note_runs()
        for remark in plan.writer.recorder.remarks:
            observer.display.console.print(remark, soft_wrap=True, highlight=False)
        result.run_id = plan.writer.recorder.parent_id
    if result.interrupted and record.reproduces is None:
        what = "sweep" if record.kind == "sweep" else "training"
        again = f"Take the {what} up again: hfsuite resume {record.name}{_where(plan)}"
        if record.confirms is not None:
            again = f"A confirmation begins anew: hfsuite confirm {record.confirms_sweep or record.confirms}"
        observer.display.console.print(again, soft_wrap=True)
    return result


def _beforehand(plan: Plan) -> Iterator[str]:
    """What somebody who launches a sweep may not expect of it."""
    record, job = plan.record, plan.job
    if record.params["gpu"] and record.params["deterministic"]:
        yield COST
    is_chosen = job.request.gpu is not None or record.kind != "sweep" or record.params["gpu"]
    if not is_chosen and (gpus := sum(node.get("GPU", 0) for node in resources.cluster_nodes())):
        yield f"The workers are on CPUs, though the cluster has GPUs ({gpus:g}): --gpu gives each worker one."
    if record.module.endswith(SCRIPT) and are_others_before():
        yield (
            f"{record.module} has launched others before: whoever reproduces this one or takes it up again runs it "
            "without their results."
        )
    if HIDDEN in record.provenance.get("arguments", ()):
        yield (
            "An argument of this program may be a secret and is not recorded: its trials cannot be reproduced, "
            "confirmed or taken up again elsewhere. Have it read that from the environment."
        )
    if record.provenance.get("source") is None and record.module == MAIN:
        yield (
            f"This experiment is declared {UNREADABLE}: its trials cannot be reproduced, exported, confirmed or taken "
            "up again elsewhere. Put it into a file."
        )
    searched = [name for name, domain in job.space.items() if is_searched(domain)]
    if idle := [name for name in searched if name not in job.can_vary]:
        yield f"Not searched, since what they depend on is fixed to another value: {', '.join(idle)}."
    defaults = job.experiment.defaults
    if job.request.try_defaults and job.request.searcher in SAMPLERS:
        for each in outside(job.space, defaults):
            yield (
                f"The default of {each}, {defaults[each]!r}, lies outside of its own search space, "
                f"{describe(job.space[each])}: the default settings are not tried first."
            )
    ahead = job.request.searcher == VARIANTS
    if told := what_hyperband_needs(plan.trial_scheduler, slots=plan.slots, trials=job.trials, are_drawn_ahead=ahead):
        yield told


def _finish(plan: Plan, display: Display) -> str | None:
    """What MLflow has not recorded, in words. Whoever does not want to wait for it has a sweep all the same."""

    def tell() -> None:
        display.console.print(
            "All trials are over. MLflow is being told what it lacks, up to a minute if it does not answer; "
            f"Ctrl-C leaves that to hfsuite sync {plan.record.name}{_where(plan)}",
            soft_wrap=True,
        )

    try:
        return plan.writer.finish(tell=tell)
    except KeyboardInterrupt:
        return "MLflow has not recorded everything: it was not waited for."


def _where(plan: Plan) -> str:
    """The option with which commands find the sweep; none where they look anyway."""
    is_default = plan.job.storage == os.path.abspath(Request.storage)
    return "" if is_default else f" --storage {shlex.quote(without_credentials(plan.job.storage))}"


def _observer(plan: Plan) -> SweepObserver:
    record, job = plan.record, plan.job
    settings = TrialSettings(
        argument=job.trainer.config_argument, space=job.space, conditions=job.conditions,
        constants=job.constants, seeds=job.seeds,
    )  # fmt: skip

    def new_trial(number: int, trial: Trial) -> TrialResult:
        path = address(f"{plan.directory.path}/{trial_directory(number)}", record.path)
        config = settings.of(number, trial.config)
        result = TrialResult(
            number, trial.trial_id, config, settings.searched(config), settings.idle(config), path=path
        )
        has_begun = bool(trial.storage.trial_dir_name)  # otherwise Ray Tune knows no folder of it
        if (
            not plan.directory.is_local and has_begun
        ):  # it appends to a file of the driver's, and copies it now and then
            here = ReportReader(pyarrow.fs.LocalFileSystem(), f"{trial.local_path}/{REPORTS_FILE}")
            plan.writer.recorder.readers[trial.trial_id] = here
        return result

    display = Display(
        title=f"{record.experiment} · {record.name}",
        metric=record.metric,
        mode=record.mode,
        progress=job.experiment.progress,
        total=job.trials,
    )
    return SweepObserver(
        sweep=record,
        directory=plan.directory,
        writer=plan.writer,
        new_trial=new_trial,
        settings=settings,
        display=display,
        budget=Budget(job.purpose.reports) if job.purpose.reports is not None else Budget.of(plan.trial_scheduler),
        known=plan.known,
    )


def _end(plan: Plan, state: TrialState) -> None:
    plan.record.state, plan.record.ended_at = state, int(time.time() * 1_000)
    plan.directory.write_sweep(plan.record)
    plan.writer.touch()


@contextmanager
def _closed_whatever_happens(plan: Plan) -> Iterator[None]:
    """An error in the driver must not leave a run that seems to go on for ever."""
    try:
        yield
    except BaseException as error:
        if plan.former is not None and isinstance(error, ConfigurationError):  # it could not be taken up
            vars(plan.record).update(vars(plan.former))
            plan.directory.write_sweep(plan.record)
            plan.writer.touch()
            plan.writer.finish(AFTER_ERROR_S)
            raise
        plan.record.fault = f"{type(error).__name__}: {error}"
        _end(plan, TrialState.FAILED if isinstance(error, Exception) else TrialState.STOPPED)
        plan.writer.finish(AFTER_ERROR_S)  # the error itself is on its way
        raise


def _sweep_state(result: SweepResult) -> TrialState:
    if result.interrupted:
        return TrialState.STOPPED
    return TrialState.FAILED if result.exit_code == 1 else TrialState.COMPLETED
