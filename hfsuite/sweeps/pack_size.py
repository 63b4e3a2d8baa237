"""How many trials share a GPU: as many as together train faster than fewer. Driver.

Trials differ, so speeds of different ones do not compare. But a trial that gets a neighbour can be compared with
itself: if it makes r times as many steps a second among n as it made among m, the n together do r * n / m times as much
as the m did. The number is doubled while that grows, and stays at the last one with which it did. Where a trial alone
leaves the GPU idle for a good part of its time, the first step is to four.

The number is a function of all that was seen, not of the order in which it was: what comes to light later, as trials
come and go, corrects what was decided.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator

WORTH_IT = 1.03  # a smaller gain is within what speeds differ by from second to second
ENOUGH_S = 2.0  # of a trial's steady training, to know its speed
BUSY = 0.9  # the part of the time from which on a trial may need the GPU for itself
ENOUGH_TRIALS = 3  # to compare different ones, where none was seen both with fewer and with more neighbours


class PackSize:
    """What was seen of the speeds of trials that share GPUs."""

    def __init__(self) -> None:
        self._busy: list[float] = []  # parts of the time, of trials alone
        self._steps: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))  # by number and trial
        self._seconds: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    def note_busy(self, part: float) -> None:
        """In which part of the time a trial alone had its GPU do anything."""
        self._busy.append(part)

    def note(self, trial: str, at_once: int, rate: float, seconds: float) -> None:
        """A trial has trained for a while.

        Args:
            trial: which.
            at_once: how many shared its GPUs, it included, all the while.
            rate: its steps a second.
            seconds: how long.
        """
        self._steps[at_once][trial] += rate * seconds
        self._seconds[at_once][trial] += seconds

    def size(self, limit: float) -> int:
        """How many shall run at once; one more than is known to be worth it, where that is not known yet.

        Args:
            limit: how many can.
        """
        size = 1
        for more in self._sizes(limit):
            if not self._speeds(size):
                break
            gain = self.gain(size, more)
            if gain is None:
                return more
            if gain < WORTH_IT:
                break
            size = more
        return size

    def is_settled(self, limit: float) -> bool:
        """Whether it is known that more would not be worth it."""
        size = self.size(limit)
        before = max((each for each in [1, *self._sizes(limit)] if each < size), default=1)
        return bool(self._speeds(size)) and (size == 1 or self.gain(before, size) is not None)

    def throughput(self, size: int, limit: float) -> float | None:
        """How many times as much so many do together as one alone; None if it is not known."""
        reached, product = 1, 1.0
        for more in self._sizes(limit):
            if more > size:
                break
            gain = self.gain(reached, more)
            if gain is None:
                return None
            product, reached = product * gain, more
        return product

    def slower(self, at_once: int, limit: float) -> float | None:
        """How many times as long a trial takes among so many as alone; None if it is not known."""
        size = max(each for each in (1, *self._sizes(limit)) if each <= at_once)
        together = self.throughput(size, limit)
        return None if together is None else size / together

    def gain(self, fewer: int, more: int) -> float | None:
        """How many times as much a larger number does together as a smaller one; None if it is not known."""
        slow, fast = self._speeds(more), self._speeds(fewer)
        if both := slow.keys() & fast.keys():
            ratio = statistics.fmean(math.log(slow[trial] / fast[trial]) for trial in both)
        elif len(slow) >= ENOUGH_TRIALS and fast:
            ratio = statistics.fmean(map(math.log, slow.values())) - statistics.fmean(map(math.log, fast.values()))
        else:
            return None
        return math.exp(ratio) * more / fewer

    def _sizes(self, limit: float) -> Iterator[int]:
        is_idle = bool(self._busy) and statistics.fmean(self._busy) < BUSY
        return sizes(limit, 4 if is_idle else 2)

    def _speeds(self, at_once: int) -> dict[str, float]:
        seconds, steps = self._seconds[at_once], self._steps[at_once]
        return {trial: steps[trial] / spent for trial, spent in seconds.items() if spent >= ENOUGH_S and steps[trial]}


def sizes(limit: float, first: int = 2) -> Iterator[int]:
    """The numbers that are tried after 1: doubled each time, and at last the limit.

    >>> list(sizes(6))
    [2, 4, 6]
    """
    size, more = 1, first
    while size < limit:
        size = int(min(more, limit))
        more = 2 * size
        yield size
