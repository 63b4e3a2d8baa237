"""Proposes the same configurations with one seed after another, until a question about them is settled. Driver."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.search import Searcher

Values = list[list[float]]  # by configuration, over the seeds that all of them have finished


class Rounds(Searcher):
    """A round a seed: every configuration once.

    A slot that is free begins with the next round before the one at hand is over: nobody waits for the slowest.

    Args:
        points: the configurations, as trials get them.
        seeds: what each of them is tried with.
        with_seed: puts a seed into a configuration.
        value_of: what a trial reached, by its number; None if it failed.
        is_settled: whether no further seed is needed.
    """

    def __init__(
        self, points: Sequence[Mapping[str, Any]], seeds: Sequence[int], *,
        with_seed: Callable[[Mapping[str, Any], int], dict[str, Any]], value_of: Callable[[int], float | None],
        is_settled: Callable[[Values], bool],
    ) -> None:  # fmt: skip
        super().__init__()
        self.points, self.seeds, self.with_seed = list(points), list(seeds), with_seed
        self.value_of, self.is_settled = value_of, is_settled
        self.reached: dict[int, float | None] = {}  # by the trial's number, of those that are over
        self._numbers: dict[str, int] = {}

    @property
    def failures(self) -> list[int]:
        """With how many seeds each configuration has failed."""
        count = len(self.points)
        failed = [number % count for number, value in self.reached.items() if value is None]
        return [failed.count(place) for place in range(count)]

    @property
    def standing(self) -> list[int]:
        """The places of the configurations that have succeeded with any seed; the others rate none."""
        count = len(self.points)
        return sorted({number % count for number, value in self.reached.items() if value is not None})

    @property
    def values(self) -> Values:
        """What each of those in `standing` reached, over the seeds with which all of them have succeeded."""
        count, standing = len(self.points), self.standing
        rounds = [
            [self.reached.get(start + place) for place in standing]
            for start in range(0, count * len(self.seeds), count)
        ]
        whole = [each for each in ([value for value in row if value is not None] for row in rounds) if each]
        return [list(values) for values in zip(*(each for each in whole if len(each) == len(standing)), strict=True)]

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **_: Any) -> bool:
        """What is proposed has been decided."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next configuration, with its seed."""
        number = len(self._numbers)
        if number >= len(self.points) * len(self.seeds) or self.is_settled(self.values):
            return str(Searcher.FINISHED)
        self._numbers[trial_id] = number
        round_, place = divmod(number, len(self.points))
        return self.with_seed(copy.deepcopy(self.points[place]), self.seeds[round_])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial is over."""
        number = self._numbers[trial_id]
        value = None if error else self.value_of(number)
        self.reached[number] = None if value is None or math.isnan(value) else value

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is asked is asked again, and is not gone on with."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""
