"""The table of trials on the screen, while a sweep runs and when it has ended."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from hfsuite.sweeps.log_lines import LogLines, short, time_left
from hfsuite.sweeps.result import TrialResult, best_trial
from hfsuite.tracking.describe import as_setting
from hfsuite.tracking.state import TrialState

NOT_COUNTING = "-"  # of a setting where the others have values with which it does not count
REDRAWN_AFTER_S = 0.5
COLOURS = {
    TrialState.PENDING: "dim",
    TrialState.RUNNING: "cyan",
    TrialState.COMPLETED: "green",
    TrialState.PRUNED: "yellow",
    TrialState.FAILED: "red",
    TrialState.PAUSED: "blue",
    TrialState.STOPPED: "magenta",
    TrialState.LOST: "magenta",
}


class Display:
    """One live table on a terminal; a line for each report where there is none.

    Args:
        title: stands above the table.
        metric: what is optimised.
        mode: "min" or "max".
        progress: further reported numbers to show.
        total: number of trials that there will be.
        console: where to draw; standard error leaves standard output to `--json`.
    """

    def __init__(
        self, *, title: str, metric: str, mode: str, progress: Sequence[str], total: int, console: Console | None = None
    ) -> None:
        self.title, self.metric, self.mode, self.total = title, metric, mode, total
        self.progress = [name for name in progress if name != metric]
        self.console = console or Console(stderr=True)
        self._lines = LogLines(self.console, [metric, *self.progress], total)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._drawn_at = -math.inf
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    @property
    def is_due(self) -> bool:
        """Whether there is a live table, which was not drawn a moment ago: it shall not cost the sweep its time."""
        return self._live.is_started and time.monotonic() - self._drawn_at >= REDRAWN_AFTER_S

    def show(self, trials: Iterable[TrialResult], left: float | None = None) -> None:
        """Draws the present state of all trials, as far as the screen holds them.

        Args:
            trials: so far.
            left: seconds until the sweep ends, if they can be told.
        """
        if self._live.is_started:
            with self._lock:
                every = sorted(trials, key=lambda trial: trial.number)
                self._live.update(self.table(every, rows=max(4, self.console.height - 10), left=left), refresh=True)
                self._drawn_at = time.monotonic()

    def begins(self, trial: TrialResult) -> None:
        """Writes a line about a trial that runs, where no live table can be."""
        if not self._live.is_started:
            self._lines.begins(trial)

    def report(self, trial: TrialResult, metrics: Mapping[str, Any]) -> None:
        """Likewise about a report."""
        if not self._live.is_started:
            self._lines.report(trial, metrics)

    def ends(self, trial: TrialResult, over: int, left: float | None = None) -> None:
        """Likewise about a trial that is over, with how many are, and the seconds until the sweep ends."""
        if not self._live.is_started:
            self._lines.ends(trial, over, left)

    def table(self, trials: Sequence[TrialResult], *, rows: int | None = None, left: float | None = None) -> Group:
        """The table of trials, and below it what is not in a column: how many are over, where their output is.

        Args:
            trials: in the order of their numbers.
            rows: how many there is room for; None for all. Shown are the best, those that run, and the newest.
            left: seconds until the sweep ends, if they can be told.
        """
        shown = trials if rows is None else self._most_telling(trials, rows)
        tables = [self._numbers(shown, with_settings=True)]
        if (
            Measurement.get(self.console, self.console.options.update(width=1_000), tables[0]).maximum
            > self.console.width
        ):
            has_room = rows is None or 2 * len(shown) <= rows
            tables = [self._numbers(shown, with_settings=False), *([self._settings(shown)] if has_room else [])]
        over = sum(trial.state.is_over and not trial.state.is_unfinished for trial in trials)
        cut_short = sum(trial.state.is_over and trial.state.is_unfinished for trial in trials)
        caption = f"{over} of {max(self.total, len(trials))} trials over"
        caption += f", {cut_short} interrupted" if cut_short else ""
        caption += f", {time_left(left)}" if left is not None and over < self.total else ""
        if len(shown) < len(trials):
            caption += f" · {len(trials) - len(shown)} not shown"
        if path := next((trial.path for trial in shown if trial.path and os.path.isdir(trial.path)), None):
            caption += f" · workers' output: {shortest(str(Path(path).parent))}/trial_*/rank_*.log"
        return Group(*tables, Text(caption, style="dim", overflow="fold"))

    def _most_telling(self, trials: Sequence[TrialResult], rows: int) -> Sequence[TrialResult]:
        best = best_trial(trials, self.metric, self.mode)
        by_weight = sorted(trials, key=lambda trial: (trial is best, not trial.state.is_over, trial.number))
        return sorted(by_weight[-rows:], key=lambda trial: trial.number)

    def _numbers(self, trials: Sequence[TrialResult], with_settings: bool) -> Table:
        """A row a trial, with a column for each searched setting if the screen is wide enough."""
        searched = _searched(trials) if with_settings else []
        reported = [self.metric, *self.progress]
        best = best_trial(trials, self.metric, self.mode)
        table = Table(title=self.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        shares = ["gpu_share"] if any(trial.gpu_share is not None for trial in trials) else []
        for name in ["trial", "state", "reports", *reported, "seconds", *shares]:
            table.add_column(_title(name), justify="left" if name == "state" else "right", no_wrap=True)
        for name in searched:  # a metric may have the same name
            table.add_column(f"{as_setting('')}\n{_title(name)}", justify="right", no_wrap=True)
        for trial in trials:
            table.add_row(
                f"{trial.number:03d}",
                Text(str(trial.state), style=COLOURS[trial.state]),
                str(trial.iterations),
                *[short(trial.metrics.get(name, "")) for name in reported],
                f"{trial.seconds:.0f}",
                *[short(trial.gpu_share or "") for _ in shares],
                *[short(trial.searched.get(name, NOT_COUNTING)) for name in searched],
                style="bold" if trial is best else "",
            )
        return table

    @staticmethod
    def _settings(trials: Sequence[TrialResult]) -> Table:
        """A line a trial with its searched settings, for a narrow screen."""
        table = Table(box=None, pad_edge=False, show_header=False)
        for trial in trials if _searched(trials) else []:
            values = "  ".join(f"{name}={short(value)}" for name, value in trial.searched.items())
            table.add_row(f"{trial.number:03d}", Text(values, overflow="fold"))
        return table


def _title(name: str) -> str:
    """Of a column, as narrow as its words."""
    return name.replace("_", "\n")


def _searched(trials: Sequence[TrialResult]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.searched))


def shortest(path: str) -> str:
    """A path as it is typed from here."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
