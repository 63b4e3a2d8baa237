"""Names of trials: trial_000, trial_001, ... in the order of their proposals. Driver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from ray.tune.experiment import Trial


class TrialNames:
    """Names trials, and their directories.

    Ray Tune copies it for each trial, so the numbers belong to the class.

    Args:
        sweep: its directory.
        known: numbers by trial id, of a sweep that is taken up again.
    """

    _numbers: ClassVar[dict[str, dict[str, int]]] = {}

    def __init__(self, sweep: str, known: Mapping[str, int] | None = None) -> None:
        self.sweep = sweep
        if known is not None:
            self._numbers[sweep] = dict(known)

    def __call__(self, trial: Trial) -> str:
        """The name of a trial, the same each time."""
        numbers = self._numbers.setdefault(self.sweep, {})
        if trial.trial_id not in numbers:
            numbers[trial.trial_id] = max(numbers.values(), default=-1) + 1
        return f"trial_{numbers[trial.trial_id]:03d}"

    def learn(self, trials: Iterable[Trial]) -> None:
        """Takes note of trials that have names already: no other gets one of those."""
        self._numbers.setdefault(self.sweep, {}).update({trial.trial_id: self.number(trial) for trial in trials})

    @staticmethod
    def number(trial: Trial) -> int:
        """Back from the name."""
        return int(str(trial.custom_trial_name).rpartition("_")[2])
