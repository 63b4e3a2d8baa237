"""Ray Tune's part of a sweep: from the first proposal to the end of the last trial. Driver."""

from __future__ import annotations

import functools
import logging
import os
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune import Callback
from ray.tune.logger import CSVLoggerCallback
from ray.tune.schedulers import HyperBandScheduler, PopulationBasedTraining, ResourceChangingScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher

from hfsuite.errors import ConfigurationError, HFSuiteError
from hfsuite.search.optuna_search import TrialAwareOptunaSearch
from hfsuite.search.searchers import in_any_order, make_searcher
from hfsuite.search.spaces import grid_size
from hfsuite.search.trial_schedulers import Budget
from hfsuite.search.variants import LongFirstVariants
from hfsuite.sweeps import tune_state
from hfsuite.sweeps.gpu_sharing import GpuSharing
from hfsuite.sweeps.last_trials import LastTrials
from hfsuite.sweeps.metric_check import MetricIsReported, set_aside
from hfsuite.sweeps.reallocation import reallocate_gangs
from hfsuite.sweeps.report_log import ReportLog
from hfsuite.sweeps.request import AUTO
from hfsuite.sweeps.trial_names import TrialNames
from hfsuite.sweeps.tune_loop import (
    actors_outlive_pauses,
    comparable_reports,
    lasting_state,
    settings_taken_over,
    time_to_end,
    whole_populations,
)
from hfsuite.sweeps.tune_moves import last_trials_move
from hfsuite.sweeps.tune_slots import in_slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hfsuite.sweeps.observer import SweepObserver
    from hfsuite.sweeps.plan import Plan

END_TAKES_S = 15.0  # what a trial's end takes beside the unwinding of its training function


def run_tune(plan: Plan, observer: SweepObserver) -> None:
    """Lets Ray Tune run the trials of a sweep.

    Args:
        plan: of the sweep.
        observer: is told of every event.

    Raises:
        MetricNotReported: the first report does not have what is optimised.
        ConfigurationError: the sweep cannot be taken up again.
    """
    job, record = plan.job, plan.record
    metric, mode = job.experiment.metric, job.experiment.mode
    metric_is_reported = MetricIsReported(
        metric, job.purpose.reports, mode=mode,
        seen=any(metric in each.best.metrics for each in plan.known.values() if each.best is not None),
    )  # fmt: skip
    observer.ends_all = lambda: metric_is_reported.fault or metric_is_reported.hopeless
    observer.give_up = functools.partial(setattr, metric_is_reported, "hopeless")
    names = TrialNames(record.path, {each.trial_id: each.number for each in plan.known.values()})
    sharing = _sharing(plan, observer)
    last = _last_trials(plan, observer, sharing)
    searcher, at_once = _limited(plan, _searcher(plan, observer), sharing)
    resumed = plan.former is not None and tune_state.restore(plan.directory, expected=bool(plan.known))
    if is_reallocated := isinstance(plan.trial_scheduler, ResourceChangingScheduler):
        reallocate_gangs(plan.trial_scheduler)
    config = {job.trainer.config_argument: job.choices.told({**job.constants, **job.space})}
    with observer.display, observer.interruption, observer.removals, _tune_as_a_sweep_needs_it(plan, names, last):
        try:
            tune.run(
                plan.trainable,
                name=record.name,
                storage_path=job.storage,
                config=config,
                num_samples=1 if grid_size(job.space) else job.trials,
                search_alg=searcher,
                scheduler=plan.trial_scheduler,
                metric=metric,
                mode=mode,
                max_concurrent_trials=at_once,
                reuse_actors=not is_reallocated,  # an actor keeps the resources that it was made with
                trial_name_creator=names,
                trial_dirname_creator=names,
                callbacks=_callbacks(plan, observer, last),
                stop=metric_is_reported,
                verbose=0,
                raise_on_failed_trial=False,
                checkpoint_config=_checkpoints(plan),
                **({"resume": True, "resume_config": _what_goes_on(plan)} if resumed else {}),
            )
        except BaseException as error:  # a second Ctrl-C, for example
            observer.stop_rest()
            if isinstance(error, Exception) and not isinstance(error, HFSuiteError) and not observer.has_begun:
                raise ConfigurationError(_cannot_begin(plan, error)) from error
            raise
    if sharing is not None and job.gpu_share is not None:
        record.gpus = sharing.summary
    metric_is_reported.at_end()
    if told := getattr(searcher, "exhausted", None):
        observer.display.console.print(told, soft_wrap=True)


def _searcher(plan: Plan, observer: SweepObserver) -> Any:
    """Ray Tune's, made; the observer is told what it will propose, as far as that is known."""
    job = plan.job
    searcher = make_searcher(
        job.request.searcher,
        seed=job.request.seed,
        study_name=plan.record.name,
        directory=Path(job.storage, plan.record.name) if "://" not in job.storage else None,
        budget=Budget.of(plan.trial_scheduler),
        only_where=job.choices.told_conditions(job.only_where),
        defaults=job.choices.told_settings(job.every_constant, job.space),
        tries_defaults=job.tries_defaults,
        free=0 if _pauses(plan) else in_any_order(job.request.searcher, job.can_vary, job.trials),
    )
    if isinstance(searcher, TrialAwareOptunaSearch | LongFirstVariants):
        observer.end.works_ahead = lambda: searcher.works_ahead
    return searcher


def _limited(plan: Plan, searcher: Any, sharing: GpuSharing | None) -> tuple[Any, int | None]:
    """The searcher, and how many trials Ray Tune shall have it propose at most; None where nobody shall say so.

    HyperBand pauses trials until its bracket is full, which a limit would never let happen.
    """
    if isinstance(searcher, ConcurrencyLimiter) or isinstance(plan.trial_scheduler, HyperBandScheduler):
        return searcher, None
    if sharing is None or not isinstance(searcher, Searcher):  # one that lists its variants learns nothing from results
        return searcher, plan.slots
    return sharing.limited(searcher, plan.slots), None


def _sharing(plan: Plan, observer: SweepObserver) -> GpuSharing | None:
    """Who says how many trials share a GPU, if any do."""
    if plan.shared is None:
        return None
    sharing = GpuSharing(
        plan.shared,
        ranks=plan.job.trainer.scaling_config.num_workers,
        space=plan.job.can_vary,
        settings=lambda config: config.get(plan.job.trainer.config_argument, {}),
        is_measured=plan.job.gpu_share == AUTO,
        told=lambda text: observer.display.console.print(text, soft_wrap=True, highlight=False),
        ends_spare=plan.head_start.end_in,
    )
    if plan.job.gpu_share is not None:
        observer.share_of = sharing.share_of
    return sharing


def _last_trials(plan: Plan, observer: SweepObserver, sharing: GpuSharing | None) -> LastTrials | None:
    """Who says where trials go on when no other waits for GPUs, if any trials share some."""
    if sharing is None:
        return None
    return LastTrials(
        sharing,
        plan.head_start,
        at_end=plan.job.at_end,
        planned=plan.job.trials,
        rest=observer.rest,
        saves_all=functools.cache(observer.saves_all),
        told=sharing.told,
    )


def _callbacks(plan: Plan, observer: SweepObserver, last: LastTrials | None) -> list[Callback]:
    """Who is told of Ray Tune's events, in this order."""
    own: list[Callback] = [observer.interruption, observer, plan.head_start, ReportLog(), CSVLoggerCallback()]
    return own if last is None else [last.sharing, last, *own]


def _what_goes_on(plan: Plan) -> tune.ResumeConfig:
    """Of a sweep that is taken up again."""
    kinds = tune.ResumeConfig.ResumeType
    return tune.ResumeConfig(errored=kinds.RESUME if plan.job.purpose.retry_failed else kinds.SKIP)


def _cannot_begin(plan: Plan, error: Exception) -> str:
    """What went wrong in a searcher or a trial scheduler of the user's choice, or in a library of theirs."""
    chosen = plan.record.params
    lines = str(error).strip().splitlines() or [""]
    return (
        f"No trial could begin with the searcher {chosen['searcher']} and the trial scheduler "
        f"{chosen['trial_scheduler']}: {type(error).__name__}: {lines[-1]}"
    )


def _resources(plan: Plan, trial: Any) -> tune.PlacementGroupFactory:
    """What a trial that goes on needs; one whose resources a trial scheduler changes has those that it had."""
    if isinstance(plan.trial_scheduler, ResourceChangingScheduler):
        return trial.placement_group_factory
    return plan.trainable.default_resource_request(trial.config)


def _pauses(plan: Plan) -> bool:
    """Whether the trial scheduler pauses trials, which then want their actors again."""
    return isinstance(plan.trial_scheduler, PopulationBasedTraining | HyperBandScheduler)


def _checkpoints(plan: Plan) -> tune.CheckpointConfig:
    """The best; Ray Tune always keeps the last too. A population must also find what it exploits."""
    kept = 4 if isinstance(plan.trial_scheduler, PopulationBasedTraining) else 1
    return tune.CheckpointConfig(
        num_to_keep=None if plan.job.request.keep == "all" else kept,
        checkpoint_score_attribute=plan.job.experiment.metric,
        checkpoint_score_order=plan.job.experiment.mode,
        checkpoint_at_end=False,
    )


@contextmanager
def _tune_as_a_sweep_needs_it(plan: Plan, names: TrialNames, last: LastTrials | None) -> Iterator[None]:
    """Ray Tune does what a sweep needs; afterwards it is as before, for Tuners of the user's own."""
    metric, mode = plan.job.experiment.metric, plan.job.experiment.mode
    argument, choices = plan.job.trainer.config_argument, plan.job.choices
    keep = functools.partial(tune_state.keep, plan.directory)

    def own(config: dict[str, Any]) -> dict[str, Any]:
        return {**config, argument: choices.read(config.get(argument, {}))}

    with (
        settings_taken_over(own),
        _silent_tune(),
        time_to_end(plan.job.request.stop_grace_s + END_TAKES_S),
        lasting_state(keep, names.learn, functools.partial(_resources, plan)),
        actors_outlive_pauses() if _pauses(plan) else nullcontext(),
        whole_populations(),
        comparable_reports(metric, functools.partial(set_aside, metric=metric, mode=mode)),
        in_slots(last.shared, last.again) if last is not None else nullcontext(),
        last_trials_move(last.next_place, lambda: last.keeps_idle) if last is not None else nullcontext(),
    ):
        yield


@contextmanager
def _silent_tune() -> Iterator[None]:
    """Ray Tune is silent, and writes what a sweep reads.

    Tune logs each failure, with frames of its own, before anyone can say what the trial's rank said.
    """
    variables = {
        "RAY_AIR_NEW_OUTPUT": "0",  # the old output engine can be silent
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # MetricIsReported says it better, and as early
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of trials that Tune ends with the sweep, and does not ask any more
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # without TensorBoard's files: MLflow draws the charts
    }
    logger, before = logging.getLogger("ray.tune"), {name: os.environ.get(name) for name in variables}
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    os.environ |= variables
    try:
        with warnings.catch_warnings():
            # Of a trial scheduler's quantiles, where all trials so far have NaN.
            warnings.filterwarnings("ignore", "All-NaN slice encountered", RuntimeWarning)
            yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            del os.environ[name]
            os.environ |= {name: value} if value is not None else {}
