"""Every exception that a user of hfsuite can see.

HFSuiteError
├── ConfigurationError(ValueError)       what the user asked for cannot be: all mistakes at once
│   ├── UnknownName                      a name that does not exist, with the nearest that do
│   ├── WrongFunction                    a training function that cannot work, whatever the settings
│   └── ResourcesError                   a trial that the cluster can never hold
├── CheckpointError(ValueError)          a checkpoint that is incomplete or was changed
├── NotRecorded(LookupError)             a run in MLflow without what it takes to run it again
├── MetricNotReported(LookupError)       the first report lacks the metric to optimise
├── NeedsResult                          a program that is only loaded asks for what a sweep before would give
├── TrackingError(ConnectionError)       the MLflow store cannot be reached or refuses
└── TrialFailed(RuntimeError)            a training function raised or a worker died
StopTraining(BaseException)              not an error: unwinds a training function that Tune stopped
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

NO_SWEEP = "There is none yet. Run one: hfsuite sweep MODULE"  # as `none` of `did_you_mean`

NO_SETTING = "It has none: give it defaults={...}."  # likewise


class HFSuiteError(Exception):
    """The root of all errors that hfsuite raises on purpose."""


class ConfigurationError(HFSuiteError, ValueError):
    """What was asked for cannot be. `faults` holds every mistake found, one sentence each."""

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.faults,))


class UnknownName(ConfigurationError):
    """A name (of a module, searcher, trial scheduler, setting, sweep) that does not exist."""


class WrongFunction(ConfigurationError):
    """A training function cannot work, whatever its settings: no other trial of its sweep need be tried."""


class ResourcesError(ConfigurationError):
    """A trial asks for more than the cluster can ever hold."""


class CheckpointError(HFSuiteError, ValueError):
    """A checkpoint without a manifest, or one that does not match its manifest."""


class NotRecorded(HFSuiteError, LookupError):
    """A run in MLflow lacks what it takes to run it again, or to judge it."""


class MetricNotReported(HFSuiteError, LookupError):
    """A report does not carry the metric that the sweep optimises."""


class NeedsResult(HFSuiteError):
    """A program that is only loaded, up to one of its sweeps, asks for the result of another, which was not run."""


class TrackingError(HFSuiteError, ConnectionError):
    """The MLflow store cannot be reached, or refuses what it is told."""


class TrialFailed(HFSuiteError, RuntimeError):
    """A rank raised or died. Carries the rank's own traceback as text, since frames do not travel.

    Args:
        summary: one line: which rank, which exception.
        rank: world rank of the first worker that failed; None where no rank can be named.
        traceback: the worker's traceback, as Python prints it; empty if the process died.
    """

    def __init__(self, summary: str, rank: int | None = None, traceback: str = "") -> None:
        self.summary, self.rank, self.traceback = summary, rank, traceback
        super().__init__(f"{summary}\n\n{traceback}" if traceback else summary)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.summary, self.rank, self.traceback))


class StopTraining(BaseException):
    """Raised out of `ray.train.report` in every rank when the trial is over by decision of the trial scheduler.

    `finally` blocks run. It derives from BaseException so that a training function's `except Exception` lets it by.
    """


def did_you_mean(name: str, known: Iterable[str], none: str = "There are none.") -> str:
    """A sentence that names the nearest of `known`, or lists them all when none is near; `none` where it is empty."""
    names = sorted(known)
    if near := nearest(name, names):
        return f"Did you mean {' or '.join(repr(n) for n in near)}?"
    return f"Known: {', '.join(names)}." if names else none


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Those that are so alike that a name may be a slip for them."""
    alike = {each: difflib.SequenceMatcher(None, name.lower(), each.lower()).ratio() for each in sorted(known)}
    best = max(alike.values(), default=0)
    return [each for each, ratio in alike.items() if ratio >= max(0.5, best - 0.1)]
