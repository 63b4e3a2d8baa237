"""A sweep as lines of a log, where there is no terminal: its plan, then each trial's begin, reports and end. Driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from hfsuite.sweeps.result import TrialResult
from hfsuite.tracking.record import SweepRecord


class LogLines:
    """Writes a line for each event; each names the trial, and how many there will be.

    Args:
        console: where they go.
        metrics: reported numbers to show, what is optimised first.
        total: number of trials that there will be.
    """

    def __init__(self, console: Console, metrics: Sequence[str], total: int) -> None:
        self.console, self.metrics, self.total = console, metrics, total

    def plan(self, record: SweepRecord) -> None:
        """What is asked for, before anything runs."""
        params, trials = record.params, "one training"
        if record.kind == "sweep":
            trials = (
                f"{self.total} trial{'s' if self.total != 1 else ''}, {params['searcher']}, {params['trial_scheduler']}"
            )
        if record.confirms is not None:
            trials = f"the finalists of {record.confirms_sweep or record.confirms}, at most {self.total} trainings"
        workers = f"{params['workers']} worker{'s' if params['workers'] != 1 else ''}"
        self._say(f"{record.experiment} · {record.name}")
        self._say(f"{trials}, {workers} each, seed {params['seed']}; {record.metric} ({record.mode}) is optimised")
        for name, domain in params.get("space", {}).items():
            self._say(f"  {name} ~ {domain}")

    def begins(self, trial: TrialResult) -> None:
        """A trial runs, for the first time or again."""
        settings = "  ".join(f"{name}={short(value)}" for name, value in trial.searched.items())
        verb = "goes on" if trial.iterations else "begins"
        self._say(f"trial {trial.number:03d} ({trial.number + 1}/{self.total}) {verb}  {settings}".rstrip())

    def report(self, trial: TrialResult, metrics: Mapping[str, Any]) -> None:
        """A trial has made a report."""
        shown = [name for name in self.metrics if name in metrics and name != "step"]
        numbers = "  ".join(f"{name} {short(metrics[name])}" for name in shown)
        step = f"step {metrics['step']}  " if "step" in metrics else ""
        self._say(f"trial {trial.number:03d} ({trial.number + 1}/{self.total})  {step}{numbers}")

    def ends(self, trial: TrialResult, over: int, left: float | None) -> None:
        """A trial is over.

        Args:
            trial: which.
            over: how many are.
            left: seconds until the sweep ends, if they can be told.
        """
        goes_on = over < self.total and not trial.state.is_unfinished
        rest = f", {time_left(left)}" if left is not None and goes_on else ""
        why = f" ({trial.why})" if trial.why else ""
        self._say(
            f"trial {trial.number:03d} {trial.state}{why} after {duration(trial.seconds)}; "
            f"{over} of {self.total} over{rest}"
        )

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        self.console.file.flush()


def time_left(seconds: float) -> str:
    """Until a sweep ends."""
    return f"about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """As people say it: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"


def short(value: Any) -> str:
    """A number in three digits, anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
