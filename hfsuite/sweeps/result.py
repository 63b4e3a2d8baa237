"""What comes out of a sweep."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ray.train import Checkpoint

from hfsuite.errors import NotRecorded, TrialFailed
from hfsuite.own_values import json_value
from hfsuite.summary import SHOWN, cut, listed
from hfsuite.tracking.describe import as_settings, short
from hfsuite.tracking.points import rating
from hfsuite.tracking.state import TrialState

if TYPE_CHECKING:
    import pandas as pd

    from hfsuite.reproduce.reproduction import Reproduction


@dataclass(repr=False)
class TrialResult:
    """One trial: how it was configured, how it went, and what it left.

    Args:
        number: its place in the sweep, from 0.
        trial_id: Ray Tune's name for it.
        config: its settings, defaults included, without those that only concern resources.
        searched: those of its settings that the search varied.
        idle: those of its settings that do not count where the others have these values: see `Experiment.only_where`.
        run_id: its MLflow run; None until it has started.
        path: its directory on storage, a path or a URI: reports, checkpoints, the output of each rank.
        state: how it ended.
        metrics: the report that came with `checkpoint`, or the best report if there is no checkpoint.
        checkpoint: the best one that was kept.
        iterations: reports made.
        seconds: from its start to its end, or until now.
        why: what ended it, where that is not its own end: "asha at step 30".
        failure: what went wrong, with the rank's traceback; None if nothing did.
        warm_start: whether its workers had run a trial before; None until its first report.
        gpu_share: the part of its GPUs that it had, on an average of its time; None where no trials share any. Seconds
            of trials with different ones do not compare.
        workers: from which optimizer steps on it had how many workers; more than one pair if their number has changed.
        workers_lost: why the workers before its own could not run it, if they could not.
        tracking_fault: of a training on its own: what MLflow has not recorded of it; see `SweepResult` for a sweep's.
    """

    number: int
    trial_id: str
    config: dict[str, Any]
    searched: dict[str, Any]
    idle: list[str] = field(default_factory=list)
    run_id: str | None = None
    path: str = ""
    state: TrialState = TrialState.PENDING
    metrics: dict[str, Any] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    iterations: int = 0
    seconds: float = 0.0
    why: str = ""
    failure: str | None = None
    warm_start: bool | None = None
    gpu_share: float | None = None
    workers: list[list[int]] = field(default_factory=list)
    workers_lost: str | None = None
    tracking_fault: str | None = None

    def __repr__(self) -> str:
        why = self.failure.splitlines()[0] if self.failure else self.why
        head = f"Trial {self.number:03d}: {self.state}{f' ({cut(why)})' if why else ''}, {self.iterations} reports"
        lines = []
        if numbers := [f"{name} {short(each)}" for name, each in self.metrics.items() if isinstance(each, int | float)]:
            more = f", and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
            lines.append(f"  reported {', '.join(numbers[:SHOWN])}{more}")
        if self.checkpoint is not None:
            lines.append(f"  checkpoint {self.checkpoint_path}")
        settings = [f"  {name} = {cut(repr(value))}" for name, value in self.searched.items()]
        return "\n".join([listed(head, settings), *lines])

    @property
    def checkpoint_path(self) -> str | None:
        """Where its checkpoint is, as `TransformersCheckpoint` takes it: a path or a URI."""
        return address(self.checkpoint.path, self.path) if self.checkpoint else None

    def reproduce(self, **options: Any) -> Reproduction:
        """Runs the trial again in new processes, and judges what comes out. Driver.

        Args:
            options: of `hfsuite.reproduce.reproduction.reproduce`: `workers`, `restore_code`, `to_end`, `tolerance`,
                `storage`.

        Raises:
            NotRecorded: it has no run in MLflow.
        """
        from hfsuite.reproduce.reproduction import reproduce
        from hfsuite.tracking import store

        if self.run_id is None:
            raise NotRecorded(f"Trial {self.number} has no run in MLflow, so there is nothing to reproduce.")
        return reproduce(store.open_store(), self.run_id, **options)

    def as_json(self) -> dict[str, Any]:
        """Plain values; of the settings those that count."""
        return {
            "number": self.number,
            "state": str(self.state),
            "why": self.why,
            "config": json_value({name: each for name, each in self.config.items() if name not in self.idle}),
            "metrics": json_value(self.metrics),
            "iterations": self.iterations,
            "seconds": round(self.seconds, 3),
            "run_id": self.run_id,
            "path": self.path,
            "checkpoint": self.checkpoint_path,
            "failure": self.failure,
            "warm_start": self.warm_start,
            "gpu_share": self.gpu_share,
            "workers": self.workers,
            "workers_lost": self.workers_lost,
            "tracking_fault": self.tracking_fault,
        }


@dataclass(repr=False)
class SweepResult:
    """A finished or interrupted sweep.

    Args:
        name: of the sweep.
        experiment: name of what was swept.
        module: where the experiment is declared.
        metric: what was optimised.
        mode: "min" or "max".
        run_id: the parent run in MLflow; None for a single training.
        tracking_uri: where MLflow keeps it, without credentials.
        path: the sweep's directory on storage.
        trials: all of them, in the order of their numbers.
        planned: how many there were to be.
        interrupted: whether the user ended it.
        tracking_fault: what MLflow has not recorded of it, in words; None if it has recorded everything.
    """

    name: str
    experiment: str
    module: str
    metric: str
    mode: str
    run_id: str | None
    tracking_uri: str
    path: str
    trials: list[TrialResult]
    planned: int
    interrupted: bool = False
    tracking_fault: str | None = None

    def __repr__(self) -> str:
        best = best_trial(self.trials, self.metric, self.mode)
        counts = Counter(str(trial.state) for trial in self.trials)
        told = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no trial"
        how = ", interrupted" if self.interrupted else ""
        head = f"Sweep {self.name!r} of {self.experiment}: {told} of {self.planned}{how}"
        if best is None:
            return f"{head}\n  no trial has a result for {self.metric} ({self.mode})"
        value = short(rating(best.metrics, self.metric))
        settings = [f"  {name} = {cut(repr(each))}" for name, each in best.searched.items()]
        return listed(f"{head}\n  best: trial {best.number:03d}, {self.metric} ({self.mode}) {value}", settings)

    @property
    def best(self) -> TrialResult:
        """The trial with the best metric at a checkpoint that was kept.

        Raises:
            TrialFailed: no trial has a result; the first failure is its cause's text.
        """
        if (best := best_trial(self.trials, self.metric, self.mode)) is not None:
            return best
        failed = next((trial for trial in self.trials if trial.failure), None)
        if failed is None and any(trial.iterations for trial in self.trials):
            raise TrialFailed(f"No trial has ended with a number for {self.metric}, so there is no best one.")
        if failed is None:
            raise TrialFailed("No trial has made a report, so there is no best one.")
        raise TrialFailed(f"No trial has succeeded. Trial {failed.number}: {failed.failure}")

    @property
    def exit_code(self) -> int:
        """0 if all went well, 1 if no trial succeeded, 4 if some failed, 130 if it was interrupted."""
        if self.interrupted:
            return 130
        if best_trial(self.trials, self.metric, self.mode) is None:
            return 1
        return 4 if any(trial.state is TrialState.FAILED for trial in self.trials) else 0

    def dataframe(self) -> pd.DataFrame:
        """A row a trial: number, state, searched settings as `config.NAME`, metrics, MLflow run.

        A metric that is called like another column (`state`) is `metrics.state`.
        """
        import pandas as pd

        return pd.DataFrame([_row(each) for each in self.trials])

    def as_json(self) -> dict[str, Any]:
        """Plain values: what `--json` prints."""
        best = best_trial(self.trials, self.metric, self.mode)
        return {
            "sweep": self.name,
            "experiment": self.experiment,
            "module": self.module,
            "metric": self.metric,
            "mode": self.mode,
            "run_id": self.run_id,
            "tracking_uri": self.tracking_uri,
            "path": self.path,
            "interrupted": self.interrupted,
            "tracking_fault": self.tracking_fault,
            "exit_code": self.exit_code,
            "best": best.as_json() if best else None,
            "trials": [trial.as_json() for trial in self.trials],
        }


def _row(trial: TrialResult) -> dict[str, Any]:
    """A trial in a table: settings and metrics may have the same names (a learning rate that is logged)."""
    first = {"trial": trial.number, "state": str(trial.state), **as_settings(trial.searched)}
    last = {"run_id": trial.run_id}
    metrics = {f"metrics.{name}" if name in {*first, *last} else name: each for name, each in trial.metrics.items()}
    return {**first, **metrics, **last}


def address(path: str, storage: str) -> str:
    """A path on a storage as it can be opened from anywhere: a URI if the storage is one.

    >>> address("bucket/sweeps/one/trial_000", "s3://bucket/sweeps?region=eu-west-1")
    's3://bucket/sweeps/one/trial_000?region=eu-west-1'
    """
    scheme, separator, rest = storage.partition("://")
    _, mark, query = rest.partition("?")
    return f"{scheme}://{path}{mark}{query}" if separator else path


def best_trial(trials: Sequence[TrialResult], metric: str, mode: str) -> TrialResult | None:
    """The best trial that has a result; what is no finite number is never best, and of equals the first."""
    return _best([trial for trial in trials if trial.state.has_result], metric, mode)


def best_so_far(trials: Sequence[TrialResult], metric: str, mode: str) -> TrialResult | None:
    """The best of those that have a result and those that may go on."""
    return _best([trial for trial in trials if trial.state.has_result or trial.state.is_unfinished], metric, mode)


def _best(trials: Sequence[TrialResult], metric: str, mode: str) -> TrialResult | None:
    rated = [trial for trial in trials if not math.isnan(rating(trial.metrics, metric))]
    return (max if mode == "max" else min)(rated, key=lambda trial: rating(trial.metrics, metric), default=None)
