"""Tells MLflow what a sweep's directory says. Whatever is missing is written, and nothing twice.

The same while a sweep runs (the writer's thread calls it when a trial has news) and afterwards (`hfsuite sync`).
"""

from __future__ import annotations

import json
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hfsuite.errors import CheckpointError
from hfsuite.ranks.examination import TEST_FILE
from hfsuite.report import FAILURE_FILE
from hfsuite.tracking import describe, inputs, models, rank_logs, runs, settings, store, views
from hfsuite.tracking.directory import REPORTS_FILE, RUN_FILE, ReportReader, SweepDirectory
from hfsuite.tracking.names import Names, mlflow_name, names_of, paths, told
from hfsuite.tracking.points import HELD_S, REPORTED, TESTED, Point, Points, step_of
from hfsuite.tracking.provenance import write_provenance
from hfsuite.tracking.recipe import write_recipe
from hfsuite.tracking.record import SweepRecord, TrialRecord
from hfsuite.tracking.runs import Run
from hfsuite.tracking.secrets import without_secrets
from hfsuite.tracking.state import TrialState
from hfsuite.tracking.system_metrics import SystemMetrics

if TYPE_CHECKING:  # see `store`
    from collections.abc import Iterator

CAUTIONS = {  # a trial's tags that who compares trials should know of, and what each is said of
    f"{REPORTED}.eval_loss_depends_on": "eval_loss depends on",
    "hfsuite.weights_trained_in": "Weights are trained in",
    f"{REPORTED}.{rank_logs.JOINED}": "Curves that hold values which a training function logged before it reported:",
    "hfsuite.rows_depend_on": "Which rows are trained on or evaluated together depends on",
}


@dataclass
class _Trial:
    """What this process knows of a trial's run."""

    run: Run
    points: Points
    reports: ReportReader
    last_step: int = 0
    is_described: bool = False  # parameters, and where it came from
    has_failure: bool = False


@dataclass
class Recorder:
    """Brings the runs of one sweep up to date. One thread at a time.

    Args:
        client: of the tracking store.
        directory: the sweep's.
        readers: of trials' reports, by trial id, where those are not read in the sweep's directory.
        system: measures this machine meanwhile; None where nothing runs.
    """

    client: Any
    directory: SweepDirectory
    readers: dict[str, ReportReader] = field(default_factory=dict)
    system: SystemMetrics | None = None
    faults: list[str] = field(default_factory=list)
    _lacking: dict[str, str] = field(default_factory=dict)  # checkpoints that were not there, by trial
    _parent: Run | None = None
    _trials: dict[str, _Trial] = field(default_factory=dict)
    _standing: dict[int, TrialRecord] = field(default_factory=dict)
    _experiment_id: str = ""
    _is_described: bool = False
    _refused: int = 0

    def __post_init__(self) -> None:
        self.client = store.patient(self.client)

    def run_id(self, trial_id: str) -> str | None:
        """Of a trial's run, if it has been made."""
        return self._trials[trial_id].run.run_id if trial_id in self._trials else None

    @property
    def parent_id(self) -> str | None:
        """Of the sweep's run, if it has been made."""
        return self._parent.run_id if self._parent else None

    def is_holding(self, trial_id: str) -> bool:
        """Whether a trial has reports that wait to be written."""
        return trial_id in self._trials and self._trials[trial_id].points.is_holding

    def take_faults(self) -> list[str]:
        """What the store has refused since the last call, and what could not be given to it."""
        faults = [*self.faults, *self._lacking.values()]
        self.faults, self._lacking = [], {}
        return faults

    @property
    def remarks(self) -> list[str]:
        """What who compares the runs should know, each a sentence: it is in their tags too."""
        marked, found = dict(self._parent.marked) if self._parent is not None else {}, set()
        for trial in self._trials.values():
            marked |= {**trial.run.marked, **trial.points.marked}
            said = ((subject, trial.run.tags.get(tag)) for tag, subject in CAUTIONS.items())
            found |= {f"{subject} {text.rstrip('.')}." for subject, text in said if text}
        return [*sorted(found), *([f"Names that meet in MLflow have a mark there: {told(marked)}."] if marked else [])]

    def settle_sweep(self, sweep: SweepRecord) -> None:
        """Writes what is missing about the sweep itself: its run, where it came from, how it stands."""
        self._experiment_id = self._experiment_id or store.experiment_id(self.client, sweep.mlflow_experiment)
        if sweep.state.is_over and not sweep.state.is_unfinished:
            self._link_models()
        if sweep.kind != "sweep":
            return
        is_new = self._parent is None
        if self._parent is None:
            self._parent = runs.find_or_create(
                self.client,
                self._experiment_id,
                {runs.SWEEP_ID: sweep.sweep_id, runs.KIND: sweep.kind},
                name=sweep.name,
                started_at=sweep.created_at,
                tags=_tags(sweep),
            )
        run = self._parent
        if not self._is_described:
            with self._unless_refused():
                run.write_params(sweep.params)
            with self._unless_refused():
                write_provenance(run, sweep)
            self._is_described = True
        best = self._standing.get(sweep.best) if sweep.best is not None else None
        tags: dict[str, Any] = {
            **_tags(sweep),
            runs.STATE: sweep.state,
            "mlflow.note.content": describe.sweep(sweep, list(self._standing.values())),
            **({f"{runs.TAG}.error": sweep.fault} if sweep.fault else {}),
            **describe.standing(sweep, list(self._standing.values())),
            **{f"{runs.GPUS}.{name}": value for name, value in sweep.gpus.items() if value is not None},
        }
        if best is not None and best.best is not None:
            kept = best.best
            tags |= {runs.BEST_RUN: self.run_id(best.trial_id) or "", runs.BEST_VALUE: kept.metrics.get(sweep.metric)}
            if kept.directory:
                tags[runs.CHECKPOINT_PATH] = store.below(sweep.path, f"{best.directory}/{kept.directory}")
            with self._unless_refused():
                known, names = run.known_points() if is_new else {}, self._names(sweep, best)
                named = {names.of_recorded(name): value for name, value in kept.metrics.items()}
                run.write_points(
                    (name, value, kept.timestamp, kept.step)
                    for name, value in named.items()
                    if math.isfinite(value) and repr(value) not in known.get((name, kept.step), set())
                )
        with self._unless_refused():
            run.write_points(self._measured())
        with self._unless_refused():
            run.write_tags(tags)
        if sweep.state.is_over or is_new:
            with self._unless_refused():
                standing = list(self._standing.values())
                params = names_of(standing[0].config if standing else {}, runs.OWN_PARAMS)
                searched = views.searched_by(standing) or list(sweep.params["space"])
                partly = {params.of((name,)) for record in standing for name in record.idle}
                views.write_view(self.client, run, sweep, [params.of((name,)) for name in searched], partly)
        with self._unless_refused():
            run.write_status(sweep.state.mlflow_status, sweep.ended_at)

    def settle_trial(self, sweep: SweepRecord, record: TrialRecord) -> None:
        """Writes what is missing about a trial: its run, parameters, points, state, failure, checkpoints."""
        self._standing[record.number] = record
        trial = self._trials.get(record.trial_id) or self._open(sweep, record)
        run = trial.run
        if run.tags.get(runs.SETTLED) == _mark(record) and not run.unwritten:
            return  # nothing is new
        refused = self._refused
        if not trial.is_described or sweep.decides_at_end:
            with self._unless_refused():
                settings.write(run, sweep, record)
        if not trial.is_described:
            if self._parent is None:
                with self._unless_refused():
                    write_provenance(run, sweep)
            trial.is_described = True
        self._read(trial)
        if self._parent is None:
            with self._unless_refused():
                run.write_points(self._measured())
        before = math.inf if record.state.is_over else (time.time() - HELD_S) * 1_000
        with self._unless_refused():
            run.write_points(trial.points.settled(before))
        with self._unless_refused():
            run.write_tags({
                **trial.points.tags,
                runs.STATE: record.state,
                runs.LAST_STEP: trial.last_step,
                "mlflow.runName": describe.trial(sweep, record),
                **({runs.WHY: record.why} if record.why or runs.WHY in run.tags else {}),
                **_where(record),
                **({runs.MARKED: told(marked)} if (marked := {**run.marked, **trial.points.marked}) else {}),
            })  # fmt: skip
        if record.state.is_over and not record.state.is_unfinished and record.best is not None:
            name, value = mlflow_name(f"best_{sweep.metric}"), record.best.metrics.get(sweep.metric, math.nan)
            with self._unless_refused():  # a run's own table shows the last value of each metric, not the best
                run.write_points(trial.points.once((name, value, record.best.timestamp, record.best.step)))
        if record.state.is_over:
            with self._unless_refused():
                self._write_test(trial, record)
        if record.state is TrialState.FAILED and not trial.has_failure:
            with self._unless_refused():
                text = self.directory.read_text(f"{record.directory}/{FAILURE_FILE}") or record.failure or ""
                self.client.log_text(run.run_id, without_secrets(text), FAILURE_FILE)
                trial.has_failure = True
        with self._unless_refused():
            inputs.write_inputs(run, self.directory, sweep, record)
        if record.state.is_over:
            with self._unless_refused():
                write_recipe(
                    run, sweep, record, last_step=trial.last_step, loss_bits=trial.points.loss_bits,
                    restarts=trial.points.restarts,
                )  # fmt: skip
        with self._unless_refused():
            self._settle_models(run, sweep, record)
        with self._unless_refused():
            run.write_status(record.state.mlflow_status, record.ended_at if record.state.is_over else None)
        if record.state.is_over and self._refused == refused:
            with self._unless_refused():
                run.write_tags({runs.SETTLED: _mark(record)})

    # ---- inside

    @staticmethod
    def _read(trial: _Trial) -> None:
        """Takes what a trial has reported since."""
        for result in trial.reports.new():
            trial.points.add(result)
            trial.last_step = step_of(result)

    def _names(self, sweep: SweepRecord, record: TrialRecord) -> Names:
        """What a trial's metrics are called, which its reports say, in their order."""
        if (trial := self._trials.get(record.trial_id)) is None:
            return Points(metric=sweep.metric).names
        self._read(trial)
        return trial.points.names

    def _settle_models(self, run: Run, sweep: SweepRecord, record: TrialRecord) -> None:
        """A checkpoint that is not there counts if it is still missed at the end: a newer record may not keep it."""
        self._lacking.pop(record.trial_id, None)
        try:
            models.settle(run, self.directory, sweep, record, self._names(sweep, record))
        except CheckpointError as error:
            self._refused += 1
            self._lacking[record.trial_id] = f"{type(error).__name__}: {error}"

    def _write_test(self, trial: _Trial, record: TrialRecord) -> None:
        """What the trial's best checkpoint reached on the test part, if it was asked."""
        text = self.directory.read_text(f"{record.directory}/{TEST_FILE}")
        if text is not None and record.best is not None:
            best = record.best
            found = {(TESTED, *path): value for path, value in paths(json.loads(text))}
            trial.points.names.learn(found)
            for path, value in found.items():
                point = (trial.points.names.of(path), float(value), best.timestamp, best.step)
                trial.run.write_points(trial.points.once(point))

    def _link_models(self) -> None:
        for record in self._standing.values():
            if record.kept and record.trial_id in self._trials:
                with self._unless_refused():
                    models.link(self._trials[record.trial_id].run)

    def _measured(self) -> list[Point]:
        return self.system.take() if self.system is not None else []

    def _open(self, sweep: SweepRecord, record: TrialRecord) -> _Trial:
        is_alone = sweep.kind != "sweep"
        if self._parent is None or not self._experiment_id:
            self.settle_sweep(sweep)
        parent = {} if self._parent is None else {"mlflow.parentRunId": self._parent.run_id}
        run = runs.find_or_create(
            self.client,
            self._experiment_id,
            {runs.SWEEP_ID: sweep.sweep_id, runs.TRIAL_ID: record.trial_id},
            name=describe.trial(sweep, record),
            started_at=record.started_at or sweep.created_at,
            tags=_tags(sweep)
            | parent
            | {runs.KIND: sweep.kind if is_alone else "trial", runs.TRIAL: str(record.number),
               runs.STATE: str(record.state)},
            remembered=self.directory.read_text(f"{record.directory}/{RUN_FILE}"),
        )  # fmt: skip
        self.directory.write(f"{record.directory}/{RUN_FILE}", run.run_id.encode())
        where = f"{self.directory.path}/{record.directory}/{REPORTS_FILE}"
        reports = self.readers.get(record.trial_id) or ReportReader(self.directory.filesystem, where)
        known = run.known_points() if run.tags.get(runs.SETTLED) != _mark(record) else {}
        trial = self._trials[record.trial_id] = _Trial(run, Points(known, sweep.metric), reports)
        return trial

    @contextmanager
    def _unless_refused(self) -> Iterator[None]:
        """A write that the store refuses costs none of the others; one that it does not answer is tried again."""
        try:
            yield
        except Exception as error:
            if not store.is_refusal(error):
                raise
            self._refused += 1
            text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            if text not in self.faults:
                self.faults.append(text)


def _tags(sweep: SweepRecord) -> dict[str, str]:
    """By which the runs of a sweep are found and filtered."""
    git = sweep.provenance.get("git") or {}
    return {
        runs.SWEEP_ID: sweep.sweep_id,
        runs.KIND: sweep.kind,
        runs.SWEEP: sweep.name,
        runs.MODULE: sweep.module,
        runs.EXPERIMENT: sweep.experiment,
        runs.PATH: sweep.path,
        runs.METRIC: sweep.metric,
        runs.MODE: sweep.mode,
        "mlflow.source.name": sweep.module,
        "mlflow.source.type": "LOCAL",
        **({runs.REPRODUCES: sweep.reproduces} if sweep.reproduces else {}),
        **({runs.CONFIRMS: sweep.confirms} if sweep.confirms and sweep.kind == "sweep" else {}),
        **({"mlflow.source.git.commit": git["commit"]} if git.get("commit") else {}),
        **({"mlflow.source.git.branch": git["branch"]} if git.get("branch") else {}),
    }


def _where(record: TrialRecord) -> dict[str, Any]:
    """What is known of a trial's workers and GPUs: by it, seconds of trials compare or do not."""
    known = {
        runs.WARM_START: record.warm_start, runs.GPU_SHARE: record.gpu_share,
        runs.WORKERS: record.changed_workers or None,
    }  # fmt: skip
    return {name: value for name, value in known.items() if value is not None}


def _mark(record: TrialRecord) -> str:
    """Set last on a run that is over, it says that all of the record has been written."""
    kept = ",".join(str(each.directory) for each in record.kept)
    return f"{record.state} {record.reports} {record.ended_at} {kept}"
