"""What a sweep's directory says about it: enough to take it up again, and to fill a tracking store from nothing.

Ray Tune writes each trial's reports to `result.json`, a line each. Beside it, `trial.json` says what Tune does not:
the trial's number, state and settings, and which checkpoints were kept. `.hfsuite/sweep.json` describes the sweep
(not in its directory itself: Ray Tune copies the JSON files that lie there over newer ones). MLflow is only ever told
what these files say. Written by the driver, read by whoever syncs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hfsuite.own_values import as_written, is_written
from hfsuite.tracking.state import TrialState


@dataclass(kw_only=True)
class Snapshot:
    """A report that counts, and the checkpoint that came with it.

    Args:
        directory: of the checkpoint, in the trial's directory; None if the report had none that is kept.
        step: the optimizer step.
        metrics: the numbers of the report.
        timestamp: of the report, milliseconds since 1970.
        weights: digest of the checkpoint's weights; see `manifest.weights_digest`. None until the trial is over.
        changed: the settings that were others by then than when the trial began: a population changes them.
    """

    directory: str | None
    step: int
    metrics: dict[str, float]
    timestamp: int
    weights: str | None = None
    changed: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class TrialRecord:
    """One trial, as it stands.

    Args:
        number: its place in the sweep, from 0.
        trial_id: Ray Tune's name for it.
        state: where it stands.
        why: what ended it, where that is not its own end: "asha at step 30".
        config: its settings when it began, defaults included.
        searched: the names of those that the search varied.
        idle: the names of those that do not count where the others have the values of its best report.
        reports: how many reports it has made.
        seconds: how long it has run.
        started_at: milliseconds since 1970; None until it has.
        ended_at: likewise.
        warm_start: whether its workers had run a trial before.
        gpu_share: the part of its GPUs that it had, on an average of its time; None where no trials share any.
        workers: from which optimizer steps on it had how many workers; more than one pair if their number has changed.
        not_written: the names of settings that no file can hold: a text stands for each of them in `config`.
        failure: what went wrong, in one line; the traceback is in `failure.txt`.
        best: its best report so far; of those with a checkpoint that is still there, if any is.
        last: the last report that came with a checkpoint, when the trial is over; that may be gone.
        saved: the checkpoints that it has saved and that were not removed, oldest first.
        kept: those of them that the sweep's policy keeps, which MLflow shows as models.
    """

    number: int
    trial_id: str
    state: TrialState = TrialState.PENDING
    why: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    searched: list[str] = field(default_factory=list)
    not_written: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    reports: int = 0
    seconds: float = 0.0
    started_at: int | None = None
    ended_at: int | None = None
    warm_start: bool | None = None
    gpu_share: float | None = None
    workers: list[list[int]] = field(default_factory=list)
    failure: str = ""
    best: Snapshot | None = None
    last: Snapshot | None = None
    saved: list[Snapshot] = field(default_factory=list)
    kept: list[Snapshot] = field(default_factory=list)

    @property
    def directory(self) -> str:
        """In the sweep's directory."""
        return trial_directory(self.number)

    def note_workers(self, step: int, count: int) -> None:
        """It begins or goes on with so many; an attempt that has made no step leaves no trace."""
        before = [each for each in self.workers if each[0] < step]
        self.workers = before if before and before[-1][1] == count else [*before, [step, count]]

    @property
    def changed_workers(self) -> str:
        """In words: "1, 2 from step 300"; empty if their number has not changed."""
        later = [f"{count} from step {step}" for step, count in self.workers[1:]]
        return ", ".join([str(self.workers[0][1]), *later]) if later else ""

    def note_settings(self, config: Mapping[str, Any]) -> None:
        """As the trial began with them: parameters do not change, and metrics tell how settings did."""
        if not self.config:
            self.config = as_written(dict(config))
            self.not_written = [name for name, value in config.items() if not is_written(value)]

    @property
    def config_at_best(self) -> dict[str, Any]:
        """The settings with which it made its best report."""
        return self.config_at(self.best)

    def config_at(self, snapshot: Snapshot | None) -> dict[str, Any]:
        """The settings with which it made a report; those that it began with if it has made none."""
        return {**self.config, **(snapshot.changed if snapshot is not None else {})}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrialRecord:
        """What `trial.json` holds."""
        best, last = (Snapshot(**each) if (each := values.get(name)) else None for name in ("best", "last"))
        saved, kept = ([Snapshot(**each) for each in values[name]] for name in ("saved", "kept"))
        return cls(
            **{**values, "state": TrialState(values["state"]), "best": best, "last": last, "saved": saved, "kept": kept}
        )


@dataclass(kw_only=True)
class SweepRecord:
    """A sweep, or a single training: what it was asked to do, and how it stands.

    Args:
        sweep_id: its own, whatever it is called.
        name: unique in its storage.
        kind: "sweep" or "train".
        experiment: the name of what is swept.
        module: where it is declared.
        metric: what is optimised.
        mode: "min" or "max".
        path: its directory, a path or a URI without credentials.
        planned: number of trials.
        arguments: of `Experiment.sweep`, as far as they can be written down; with them it is taken up again.
        params: what MLflow shows of them.
        mlflow_experiment: the MLflow experiment that its runs go to.
        tracking_uri: of the store, if a name and a password are not part of it.
        provenance: where it came from; see `tracking.provenance`.
        created_at: milliseconds since 1970.
        ended_at: likewise; None while it runs.
        state: RUNNING, COMPLETED, FAILED, STOPPED or LOST.
        best: number of the best trial.
        fault: of the driver, if it ended by an error.
        reproduces: of a training that repeats one: the id of that one's run.
        confirms: of a sweep over the finalists of another: the id of that one's run.
        confirms_sweep: likewise, its name.
        gpus: what they did, where trials share them: how many trials ran at once, how busy they were.
        decides_at_end: whether only a finished sweep knows which checkpoints may go, since a population exploits them.
    """

    sweep_id: str
    name: str
    kind: str
    experiment: str
    module: str
    metric: str
    mode: str
    path: str
    planned: int
    arguments: dict[str, Any]
    params: dict[str, Any]
    mlflow_experiment: str
    tracking_uri: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    created_at: int
    ended_at: int | None = None
    state: TrialState = TrialState.RUNNING
    best: int | None = None
    fault: str | None = None
    reproduces: str | None = None
    confirms: str | None = None
    confirms_sweep: str | None = None
    gpus: dict[str, Any] = field(default_factory=dict)
    decides_at_end: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SweepRecord:
        """What `sweep.json` holds."""
        return cls(**{**values, "state": TrialState(values["state"])})


def trial_directory(number: int) -> str:
    """The name of a trial's directory, in its sweep's."""
    return f"trial_{number:03d}"
