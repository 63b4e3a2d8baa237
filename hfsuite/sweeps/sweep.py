"""A sweep from beginning to end: check all, open the parent run, let Ray Tune work, collect the results. Driver."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback
from ray.tune.schedulers import HyperBandScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import ConcurrencyLimiter

from hfsuite.errors import TrackingError
from hfsuite.search.searchers import AnySearcher, make_searcher
from hfsuite.search.spaces import describe, grid_size, is_searched
from hfsuite.search.trial_schedulers import Budget
from hfsuite.sweeps.display import Display
from hfsuite.sweeps.observer import MetricIsReported, SweepObserver, TrialNames, reported
from hfsuite.sweeps.plan import Plan, checked_plan
from hfsuite.sweeps.result import SweepResult, TrialResult, address, best_trial
from hfsuite.tracking import runs, store
from hfsuite.tracking.state import TrialState
from hfsuite.tracking.writer import Writer
from hfsuite.trainers.datasets import is_streamed
from hfsuite.trials import resources
from hfsuite.trials.worker_group import time_to_end

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
        known_faults=faults,
    )  # fmt: skip
    with plan.head_start, closing(plan.writer):
        parent = runs.Run.start(
            plan.writer,
            plan.experiment_id,
            name=plan.name,
            tags=plan.tags() | {runs.METRIC: experiment.metric, runs.MODE: experiment.mode},
            params={
                "searcher": searcher if isinstance(searcher, str) else type(searcher).__name__,
                "trial_scheduler": trial_scheduler
                if isinstance(trial_scheduler, str)
                else type(trial_scheduler).__name__,
                "trials": plan.trials,
                "workers": plan.trainer.scaling_config.num_workers,
                "seed": seed,
                **asdict(plan.worker_policy),
                "space": {key: describe(value) for key, value in space.items()},
                "fixed": dict(fixed),
            },
        )
        with _closed_whatever_happens(parent):
            plan.writer.await_written()  # a store that takes nothing ends the sweep here
            result = _run(plan, parent)
            if (best := best_trial(result.trials, result.metric, result.mode)) is not None:
                kept = {runs.CHECKPOINT_PATH: best.checkpoint_path} if best.checkpoint else {}
                parent.set_tags({runs.BEST_RUN: best.run_id, runs.BEST_VALUE: best.metrics[result.metric], **kept})
                parent.log_metrics(best.metrics, int(best.metrics.get("step", 0)))
            parent.end(_sweep_state(result))
            last_fault = _await_tracking(plan.writer)
            result.tracking_fault = result.tracking_fault or last_fault
    return result


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
        storage=storage, searcher="grid", trial_scheduler="fifo", worker_policy={}, known_faults=faults,
    )  # fmt: skip
    with plan.head_start, closing(plan.writer):
        result = _run(plan, parent=None)
    if result.interrupted:
        raise KeyboardInterrupt
    (trial,) = result.trials
    trial.tracking_fault = result.tracking_fault
    return trial


def _run(plan: Plan, parent: runs.Run | None) -> SweepResult:
    """Lets Ray Tune run the trials; returns when all are over."""
    experiment, configuration = plan.experiment, plan.trainer.config_argument

    budget = Budget.of(plan.trial_scheduler)

    def settings(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        values = dict(config.get(configuration, {}))
        return values, {key: values[key] for key, domain in plan.space.items() if is_searched(domain) and key in values}

    def new_trial(number: int, trial: Trial) -> TrialResult:
        path = address(trial.storage.trial_fs_path, plan.path)
        return TrialResult(number, trial.trial_id, *settings(trial.config), path=path)

    def open_run(trial: TrialResult) -> runs.Run:
        return runs.Run.start(
            plan.writer,
            plan.experiment_id,
            name=f"trial {trial.number:03d}" if parent else plan.name,
            tags=plan.tags() | {runs.KIND: "trial" if parent else plan.kind, runs.TRIAL: str(trial.number),
                                runs.TRIAL_ID: trial.trial_id, runs.STATE: trial.state},
            params={**trial.config, "num_workers": plan.trainer.scaling_config.num_workers},
            parent=parent,
        )  # fmt: skip

    display = Display(
        title=f"{experiment.name} · {plan.name}",
        metric=experiment.metric,
        mode=experiment.mode,
        progress=experiment.progress,
        total=plan.trials,
    )
    observer = SweepObserver(
        open_run=open_run,
        new_trial=new_trial,
        settings=settings,
        display=display,
        metric=experiment.metric,
        mode=experiment.mode,
        budget=budget,
    )
    metric_is_reported = MetricIsReported(experiment.metric)
    names = TrialNames(plan.path)
    directory = Path(plan.storage, plan.name) if "://" not in plan.storage else None
    slots = resources.concurrent_trials(plan.trainer.scaling_config, uses_ray_data=is_streamed(plan.trainer.datasets))
    searcher = make_searcher(plan.searcher, seed=plan.seed, study_name=plan.name, directory=directory, budget=budget)
    # HyperBand pauses trials until its bracket is full, which a limit would never let happen.
    limits_itself = isinstance(searcher, ConcurrencyLimiter) or isinstance(plan.trial_scheduler, HyperBandScheduler)
    tuner = tune.Tuner(
        plan.trainable,
        param_space={configuration: {**plan.constants, **plan.space}},
        tune_config=tune.TuneConfig(
            num_samples=1 if grid_size(plan.space) else plan.trials,
            search_alg=searcher,
            scheduler=plan.trial_scheduler,
            metric=experiment.metric,
            mode=experiment.mode,
            max_concurrent_trials=None if limits_itself else slots,
            reuse_actors=True,
            trial_name_creator=names,
            trial_dirname_creator=names,
        ),
        run_config=tune.RunConfig(
            name=plan.name,
            storage_path=plan.storage,
            callbacks=[observer, plan.head_start, JsonLoggerCallback(), CSVLoggerCallback()],
            stop=metric_is_reported,
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(
                # The best; Ray Tune always keeps the last too. A population must also find what it exploits.
                num_to_keep=4 if isinstance(plan.trial_scheduler, PopulationBasedTraining) else 1,
                checkpoint_score_attribute=experiment.metric,
                checkpoint_score_order=experiment.mode,
                checkpoint_at_end=False,
            ),
        ),
    )
    patience = time_to_end(plan.worker_policy.stop_grace_s + END_TAKES_S)
    with display, observer.ending_in_order(), _tune_as_a_sweep_needs_it(), patience:
        try:
            grid = tuner.fit()
        except BaseException:  # a second Ctrl-C, for example
            observer.stop_rest()
            raise
    if metric_is_reported.fault is not None:
        raise metric_is_reported.fault
    tracking_fault = _await_tracking(plan.writer)
    observer.note_runs()
    trials = sorted(observer.trials.values(), key=lambda trial: trial.number)
    for result in grid:
        _attach_best_checkpoint(trials, result, experiment.metric, experiment.mode, settings)
    return SweepResult(
        name=plan.name,
        experiment=experiment.name,
        module=experiment.module,
        metric=experiment.metric,
        mode=experiment.mode,
        run_id=parent.recorded_id if parent else None,
        tracking_uri=store.without_credentials(store.tracking_uri()),
        path=plan.path,
        trials=trials,
        planned=plan.trials,
        interrupted=observer.interrupted,
        tracking_fault=tracking_fault,
    )


def _await_tracking(writer: Writer) -> str | None:
    """What MLflow has not recorded, in words: it costs no result."""
    try:
        writer.await_written()
    except TrackingError as error:
        return str(error)
    return None


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


def _attach_best_checkpoint(
    trials: list[TrialResult], result: Any, metric: str, mode: str, settings: Callable[[Mapping[str, Any]], Any]
) -> None:
    """Gives a trial the best checkpoint that Ray Tune kept, with the metrics and settings that belong to it."""
    trial = next((each for each in trials if os.path.basename(each.path) == os.path.basename(result.path)), None)
    rated = [(m[metric], c, m) for c, m in result.best_checkpoints or [] if metric in m and m[metric] == m[metric]]
    if trial is None or not rated:
        return
    _, checkpoint, metrics = (max if mode == "max" else min)(rated, key=lambda each: each[0])
    from hfsuite.trainers.checkpoint import TransformersCheckpoint

    trial.checkpoint, trial.metrics = TransformersCheckpoint(checkpoint.path, checkpoint.filesystem), reported(metrics)
    trial.config, trial.searched = settings(metrics["config"])


@contextmanager
def _closed_whatever_happens(run: runs.Run) -> Iterator[None]:
    """An error in the driver must not leave a run that seems to go on for ever."""
    try:
        yield
    except BaseException as error:
        run.set_tags({"hfsuite.error": f"{type(error).__name__}: {error}"})
        run.end(TrialState.FAILED if isinstance(error, Exception) else TrialState.STOPPED)
        with suppress(TrackingError):  # the error itself is on its way
            run.writer.await_written(AFTER_ERROR_S)
        raise


def _sweep_state(result: SweepResult) -> TrialState:
    if result.interrupted:
        return TrialState.STOPPED
    return TrialState.FAILED if result.exit_code == 1 else TrialState.COMPLETED
