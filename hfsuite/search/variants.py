"""Ray Tune's own way of trying values: all of a grid, random draws for the rest. Driver."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.search import BasicVariantGenerator


class LastingVariants(BasicVariantGenerator):
    """A search that is not over before its trials are.

    Ray Tune ends the actors of trials that pause when there is nothing more to propose. The members of a population do
    pause, to go on from another's checkpoint, and need them.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._live: list[Trial] = []

    def next_trial(self) -> Trial | None:
        """The next trial; None if there is none."""
        trial: Trial | None = super().next_trial()
        if trial is not None:
            self._live.append(trial)
        return trial

    def adopt(self, trials: list[Trial]) -> None:
        """Trials of a sweep that is taken up again."""
        self._live += trials

    def is_finished(self) -> bool:
        """Whether there is nothing to propose, and all that was proposed has ended."""
        self._live = [trial for trial in self._live if not trial.is_finished()]
        return bool(super().is_finished()) and not self._live

    def get_state(self) -> Any:
        """What is saved: not the trials, which Ray Tune saves itself."""
        state = super().get_state()
        return {**state, "_live": []} if state else state
