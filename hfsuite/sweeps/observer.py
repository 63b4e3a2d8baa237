"""Follows a sweep while it runs: from Ray Tune's events to trial results, MLflow and the screen. Driver."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import pyarrow.fs
from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.result import AUTO_RESULT_KEYS, DEBUG_METRICS

from hfsuite.errors import MetricNotReported, did_you_mean
from hfsuite.search.trial_schedulers import Budget
from hfsuite.sweeps.display import Display
from hfsuite.sweeps.result import TrialResult, address
from hfsuite.tracking.runs import Run
from hfsuite.tracking.state import TrialState
from hfsuite.trainers.report_observer import TRAINING_FINISHED
from hfsuite.trials.trainable import FAILED_AT_END, FAILURE, LOST, WARM_START

WARM_START_TAG = "hfsuite.warm_start"
KEPT_FROM_TUNE = {"training_iteration", "time_total_s"}
FROM_TUNE = (
    {*AUTO_RESULT_KEYS, *DEBUG_METRICS, "config", "done", "trial_id", "should_checkpoint", "experiment_tag"}
    | {
        TRAINING_FINISHED,
        FAILED_AT_END,
        WARM_START,
        LOST,
        "time_since_restore",
        "iterations_since_restore",
        "timesteps_since_restore",
        "checkpoint_dir_name",
    }
) - KEPT_FROM_TUNE


class TrialNames:
    """Names trials, and their directories, by the order of their proposals: trial_000, trial_001, ...

    Ray Tune copies it for each trial, so the numbers belong to the class.
    """

    _numbers: ClassVar[dict[str, dict[str, int]]] = {}

    def __init__(self, sweep: str) -> None:
        self.sweep = sweep

    def __call__(self, trial: Trial) -> str:
        """The name of a trial, the same each time."""
        numbers = self._numbers.setdefault(self.sweep, {})
        return f"trial_{numbers.setdefault(trial.trial_id, len(numbers)):03d}"

    @staticmethod
    def number(trial: Trial) -> int:
        """Back from the name."""
        return int(str(trial.custom_trial_name).rpartition("_")[2])


class SweepObserver(Callback):
    """Keeps one `TrialResult` for each trial up to date and tells MLflow and the screen.

    Args:
        open_run: opens the MLflow run of a trial.
        new_trial: makes the result of a trial from its number and Tune's trial.
        settings: a trial's settings, and those of them that are searched, out of Tune's configuration.
        display: shows the trials.
        metric: what the sweep optimises.
        mode: "min" or "max".
        budget: of the trial scheduler: a trial stopped at its end is complete.
    """

    def __init__(
        self,
        *,
        open_run: Callable[[TrialResult], Run],
        new_trial: Callable[[int, Trial], TrialResult],
        settings: Callable[[Mapping[str, Any]], tuple[dict[str, Any], dict[str, Any]]],
        display: Display,
        metric: str,
        mode: str,
        budget: Budget,
    ) -> None:
        self.open_run, self.new_trial, self.settings, self.display = open_run, new_trial, settings, display
        self.metric, self.mode, self.budget = metric, mode, budget
        self.trials: dict[str, TrialResult] = {}
        self.interrupted = False
        self._runs: dict[str, Run] = {}
        self._started: dict[str, float] = {}  # those that are not over
        self._stopped_at_report: dict[str, bool] = {}

    def result(self, trial: Trial) -> TrialResult:
        """The result of a trial, made when it is first asked for."""
        if trial.trial_id not in self.trials:
            self.trials[trial.trial_id] = self.new_trial(TrialNames.number(trial), trial)
        return self.trials[trial.trial_id]

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune saves its callbacks with the sweep; connections and screens do not travel."""
        return {"trials": self.trials, "metric": self.metric, "mode": self.mode, "interrupted": self.interrupted}

    # ---- Ray Tune's events

    @contextmanager
    def ending_in_order(self) -> Iterator[None]:
        """Puts the process's own signal handlers back when the sweep is over."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        own = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in own.items():
                signal.signal(number, handler)

    def setup(self, **_: Any) -> None:
        """Tune has just installed its handler of Ctrl-C, which ends the sweep in order; SIGTERM shall do the same."""
        if threading.current_thread() is not threading.main_thread():
            return
        end_in_order = signal.getsignal(signal.SIGINT)

        def note_and_end(number: int, frame: Any) -> None:
            self.interrupted = True
            if callable(end_in_order):
                end_in_order(number, frame)

        signal.signal(signal.SIGINT, note_and_end)
        signal.signal(signal.SIGTERM, note_and_end)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial's actor runs, for the first time or again."""
        result = self.result(trial)
        result.state = TrialState.RUNNING
        self._started.setdefault(trial.trial_id, time.monotonic() - result.seconds)
        self._run_of(trial)

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Tune's loop turns many times a second: now and then the table is drawn."""
        if self.display.is_due:
            for trial_id in self._started:
                self._stop_clock(trial_id)
            self.display.show(self.trials.values())

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """A report. `done` says that the trial scheduler stops the trial at it."""
        metrics = reported(result)
        record = self.result(trial)
        record.iterations = result["training_iteration"]
        if WARM_START in result:
            record.warm_start, record.workers_lost = result[WARM_START], result.get(LOST)
            self._run_of(trial).set_tags({WARM_START_TAG: str(result[WARM_START])})
        if self._is_better(metrics, record.metrics):
            record.metrics = metrics
            record.config, record.searched = self.settings(result["config"])  # a population changes them
        stopped = bool(result.get("done")) and not result.get(TRAINING_FINISHED) and not self.budget.is_spent(result)
        self._stopped_at_report[trial.trial_id] = stopped
        self._run_of(trial).log_metrics(metrics, int(metrics.get("step", record.iterations)))
        self.display.report(record, metrics)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """The trial ended by itself, or the trial scheduler stopped it."""
        record = self.result(trial)
        if (trial.last_result or {}).get(FAILED_AT_END):
            record.failure = trial.last_result[FAILED_AT_END]
            self._run_of(trial).log_text(record.failure, FAILURE)
            self._end(trial, TrialState.FAILED)
            return
        ended_while_paused = not (trial.last_result or {}).get("done")
        pruned = self._stopped_at_report.get(trial.trial_id, False) or ended_while_paused
        self._end(trial, TrialState.PRUNED if pruned else TrialState.COMPLETED)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """The trial failed, and has no attempt left."""
        record = self.result(trial)
        record.failure = self._failure_text(trial)
        self._run_of(trial).log_text(record.failure, FAILURE)
        self._end(trial, TrialState.FAILED)

    def on_experiment_end(self, trials: list[Trial], **_: Any) -> None:
        """What still runs now was ended by the user."""
        for trial in trials:
            if not self.result(trial).state.is_over:
                self._end(trial, TrialState.STOPPED)

    def note_runs(self) -> None:
        """Gives each result the id of its run, if MLflow has one."""
        for trial_id, run in self._runs.items():
            self.trials[trial_id].run_id = run.recorded_id

    def stop_rest(self) -> None:
        """Records as stopped what is not over, where the end of the sweep was cut short."""
        for trial_id, run in self._runs.items():
            if not self.trials[trial_id].state.is_over:
                self.trials[trial_id].state = TrialState.STOPPED
                if trial_id in self._started:
                    self._stop_clock(trial_id)
                run.end(TrialState.STOPPED)

    # ---- inside

    def _stop_clock(self, trial_id: str) -> None:
        self.trials[trial_id].seconds = time.monotonic() - self._started[trial_id]

    def _run_of(self, trial: Trial) -> Run:
        """The trial's MLflow run, opened when it is first needed: also a trial that never started has one."""
        if trial.trial_id not in self._runs:
            record = self.result(trial)
            self._runs[trial.trial_id] = self.open_run(record)
        return self._runs[trial.trial_id]

    def _end(self, trial: Trial, state: TrialState) -> None:
        result = self.result(trial)
        result.state = state
        if trial.trial_id in self._started:
            self._stop_clock(trial.trial_id)
            del self._started[trial.trial_id]
        run = self._run_of(trial)
        if trial.checkpoint is not None:
            run.log_checkpoint(trial.checkpoint, address(trial.checkpoint.path, result.path))
        run.end(state)

    def _is_better(self, new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
        if math.isnan(new.get(self.metric, math.nan)) or math.isnan(old.get(self.metric, math.nan)):
            return not math.isnan(new.get(self.metric, math.nan)) or not old
        return bool(new[self.metric] > old[self.metric] if self.mode == "max" else new[self.metric] < old[self.metric])

    @staticmethod
    def _failure_text(trial: Trial) -> str:
        """The failed rank's own traceback; where no rank could write one, what Tune knows."""
        filesystem: pyarrow.fs.FileSystem = trial.storage.storage_filesystem
        path = f"{trial.storage.trial_fs_path}/{FAILURE}"
        if filesystem.get_file_info(path).is_file:
            with filesystem.open_input_stream(path) as stream:
                return str(stream.read().decode()).strip()
        return str(trial.get_error() or "The trial's process ended without a word: look at Ray's logs.").strip()


class MetricIsReported(Stopper):
    """Ends a sweep at its first report if that lacks the metric to optimise; later reports may leave it out."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.fault: MetricNotReported | None = None
        self.seen = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Tune asks on the driver, before searcher and trial scheduler see the report."""
        metrics = reported(result)
        self.seen = self.seen or self.metric in metrics
        if not self.seen:
            self.fault = MetricNotReported(
                f"The metric {self.metric!r} is not in the trial's report. {did_you_mean(self.metric, metrics)} "
                f"Reported: {', '.join(sorted(metrics))}."
            )
        return self.fault is not None

    def stop_all(self) -> bool:
        """Whether the sweep ends here."""
        return self.fault is not None


def reported(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the training function reported, without what Ray Tune adds for itself."""
    return {name: value for name, value in result.items() if name not in FROM_TUNE}
