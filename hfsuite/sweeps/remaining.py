"""When a sweep will end, from how long its trials have taken so far. Driver.

How long a whole training takes is fitted to those that were seen: in proportion to what its settings say of it
(`expected_work`), as far as the seconds bear that out. How much of it a trial gets, where a trial scheduler stops many
at its rungs, is estimated from how far the others came (Kaplan and Meier, 1958): one that still runs counts for as far
as it has come. The rest is the calculation of who is free next, and has the next trial.
"""

from __future__ import annotations

import heapq
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from hfsuite.search.work import expected_work
from hfsuite.sweeps.result import TrialResult
from hfsuite.tracking.state import TrialState

TRUST_IN_WORK = 2.0  # as if so many pairs of trials, one of e times the other's work, had borne it out exactly
WORTH = 2.0  # what a trial that goes on elsewhere saves, against what it costs: the first is an estimate
USUAL_SPREAD = 0.1  # of the logarithm of seconds about what work says of it; so many trials bear that out, too
NORMAL, SURELY = statistics.NormalDist(), 1e-12
FITTED_EVERY_S = 0.5  # for the rests of single trials
STEEPEST = 2.0  # nothing takes longer than by the square of its work


@dataclass(frozen=True)
class Seen:
    """What is known of a trial.

    Args:
        work: what it was expected to take, in no unit.
        seconds: that it has run.
        is_over: whether it has ended, and how it did counts for others.
        is_whole: whether it was trained to its end.
    """

    work: float
    seconds: float
    is_over: bool
    is_whole: bool

    @classmethod
    def of(cls, trial: TrialResult) -> Seen:
        """A trial of a sweep."""
        return cls(expected_work(trial.config), trial.seconds, trial.state.is_over, trial.state is TrialState.COMPLETED)


class Durations:
    """How long trials take.

    Args:
        seen: of the sweep.
    """

    def __init__(self, seen: Sequence[Seen]) -> None:
        whole = [each for each in seen if each.is_whole and each.seconds > 0]
        self.is_known = bool(whole)
        known = [(math.log(each.work), math.log(each.seconds)) for each in whole] or [(0.0, 0.0)]
        self._work, self._seconds = (statistics.fmean(values) for values in zip(*known, strict=True))
        varies = sum((work - self._work) ** 2 for work, _ in known)
        together = sum((work - self._work) * (seconds - self._seconds) for work, seconds in known)
        slope = (together + TRUST_IN_WORK) / (varies + TRUST_IN_WORK)  # 1 until seconds say otherwise
        self._slope = min(STEEPEST, max(0.0, slope))
        apart = sum((seconds - self._expected(work)) ** 2 for work, seconds in known)
        self._spread = math.sqrt((apart + TRUST_IN_WORK * USUAL_SPREAD**2) / (len(known) + TRUST_IN_WORK))
        self._parts = sorted((self._part(each), not each.is_over) for each in seen)
        self._at_first = self._further(0.0)
        self._of_unknown = statistics.fmean(self.whole(each.work) for each in seen) if seen else 0.0

    def whole(self, work: float, after: float = 0.0) -> float:
        """Seconds of a trial that is trained to its end; on an average of those that are not over after so many."""
        middle = self._expected(math.log(work))
        if after <= 0:
            return math.exp(middle)
        late = (math.log(after) - middle) / self._spread
        still_there = max(NORMAL.cdf(-late), SURELY)
        mean = math.exp(middle + self._spread**2 / 2) * NORMAL.cdf(self._spread - late) / still_there
        return max(math.exp(middle), mean, after)

    def rest(self, trial: Seen) -> float:
        """Seconds that one still takes which runs."""
        whole = self.whole(trial.work, trial.seconds)
        return whole * self._further(min(1.0, trial.seconds / whole))

    def of_next(self, work: float | None) -> float:
        """Seconds of a trial that has not begun.

        Args:
            work: that it is expected to be; None if its settings are not known yet.
        """
        return self._at_first * (self._of_unknown if work is None else self.whole(work))

    def _expected(self, work: float) -> float:
        """Of the logarithm of seconds, from that of the work."""
        return self._seconds + self._slope * (work - self._work)

    def _part(self, trial: Seen) -> float:
        return 1.0 if trial.is_whole else min(1.0, trial.seconds / self.whole(trial.work))

    def _further(self, part: float) -> float:
        """How much further a trial gets, on an average, that has come so far; in parts of a whole training."""
        further, at, still_there = 0.0, part, 1.0
        for place, (reached, still_runs) in enumerate(self._parts):
            if reached <= part or still_runs:
                continue
            further, at = further + still_there * (reached - at), reached
            still_there *= 1 - 1 / (len(self._parts) - place)
        return further + still_there * (1.0 - at)


def seconds_left(seen: Sequence[Seen], planned: int, at_once: int, ahead: Sequence[float] = ()) -> float | None:
    """Until the last trial of a sweep ends; None as long as none was trained to its end.

    Args:
        seen: its trials so far.
        planned: how many there will be.
        at_once: how many run at once.
        ahead: the work of the next ones, as far as their settings are known.
    """
    durations = Durations(seen)
    if not durations.is_known:
        return None
    ends = [durations.rest(each) for each in seen if not each.is_over]
    ends += [0.0] * (max(1, at_once) - len(ends))
    heapq.heapify(ends)
    for _, work in zip(range(planned - len(seen)), chain(ahead, repeat(None)), strict=False):
        heapq.heapreplace(ends, ends[0] + durations.of_next(work))
    return max(ends)


def is_worth(rest: float, faster: float, costs: float) -> bool:
    """Whether a trial should go on elsewhere.

    Args:
        rest: seconds that it still takes where it is.
        faster: how many times as fast it would be.
        costs: seconds that it takes to begin there.
    """
    return rest * (1 - 1 / faster) > WORTH * costs


class EndOfSweep:
    """When a sweep ends, as it stands.

    Args:
        planned: how many trials there will be, without those that were over when it was taken up again.
    """

    def __init__(self, planned: int) -> None:
        self.planned, self.at_once = planned, 1
        self._durations: Durations | None = None
        self._fitted_at = 0.0
        self.works_ahead: Callable[[], Sequence[float]] = list  # of trials whose settings are known already

    def left(self, trials: Iterable[TrialResult]) -> float | None:
        """Seconds; None if they cannot be told.

        Args:
            trials: so far; those that were interrupted do not count.
        """
        return seconds_left(_seen(trials), self.planned, self.at_once, self.works_ahead())

    def rest(self, trial: TrialResult, trials: Iterable[TrialResult]) -> float | None:
        """Seconds that one still takes which runs, on an average; None if that cannot be told."""
        if self._durations is None or time.monotonic() - self._fitted_at > FITTED_EVERY_S:
            self._durations, self._fitted_at = Durations(_seen(trials)), time.monotonic()
        return self._durations.rest(Seen.of(trial)) if self._durations.is_known else None


def _seen(trials: Iterable[TrialResult]) -> list[Seen]:
    """Those that say how long trials take: not those that were interrupted."""
    return [Seen.of(each) for each in trials if each.state not in (TrialState.STOPPED, TrialState.LOST)]
