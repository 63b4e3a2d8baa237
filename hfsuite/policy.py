"""How a trial and its workers deal with each other: what is reported, what is decided, and how long workers live."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hfsuite.errors import ConfigurationError, did_you_mean

Isolation = Literal["warm", "process"]
Decisions = Literal["awaited", "pipelined"]


@dataclass(frozen=True, kw_only=True)
class WorkerPolicy:
    """How long workers live, and when they wait.

    Args:
        isolation: "warm": a trial leaves its workers to the next one with the same resources, in the state in which
            they started; "process": every trial has new ones.
        decisions: "awaited": ranks wait in each report for the trial scheduler's answer, so that no step is trained
            after a stop; "pipelined": they go on, and learn in the next report what was decided about this one.
        stop_grace_s: seconds that a stopped training function has to unwind before its workers are killed.
        trials_per_group: workers are replaced after so many trials; None for no limit.
        memory_limit_gb: gigabytes of memory that a worker may hold after a trial beyond what it held when it started;
            one that holds more is replaced.

    Raises:
        ConfigurationError: every value that cannot be.
    """

    isolation: Isolation = "warm"
    decisions: Decisions = "awaited"
    stop_grace_s: float = 10.0
    trials_per_group: int | None = None
    memory_limit_gb: float = 1.5

    def __post_init__(self) -> None:
        faults = []
        for name, value, known in (
            ("isolation", self.isolation, get_args(Isolation)),
            ("decisions", self.decisions, get_args(Decisions)),
        ):
            if value not in known:
                faults.append(f"{name} cannot be {value!r}. {did_you_mean(str(value), known)}")
        if not (_is_number(self.stop_grace_s) and 0 <= self.stop_grace_s < math.inf):
            faults.append(f"stop_grace_s is a number of seconds, 0 or more, got {self.stop_grace_s!r}.")
        if self.trials_per_group is not None and not (type(self.trials_per_group) is int and self.trials_per_group > 0):
            faults.append(f"trials_per_group is 1 or more, or None for no limit, got {self.trials_per_group!r}.")
        if not (_is_number(self.memory_limit_gb) and self.memory_limit_gb > 0):
            faults.append(f"memory_limit_gb is a number of gigabytes above 0, got {self.memory_limit_gb!r}.")
        if faults:
            raise ConfigurationError(faults)

    @property
    def trials(self) -> float:
        """How many trials a group of workers serves."""
        return 1 if self.isolation == "process" else self.trials_per_group or float("inf")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
