"""A sweep from beginning to end: check all, open the parent run, let Ray Tune work, collect the results. Driver."""

from __future__ import annotations

import functools
import os
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import pyarrow.fs
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from hfsuite.errors import ConfigurationError
from hfsuite.search.own_choices import OwnChoices
from hfsuite.search.searchers import SAMPLERS, VARIANTS, AnySearcher
from hfsuite.search.spaces import OnlyWhere, can_count, constants_of, describe, is_searched, outside
from hfsuite.search.trial_schedulers import Budget, what_hyperband_needs
from hfsuite.sweeps.display import Display
from hfsuite.sweeps.log_lines import LogLines
from hfsuite.sweeps.observer import SweepObserver
from hfsuite.sweeps.plan import Plan, checked_plan
from hfsuite.sweeps.result import SweepResult, TrialResult, address, best_trial
from hfsuite.sweeps.trial_settings import TrialSettings
from hfsuite.sweeps.tuning import run_tune
from hfsuite.tracking.declared import MAIN
from hfsuite.tracking.provenance import without_credentials
from hfsuite.tracking.record import REPORTS_FILE, ReportReader, SweepDirectory, trial_directory
from hfsuite.tracking.state import TrialState
from hfsuite.trainers.datasets import is_streamed
from hfsuite.trainers.determinism import COST
from hfsuite.trials import resources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hfsuite.sweeps.experiment import Experiment

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
    gpu: bool | float | None,
    fixed: Mapping[str, Any],
    seed: int,
    name: str | None,
    storage: str | os.PathLike[str],
    worker_policy: Mapping[str, Any],
    keep: str = "best",
    deterministic: bool | None = None,
    try_defaults: bool = False,
    confirms: tuple[str, str] | None = None,
    conditions: OnlyWhere | None = None,
    faults: Sequence[str] = (),
) -> SweepResult:
    """Searches. See `Experiment.sweep` for the arguments and what is raised.

    Args:
        confirms: run id and name of the sweep whose finalists these are; each trial that ends by itself is then tested.
        conditions: which settings count only where others have certain values; None for the experiment's.
        faults: mistakes that the caller has found already; they are named with all others.
    """
    space = {key: value for key, value in experiment.space.items() if key not in fixed}
    plan = checked_plan(
        experiment, kind="sweep", space=space, trials=trials, workers=workers, gpu=gpu, fixed=fixed, seed=seed,
        name=name, storage=storage, searcher=searcher, trial_scheduler=trial_scheduler, worker_policy=worker_policy,
        keep=keep, deterministic=deterministic, try_defaults=try_defaults, confirms=confirms, conditions=conditions,
        known_faults=faults,
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
    space = {key: value for key, value in experiment.space.items() if key not in asked["fixed"]}
    choices = OwnChoices.of(experiment.space, experiment.defaults)
    faults += choices.faults(asked["fixed"], asked.get("not_written", []))
    if faults:
        raise ConfigurationError(faults)
    plan = checked_plan(
        experiment, kind=record.kind, space=space, trials=asked["trials"], workers=asked["workers"], gpu=asked["gpu"],
        fixed=asked["fixed"], seed=asked["seed"], name=record.name, storage=storage, keep=asked["keep"],
        worker_policy=asked["worker_policy"], deterministic=asked["deterministic"], known_faults=(), resumed=record,
        retry_failed=retry_failed, try_defaults=asked.get("try_defaults", False), **chosen,
    )  # fmt: skip
    return _run(plan)


@_in_turn
def run_training(
    experiment: Experiment,
    *,
    fixed: Mapping[str, Any],
    workers: int | None,
    gpu: bool | float | None,
    seed: int,
    name: str | None,
    storage: str | os.PathLike[str],
    deterministic: bool | None = None,
    reports: int | None = None,
    reproduces: str | None = None,
    faults: Sequence[str] = (),
) -> TrialResult:
    """Trains once; a training that failed is returned too. See `Experiment.train`, and `run_sweep` for `faults`.

    Args:
        reports: after how many it ends, whatever it still would do; None for its own end.
        reproduces: the run that it repeats.
    """
    plan = checked_plan(
        experiment, kind="train", space={}, trials=1, workers=workers, gpu=gpu, fixed=fixed, seed=seed, name=name,
        storage=storage, searcher="grid", trial_scheduler="fifo", worker_policy={}, keep="best",
        deterministic=deterministic, try_defaults=False, known_faults=faults, reports=reports, reproduces=reproduces,
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
        if not observer.display.console.is_terminal:
            LogLines(observer.display.console, [], plan.trials).plan(record)
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
    record = plan.record
    if record.params["gpu"] and record.params["deterministic"]:
        yield COST
    is_chosen = record.arguments["gpu"] is not None or record.kind != "sweep" or record.params["gpu"]
    if not is_chosen and (gpus := sum(node.get("GPU", 0) for node in resources.cluster_nodes())):
        yield f"The workers are on CPUs, though the cluster has GPUs ({gpus:g}): --gpu gives each worker one."
    if record.provenance.get("source") is None and record.module == MAIN:
        yield (
            "Where this experiment is declared cannot be read again (a Python prompt, or a program from a pipe): its "
            "trials cannot be reproduced, exported, confirmed or taken up again elsewhere. Put it into a file."
        )
    constants = {**plan.constants, **constants_of(plan.space)}
    searched = [name for name, domain in plan.space.items() if is_searched(domain)]
    if idle := [name for name in searched if not can_count(name, plan.only_where, plan.space, constants)]:
        yield f"Not searched, since what they depend on is fixed to another value: {', '.join(idle)}."
    if record.arguments.get("try_defaults") and plan.searcher in SAMPLERS:
        for each in outside(plan.space, plan.experiment.defaults):
            yield (
                f"The default of {each}, {plan.experiment.defaults[each]!r}, lies outside of its own search space, "
                f"{describe(plan.space[each])}: the default settings are not tried first."
            )
    slots = resources.concurrent_trials(plan.trainer.scaling_config, uses_ray_data=is_streamed(plan.trainer.datasets))
    ahead = plan.searcher == VARIANTS
    if told := what_hyperband_needs(plan.trial_scheduler, slots=slots, trials=plan.trials, are_drawn_ahead=ahead):
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
    is_default = plan.storage == os.path.abspath("results")
    return "" if is_default else f" --storage {shlex.quote(without_credentials(plan.storage))}"


def _observer(plan: Plan) -> SweepObserver:
    record = plan.record
    settings = TrialSettings(
        argument=plan.trainer.config_argument, space=plan.space, conditions=plan.conditions,
        constants=plan.constants, seeds=plan.seeds,
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
        budget=Budget(plan.reports) if plan.reports is not None else Budget.of(plan.trial_scheduler),
        trial_scheduler=str(record.params["trial_scheduler"]),
        keep=plan.keep,
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
