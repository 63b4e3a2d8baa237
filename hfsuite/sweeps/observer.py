"""Follows a sweep while it runs: from Ray Tune's events to trial results, records, MLflow and the screen. Driver."""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from hfsuite.errors import TrialFailed
from hfsuite.report import FACTS_FILE, FAILED_AT_END, FAILURE_FILE, LOST, TRAINING_FINISHED, WARM_START
from hfsuite.search.trial_schedulers import Budget
from hfsuite.sweeps.display import Display
from hfsuite.sweeps.interruption import Interruption
from hfsuite.sweeps.reasons import failure_text, first_line, is_hopeless, of_error
from hfsuite.sweeps.remaining import EndOfSweep
from hfsuite.sweeps.result import TrialResult
from hfsuite.sweeps.snapshots import Snapshots
from hfsuite.sweeps.trial_names import TrialNames
from hfsuite.sweeps.trial_settings import TrialSettings
from hfsuite.sweeps.tune_loop import Removals
from hfsuite.tracking import keeping, saved
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.points import reported, step_of
from hfsuite.tracking.record import SweepRecord, TrialRecord
from hfsuite.tracking.state import TrialState
from hfsuite.tracking.writer import Writer

BY_USER = "by the user"


class SweepObserver(Callback):
    """Keeps the result and the record of each trial up to date, and tells MLflow and the screen.

    Args:
        sweep: the record of the sweep.
        directory: the sweep's, where trials' records are written.
        writer: of the tracking store.
        new_trial: makes the result of a trial from its number and Tune's trial.
        settings: how a trial's settings are read.
        display: shows the trials.
        budget: of the trial scheduler: a trial stopped at its end is complete.
        known: records of a sweep that is taken up again.
    """

    def __init__(
        self,
        *,
        sweep: SweepRecord,
        directory: SweepDirectory,
        writer: Writer,
        new_trial: Callable[[int, Trial], TrialResult],
        settings: TrialSettings,
        display: Display,
        budget: Budget,
        known: Mapping[str, TrialRecord],
    ) -> None:
        self.sweep, self.directory, self.writer = sweep, directory, writer
        self.new_trial, self.settings, self.display, self.budget = new_trial, settings, display, budget
        self.trial_scheduler, self.keep = str(sweep.params["trial_scheduler"]), sweep.arguments["keep"]
        self.snapshots = Snapshots(sweep.metric, sweep.mode, settings)
        self.records, self.has_begun = dict(known), bool(known)  # the latter: whether there was ever a trial
        self.trials: dict[str, TrialResult] = {}
        self.interruption, self.removals = Interruption(), Removals(self._in_use)
        self.end = EndOfSweep(sweep.planned - sum(not each.state.is_unfinished for each in known.values()))
        self._began: dict[str, float] = {}  # when those that are not over began, less what they had run before
        self._live: dict[str, Trial] = {}
        self._stopped_at_report: dict[str, bool] = {}
        self._reports: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {}  # by trial and checkpoint
        self.give_up: Callable[[TrialFailed], None] = lambda _: None  # a trial has failed as all others would
        self.share_of: Callable[[Trial], float | None] = lambda _: None  # of GPUs, where trials share them
        self.ends_all: Callable[[], Exception | None] = lambda: None  # what ends the sweep before its time
        self._news: set[str] = set()  # trials to tell of when Ray Tune has saved what it knows

    def result(self, trial: Trial) -> TrialResult:
        """The result of a trial, made when it is first asked for."""
        if trial.trial_id not in self.trials:
            number = TrialNames.number(trial)
            result = self.trials[trial.trial_id] = self.new_trial(number, trial)
            if (record := self.records.get(trial.trial_id)) is None:
                self.records[trial.trial_id] = TrialRecord(number=number, trial_id=trial.trial_id)
            else:  # of a sweep that is taken up again
                result.state, result.why, result.seconds = record.state, record.why, record.seconds
                result.iterations, result.warm_start = record.reports, record.warm_start
                result.gpu_share, result.workers = record.gpu_share, record.workers
                result.metrics = dict(record.best.metrics) if record.best is not None else {}
                if record.best is not None and self.sweep.decides_at_end:  # Ray Tune has restored what they came to
                    self._set_config(result, record.config_at_best)
                if record.state is TrialState.FAILED:
                    result.failure = failure_text(self.directory, record.directory, trial)
        return self.trials[trial.trial_id]

    # ---- Ray Tune's events

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial's actor runs, for the first time or again."""
        self.has_begun = True
        result = self.result(trial)
        result.state, result.why = TrialState.RUNNING, ""
        self._began.setdefault(trial.trial_id, time.monotonic() - result.seconds)
        self._live[trial.trial_id] = trial
        self.end.at_once = len(self._live)
        self.display.begins(result)
        record, request = self.records[trial.trial_id], trial.placement_group_factory
        record.started_at, record.ended_at = record.started_at or _now(), None
        step = record.saved[-1].step if record.saved else 0  # from which it goes on
        if step and not record.workers:  # an older version wrote the record
            record.note_workers(0, int(self.sweep.params["workers"]))
        record.note_workers(step, len(request.bundles))
        result.workers = record.workers
        if self.keep != "all":
            record.kept = []  # of the attempt before; Ray Tune removes it when there is a newer one
        self._news.add(trial.trial_id)

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Tune's loop has turned, and has saved what it knows of new trials: none is recorded that it could forget."""
        for trial_id, trial in self._live.items():
            if (trial.status == Trial.PAUSED) is not (self.trials[trial_id].state is TrialState.PAUSED):
                paused = trial.status == Trial.PAUSED
                self.trials[trial_id].state = TrialState.PAUSED if paused else TrialState.RUNNING
                self._news.add(trial_id)
        for trial_id in sorted(self._news, key=lambda each: self.trials[each].number):
            self._write(trial_id)
        self._news.clear()
        if self.interruption.is_wished:
            self._record_interruption()
        if self.display.is_due:
            for trial_id in self._began:
                self._stop_clock(trial_id)
                self._note_share(trial_id)
            self.display.show(self.trials.values(), self.end.left(self.trials.values()))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """A report. `done` says that the trial scheduler stops the trial at it."""
        metrics = reported(result)
        trial_result, record = self.result(trial), self.records[trial.trial_id]
        trial_result.iterations = record.reports = result["training_iteration"]
        if WARM_START in result:
            trial_result.warm_start, trial_result.workers_lost = result[WARM_START], result.get(LOST)
            record.warm_start = result[WARM_START]
        if self.snapshots.is_better(metrics, trial_result.metrics):
            trial_result.metrics = metrics
            self._set_config(trial_result, self.settings.of(record.number, result["config"]))
        best = record.best
        if best is None or (best.directory is None and self.snapshots.is_better(metrics, best.metrics)):
            record.best = self.snapshots.of(record, None, result)
        stopped = bool(result.get("done")) and not result.get(TRAINING_FINISHED) and not self.budget.is_spent(result)
        self._stopped_at_report[trial.trial_id] = stopped
        self._note_share(trial.trial_id)
        self.writer.touch(record)
        self.display.report(trial_result, metrics)

    def on_checkpoint(self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Any, **_: Any) -> None:
        """Ray Tune has taken a checkpoint over, that of the last report; it keeps the best and the last."""
        record, result = self.records[trial.trial_id], trial.last_result
        snapshot = self.snapshots.of(record, os.path.basename(checkpoint.path), result)
        self._reports[trial.trial_id, str(snapshot.directory)] = (reported(result), result["config"])
        saved = [each for each in record.saved if each.directory != snapshot.directory]
        record.saved = [*saved, snapshot]
        if record.best is None or record.best.directory is None:  # or it was removed, when an attempt had ended
            record.best = record.saved[0]
        for each in record.saved:
            if self.snapshots.is_better(each.metrics, record.best.metrics):
                record.best = each
        if self.keep == "all":
            record.kept = list(record.saved)
        else:  # Ray Tune keeps the last, and one of the best
            best = record.best.metrics.get(self.sweep.metric)
            record.saved = [
                each for each in record.saved if each is snapshot or each.metrics.get(self.sweep.metric) == best
            ]
        self._news.add(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """The trial ended by itself, or the trial scheduler stopped it."""
        result, last = self.result(trial), trial.last_result or {}
        if last.get(FAILED_AT_END):
            result.failure = last[FAILED_AT_END]
            self._end(trial, TrialState.FAILED, first_line(result.failure))
        elif self._stopped_at_report.get(trial.trial_id, False) or not last.get("done"):  # or while it was paused
            pruned = TrialState.PRUNED, f"{self.trial_scheduler} at step {step_of(last) if last else 0}"
            self._end(trial, *(self._cut_short() if self.ends_all() else pruned))  # its own report may end all
        else:
            self._end(trial, TrialState.COMPLETED)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """The trial failed, and has no attempt left."""
        result = self.result(trial)
        result.failure = failure_text(self.directory, self.records[trial.trial_id].directory, trial)
        others = [] if any(each.iterations for each in self.trials.values()) else self.trials.values()
        if is_hopeless(result.failure, [first_line(each.failure) for each in others if each is not result]):
            self.give_up(TrialFailed(first_line(result.failure)))
        self._end(trial, TrialState.FAILED, first_line(result.failure))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """The trial has failed, and is tried again: what it failed of then says nothing about it."""
        self.directory.remove_file(f"{self.records[trial.trial_id].directory}/{FAILURE_FILE}")

    def on_experiment_end(self, trials: list[Trial], **_: Any) -> None:
        """What still runs now was ended. Of a sweep that was taken up again Tune names all trials here."""
        for trial in trials:
            if not self.result(trial).state.is_over:
                self._end(trial, *self._cut_short())

    # ---- when Ray Tune has ended

    def stop_rest(self) -> None:
        """Records what is not over, where the end of the sweep was cut short."""
        self.on_experiment_end(list(self._live.values()))

    def rest(self, trial: Trial) -> float | None:
        """Seconds that a trial still takes which runs, on an average; None if that cannot be told."""
        self._stop_clock(trial.trial_id)
        return self.end.rest(self.result(trial), self.trials.values())

    def saves_all(self, trial: Trial) -> bool:
        """Whether a trial's checkpoints hold all that its training needs to go on, as far as its ranks have told."""
        text = self.directory.read_text(f"{self.records[trial.trial_id].directory}/{FACTS_FILE}")
        return not (text and json.loads(text).get("saves_only_model"))

    def settle(self) -> None:
        """Removes the checkpoints that shall not stay, and gives each result its best one that does."""
        keeping.decide(self.sweep, self.records.values(), self.keep)
        self._remove_others(self.records.values())
        for trial_id, result in self.trials.items():
            self._attach_checkpoint(result, self.records[trial_id])

    def note_runs(self) -> None:
        """Gives each result the id of its run, if MLflow has one."""
        for trial_id, result in self.trials.items():
            result.run_id = self.writer.recorder.run_id(trial_id)

    # ---- inside

    def _in_use(self) -> set[str]:
        """Where trials that are not over go on from: what Ray Tune removes of one may be what another shall exploit."""
        return {trial.checkpoint.path for trial in self._live.values() if trial.checkpoint is not None}

    def _cut_short(self) -> tuple[TrialState, str]:
        """What becomes of a trial that runs when the sweep ends: by the user, by what ends all, or by an error."""
        if (fault := self.ends_all()) is not None:
            return TrialState.STOPPED, of_error(fault)
        if isinstance(error := sys.exception(), Exception):  # Ray Tune ends its trials while it handles its loop's
            return TrialState.LOST, of_error(error)
        return TrialState.STOPPED, BY_USER

    def _record_interruption(self) -> None:
        """Says what the end will say, before Tune begins to end anything.

        A SIGTERM to all processes of a job ends Ray too. Tune then waits for it, until Ray ends this process (60 s).
        """
        for trial_id in self._live:
            stopped = replace(self.records[trial_id], state=TrialState.STOPPED, why=BY_USER, ended_at=_now())
            self.directory.write_trial(stopped)
            self.writer.touch(stopped)
        self.sweep.state, self.sweep.ended_at = TrialState.STOPPED, _now()
        self.directory.write_sweep(self.sweep)
        self.writer.touch()

    def _end(self, trial: Trial, state: TrialState, why: str = "") -> None:
        result, record = self.result(trial), self.records[trial.trial_id]
        result.state, result.why = state, why
        if trial.trial_id in self._began:
            self._stop_clock(trial.trial_id)
            self._note_share(trial.trial_id)
            del self._began[trial.trial_id]
        self._live.pop(trial.trial_id, None)
        states = {**{trial_id: each.state for trial_id, each in self.records.items()}, trial.trial_id: state}
        over = sum(each.is_over and not each.is_unfinished for each in states.values())
        self.display.ends(result, over, self.end.left(self.trials.values()))
        record.started_at, record.ended_at = record.started_at or _now(), _now()
        self.removals.wait()
        keeping.forget_removed(self.directory, record, self.snapshots.is_better)
        keeping.note_weights(self.directory, record)
        if state.is_unfinished:
            saved.adopt(self.directory, record, self.sweep.metric)
        record.state = state
        self._news.discard(trial.trial_id)
        if self.sweep.decides_at_end:
            self._write(trial.trial_id)
        else:
            changed = keeping.decide(self.sweep, self.records.values(), self.keep)
            self._remove_others({each.trial_id: each for each in [record, *changed]}.values())

    def _remove_others(self, records: Iterable[TrialRecord]) -> None:
        """What the policy does not keep goes from storage; what stays and what goes is written down first."""
        records = list(records)
        for record in records:
            self._write(record.trial_id)
        for record in records:
            before = copy.copy(record)
            keeping.remove_others(self.directory, record)
            if record != before:
                self._write(record.trial_id)

    def _write(self, trial_id: str) -> None:
        """Brings the record up to what the result says, and tells storage and MLflow."""
        record = self.records[trial_id]
        if (result := self.trials.get(trial_id)) is not None:
            record.state, record.why, record.failure = result.state, result.why, first_line(result.failure)
            record.note_settings(result.config)  # from which snapshots tell how they have changed
            values = record.config_at_best
            record.searched, record.idle = list(self.settings.searched(values)), self.settings.idle(values)
            record.seconds, record.gpu_share = round(result.seconds, 3), result.gpu_share
        self.directory.write_trial(record)
        self.writer.touch(record)

    def _stop_clock(self, trial_id: str) -> None:
        self.trials[trial_id].seconds = time.monotonic() - self._began[trial_id]

    def _note_share(self, trial_id: str) -> None:
        share = self.share_of(self._live[trial_id]) if trial_id in self._live else None
        if share is not None:
            self.trials[trial_id].gpu_share = round(share, 3)

    def _attach_checkpoint(self, result: TrialResult, record: TrialRecord) -> None:
        """The best checkpoint that was kept, with the metrics and settings that belong to it."""
        found = record.best
        if found is None or found.directory is None:
            return
        from hfsuite.checkpoints.checkpoint import TransformersCheckpoint

        where = f"{self.directory.path}/{record.directory}/{found.directory}"
        result.checkpoint = TransformersCheckpoint(where, self.directory.filesystem)
        metrics, config = self._reports.get((record.trial_id, found.directory), (found.metrics, None))
        result.metrics = metrics
        if config is not None:
            self._set_config(result, self.settings.of(record.number, config))

    def _set_config(self, result: TrialResult, values: dict[str, Any]) -> None:
        """The settings at its best report: a population changes them."""
        result.config, result.searched = values, self.settings.searched(values)
        result.idle = self.settings.idle(values)


def _now() -> int:
    return int(time.time() * 1_000)
