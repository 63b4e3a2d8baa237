"""A sweep from beginning to end: check all, open the parent run, let Ray Tune work, collect the results. Driver."""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import pyarrow.fs
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.logger import CSVLoggerCallback
from ray.tune.schedulers import HyperBandScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import ConcurrencyLimiter

from hfsuite.errors import ConfigurationError
from hfsuite.search.searchers import AnySearcher, make_searcher
from hfsuite.search.spaces import grid_size, is_searched
from hfsuite.search.trial_schedulers import Budget
from hfsuite.sweeps import tune_state
from hfsuite.sweeps.display import Display
from hfsuite.sweeps.metric_check import MetricIsReported
from hfsuite.sweeps.observer import SweepObserver
from hfsuite.sweeps.plan import Plan, checked_plan
from hfsuite.sweeps.report_log import ReportLog
from hfsuite.sweeps.result import SweepResult, TrialResult, address, best_trial
from hfsuite.sweeps.trial_names import TrialNames
from hfsuite.tracking import store
from hfsuite.tracking.record import REPORTS_FILE, ReportReader, SweepDirectory
from hfsuite.tracking.state import TrialState
from hfsuite.trainers.datasets import is_streamed
from hfsuite.trials import resources
from hfsuite.trials.worker_group import lasting_state, time_to_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hfsuite.sweeps.experiment import Experiment

END_TAKES_S = 15.0  # what a trial's end takes beside the unwinding of its training function
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
def run_sweep(
    experiment: Experiment,
    *,
    trials: int,
    searcher: str | AnySearcher,
    trial_scheduler: str | TrialScheduler,
    workers: int | None,
    gpu: bool | None,
    fixed: Mapping[str, Any],
    seed: int,
    name: str | None,
    storage: str | os.PathLike[str],
    worker_policy: Mapping[str, Any],
    keep: str = "best",
    faults: Sequence[str] = (),
) -> SweepResult:
    """Searches. See `Experiment.sweep` for the arguments and what is raised.

    Args:
        faults: mistakes that the caller has found already; they are named with all others.
    """
    space = {key: value for key, value in experiment.space.items() if key not in fixed}
    plan = checked_plan(
        experiment, kind="sweep", space=space, trials=trials, workers=workers, gpu=gpu, fixed=fixed, seed=seed,
        name=name, storage=storage, searcher=searcher, trial_scheduler=trial_scheduler, worker_policy=worker_policy,
        keep=keep, known_faults=faults,
    )  # fmt: skip
    return _run(plan)


@_in_turn
def resume_sweep(
    experiment: Experiment,
    directory: SweepDirectory,
    storage: str,
    *,
    searcher: AnySearcher | None = None,
    trial_scheduler: TrialScheduler | None = None,
    retry_failed: bool = False,
) -> SweepResult:
    """Takes an interrupted sweep up again. See `Experiment.resume`.

    Args:
        directory: the sweep's.
        storage: the folder or URI that it is in.
    """
    record = directory.read_sweep()
    asked = record.arguments
    chosen = {"searcher": searcher or asked["searcher"], "trial_scheduler": trial_scheduler or asked["trial_scheduler"]}
    faults = [
        f"The sweep {record.name!r} had a {argument.replace('_', ' ')} of its own, {record.params[argument]}, which "
        f"could not be written down: give one like it, experiment.resume({argument}=...)."
        for argument, value in chosen.items()
        if value is None
    ]
    space = {key: value for key, value in experiment.space.items() if key not in asked["fixed"]}
    if faults:
        raise ConfigurationError(faults)
    plan = checked_plan(
        experiment, kind=record.kind, space=space, trials=asked["trials"], workers=asked["workers"], gpu=asked["gpu"],
        fixed=asked["fixed"], seed=asked["seed"], name=record.name, storage=storage, keep=asked["keep"],
        worker_policy=asked["worker_policy"], known_faults=(), resumed=record, retry_failed=retry_failed, **chosen,
    )  # fmt: skip
    return _run(plan)


@_in_turn
def run_training(
    experiment: Experiment,
    *,
    fixed: Mapping[str, Any],
    workers: int | None,
    gpu: bool | None,
    seed: int,
    name: str | None,
    storage: str | os.PathLike[str],
    faults: Sequence[str] = (),
) -> TrialResult:
    """Trains once; a training that failed is returned too. See `Experiment.train`, and `run_sweep` for `faults`."""
    plan = checked_plan(
        experiment, kind="train", space={}, trials=1, workers=workers, gpu=gpu, fixed=fixed, seed=seed, name=name,
        storage=storage, searcher="grid", trial_scheduler="fifo", worker_policy={}, keep="best", known_faults=faults,
    )  # fmt: skip
    result = _run(plan)
    if result.interrupted:
        raise KeyboardInterrupt
    (trial,) = result.trials
    trial.tracking_fault = result.tracking_fault
    return trial


def _run(plan: Plan) -> SweepResult:
    """Lets Ray Tune run the trials and MLflow know of them; returns when all are over."""
    record = plan.record
    with closing(plan.lock), plan.head_start, closing(plan.writer), _closed_whatever_happens(plan):
        plan.writer.begin()  # a store that takes nothing ends the sweep here
        observer = _observer(plan)
        _tune(plan, observer)
        observer.settle()
        result = SweepResult(
            name=record.name,
            experiment=record.experiment,
            module=record.module,
            metric=record.metric,
            mode=record.mode,
            run_id=None,
            tracking_uri=store.without_credentials(plan.writer.recorder.client.tracking_uri),
            path=record.path,
            trials=sorted(observer.trials.values(), key=lambda trial: trial.number),
            planned=record.planned,
            interrupted=observer.interrupted,
        )
        best = best_trial(result.trials, result.metric, result.mode)
        record.best = best.number if best is not None else None
        _end(plan, _sweep_state(result))
        if fault := plan.writer.finish():
            result.tracking_fault = f"{fault} Fill it in later: hfsuite sync {record.name}"
        observer.note_runs()
        result.run_id = plan.writer.recorder.parent_id
    if result.interrupted and record.kind == "sweep":
        where = "" if plan.storage == os.path.abspath("results") else f" --storage {plan.storage}"
        observer.display.console.print(f"Take the sweep up again: hfsuite resume {record.name}{where}", soft_wrap=True)
    return result


def _observer(plan: Plan) -> SweepObserver:
    record, configuration = plan.record, plan.trainer.config_argument

    def settings(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        values = dict(config.get(configuration, {}))
        return values, {key: values[key] for key, domain in plan.space.items() if is_searched(domain) and key in values}

    def new_trial(number: int, trial: Trial) -> TrialResult:
        path = address(trial.storage.trial_fs_path, record.path)
        result = TrialResult(number, trial.trial_id, *settings(trial.config), path=path)
        if not plan.directory.is_local:  # Ray Tune appends to a file of the driver's, and copies it now and then
            here = ReportReader(pyarrow.fs.LocalFileSystem(), f"{trial.local_path}/{REPORTS_FILE}")
            plan.writer.recorder.readers[trial.trial_id] = here
        return result

    display = Display(
        title=f"{record.experiment} · {record.name}",
        metric=record.metric,
        mode=record.mode,
        progress=plan.experiment.progress,
        total=plan.trials,
    )
    return SweepObserver(
        sweep=record,
        directory=plan.directory,
        writer=plan.writer,
        new_trial=new_trial,
        settings=settings,
        display=display,
        budget=Budget.of(plan.trial_scheduler),
        trial_scheduler=str(record.params["trial_scheduler"]),
        keep=plan.keep,
        keeps_at_end=isinstance(plan.trial_scheduler, PopulationBasedTraining),
        known=plan.known,
    )


def _tune(plan: Plan, observer: SweepObserver) -> None:
    """Ray Tune's part: from the first proposal to the end of the last trial."""
    experiment, record = plan.experiment, plan.record
    metric_is_reported = MetricIsReported(experiment.metric)
    names = TrialNames(record.path, {each.trial_id: each.number for each in plan.known.values()})
    directory = Path(plan.storage, record.name) if "://" not in plan.storage else None
    slots = resources.concurrent_trials(plan.trainer.scaling_config, uses_ray_data=is_streamed(plan.trainer.datasets))
    budget = Budget.of(plan.trial_scheduler)
    searcher = make_searcher(plan.searcher, seed=plan.seed, study_name=record.name, directory=directory, budget=budget)
    # HyperBand pauses trials until its bracket is full, which a limit would never let happen.
    limits_itself = isinstance(searcher, ConcurrencyLimiter) or isinstance(plan.trial_scheduler, HyperBandScheduler)
    resume = tune.ResumeConfig(
        errored=tune.ResumeConfig.ResumeType.RESUME if plan.retry_failed else tune.ResumeConfig.ResumeType.SKIP
    )
    resumed = plan.resumed and tune_state.restore(plan.directory, expected=bool(plan.known))
    patience = time_to_end(plan.worker_policy.stop_grace_s + END_TAKES_S)
    lasting = lasting_state(functools.partial(tune_state.keep, plan.directory))
    with observer.display, observer.ending_in_order(), _tune_as_a_sweep_needs_it(), patience, lasting:
        try:
            tune.run(
                plan.trainable,
                name=record.name,
                storage_path=plan.storage,
                config={plan.trainer.config_argument: {**plan.constants, **plan.space}},
                num_samples=1 if grid_size(plan.space) else plan.trials,
                search_alg=searcher,
                scheduler=plan.trial_scheduler,
                metric=experiment.metric,
                mode=experiment.mode,
                max_concurrent_trials=None if limits_itself else slots,
                reuse_actors=True,
                trial_name_creator=names,
                trial_dirname_creator=names,
                callbacks=[observer, plan.head_start, ReportLog(), CSVLoggerCallback()],
                stop=metric_is_reported,
                verbose=0,
                raise_on_failed_trial=False,
                checkpoint_config=tune.CheckpointConfig(
                    num_to_keep=_checkpoints_of_a_trial(plan),
                    checkpoint_score_attribute=experiment.metric,
                    checkpoint_score_order=experiment.mode,
                    checkpoint_at_end=False,
                ),
                **({"resume": True, "resume_config": resume} if resumed else {}),
            )
        except BaseException:  # a second Ctrl-C, for example
            observer.stop_rest()
            raise
    if metric_is_reported.fault is not None:
        raise metric_is_reported.fault


def _checkpoints_of_a_trial(plan: Plan) -> int | None:
    """The best; Ray Tune always keeps the last too. A population must also find what it exploits."""
    if plan.keep == "all":
        return None
    return 4 if isinstance(plan.trial_scheduler, PopulationBasedTraining) else 1


def _end(plan: Plan, state: TrialState) -> None:
    plan.record.state, plan.record.ended_at = state, int(time.time() * 1_000)
    plan.directory.write_sweep(plan.record)
    plan.writer.touch()


@contextmanager
def _tune_as_a_sweep_needs_it() -> Iterator[None]:
    """Ray Tune is silent, and writes what a sweep reads; afterwards it is as before, for Tuners of the user's own.

    Tune logs each failure, with frames of its own, before anyone can say what the trial's rank said.
    """
    variables = {
        "RAY_AIR_NEW_OUTPUT": "0",  # the old output engine can be silent
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # MetricIsReported says it better, and as early
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # without TensorBoard's files: MLflow draws the charts
    }
    logger, before = logging.getLogger("ray.tune"), {name: os.environ.get(name) for name in variables}
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    os.environ |= variables
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            del os.environ[name]
            os.environ |= {name: value} if value is not None else {}


@contextmanager
def _closed_whatever_happens(plan: Plan) -> Iterator[None]:
    """An error in the driver must not leave a run that seems to go on for ever."""
    try:
        yield
    except BaseException as error:
        plan.record.fault = f"{type(error).__name__}: {error}"
        _end(plan, TrialState.FAILED if isinstance(error, Exception) else TrialState.STOPPED)
        plan.writer.finish(AFTER_ERROR_S)  # the error itself is on its way
        raise


def _sweep_state(result: SweepResult) -> TrialState:
    if result.interrupted:
        return TrialState.STOPPED
    return TrialState.FAILED if result.exit_code == 1 else TrialState.COMPLETED
