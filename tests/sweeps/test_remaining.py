"""When a sweep will end: a thousand made-up sweeps, and what a person is told."""

from __future__ import annotations

import heapq
import random
import statistics
from dataclasses import dataclass, replace

import pytest
from ray import tune
from rich.console import Console

from hfsuite.sweeps.display import Display
from hfsuite.sweeps.remaining import Durations, EndOfSweep, Seen, seconds_left
from hfsuite.tracking.state import TrialState
from tests import toy
from tests.sweeps.test_log_lines import trial

RUNGS = (1 / 9, 1 / 3)  # ASHA's, of a training with nine reports


@dataclass
class MadeUp:
    """A trial of a made-up sweep."""

    work: float
    seconds: float
    is_whole: bool
    began: float = 0.0

    def at(self, now: float) -> Seen:
        is_over = now >= self.began + self.seconds
        return Seen(self.work, min(self.seconds, now - self.began), is_over, is_over and self.is_whole)


@dataclass
class MadeUpSweep:
    """Trials in the order in which they begin, how many at once, and when the last one ends."""

    trials: list[MadeUp]
    at_once: int
    end: float
    is_in_line: bool

    def left(self, now: float) -> float | None:
        seen = [each.at(now) for each in self.trials if each.began <= now]
        ahead = [each.work for each in self.trials[len(seen) :]] if self.is_in_line else []
        return seconds_left(seen, len(self.trials), self.at_once, ahead)


def made_up_sweep(seed: int) -> MadeUpSweep:
    draw = random.Random(seed)
    at_once, count = draw.choice([1, 2, 4, 8, 16]), draw.randint(10, 80)
    exponent, noise, stops = draw.uniform(0.3, 1.2), draw.uniform(0.02, 0.3), draw.choice([0.0, 0.0, 2 / 3])
    spread = draw.uniform(0, 1)
    trials, free = [], [0.0] * at_once
    for _ in range(count):
        work = draw.lognormvariate(3, spread)
        whole = work**exponent * draw.lognormvariate(0, noise)
        stopped = next((rung for rung in RUNGS if draw.random() < stops), None)
        trials.append(MadeUp(work, whole * (stopped or 1), stopped is None))
    if is_in_line := draw.random() < 0.5:
        trials.sort(key=lambda each: each.work, reverse=True)
    for each in trials:
        each.began = free[0]
        heapq.heapreplace(free, free[0] + each.seconds)
    return MadeUpSweep(trials, at_once, max(free), is_in_line)


def test_a_thousand_sweeps_end_about_when_it_was_said() -> None:
    """Against what a log said before: as long for each of the others as for those that are over."""
    ours, theirs = [], []
    for seed in range(1_000):
        sweep = made_up_sweep(seed)
        for part in (0.3, 0.5, 0.7, 0.9):
            now, still = part * sweep.end, (1 - part) * sweep.end
            over = sum(each.began + each.seconds <= now for each in sweep.trials)
            if (left := sweep.left(now)) is not None:
                ours.append((left - still) / sweep.end)
                theirs.append(((len(sweep.trials) - over) * now / over - still) / sweep.end)
    assert len(ours) > 3_000
    assert statistics.median(map(abs, ours)) < 0.07
    assert abs(statistics.median(ours)) < 0.03, "neither too early nor too late"
    assert statistics.fmean(map(abs, ours)) < 0.5 * statistics.fmean(map(abs, theirs))


def test_the_longest_first_end_sooner() -> None:
    """What the order of `expected_work` is for."""
    gains = []
    for seed in range(1_000):
        draw = random.Random(seed)
        at_once, works = draw.choice([2, 4, 8]), [draw.lognormvariate(3, 0.6) for _ in range(draw.randint(10, 40))]
        ends = []
        for order in (works, sorted(works, reverse=True)):
            free = [0.0] * at_once
            for work in order:
                heapq.heapreplace(free, free[0] + work)
            ends.append(max(free))
        gains.append(ends[1] / ends[0])
    assert statistics.fmean(gains) < 0.93
    assert sum(gain > 1.01 for gain in gains) < 50
    assert max(gains) < 1.1


def test_seconds_say_how_much_of_the_work_counts() -> None:
    constant = Durations([Seen(work, 10.0, True, True) for work in (1.0, 10.0, 100.0, 1000.0)])
    in_proportion = Durations([Seen(work, 2 * work, True, True) for work in (1.0, 10.0, 100.0)])
    assert constant.whole(10_000.0) < 50
    assert in_proportion.whole(1_000.0) == pytest.approx(2_000.0)


def test_one_that_has_passed_a_rung_is_compared_with_those_that_did() -> None:
    over = [Seen(1.0, 10.0, True, False)] * 6 + [Seen(1.0, 90.0, True, True)] * 2
    durations = Durations(over)
    assert durations.rest(Seen(1.0, 0.0, False, False)) == pytest.approx(30.0)
    assert durations.rest(Seen(1.0, 30.0, False, False)) == pytest.approx(60.0, rel=0.01)
    assert 0 < durations.rest(Seen(1.0, 95.0, False, False)) < 9, "it takes longer than was thought"


def test_nothing_is_said_before_a_trial_was_trained_to_its_end() -> None:
    stopped, lost = trial(0, TrialState.PRUNED), trial(1, TrialState.LOST)
    end = EndOfSweep(4)
    assert end.left([stopped, lost]) is None
    end.at_once = 2
    assert end.left([trial(0, TrialState.COMPLETED), stopped]) == pytest.approx(12.3, rel=0.1)


def test_the_live_table_shows_it() -> None:
    display = Display(title="made", metric="loss", mode="min", progress=[], total=3, console=Console(width=80))
    with display.console.capture() as shown:
        display.console.print(display.table([trial(0, TrialState.COMPLETED), trial(1)], left=340.0))
        display.console.print(display.table([trial(each, TrialState.COMPLETED) for each in range(3)], left=0.0))
    assert shown.get().count("1 of 3 trials over, about 6 min left") == 1
    assert shown.get().count("left") == 1


def test_a_sweep_begins_with_its_long_trials_and_tells_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    space = {"x": tune.uniform(0.5, 2.0), "epochs": tune.randint(1, 1_000)}
    experiment = replace(toy.experiment, space=space, defaults=toy.DEFAULTS | {"epochs": 3})
    result = experiment.sweep(trials=5, searcher="random", trial_scheduler="fifo", workers=1, set={"reports": 1})
    epochs = [each.config["epochs"] for each in result.trials]
    assert epochs == [3, *sorted(epochs[1:], reverse=True)]
    assert len(set(epochs[1:])) > 2
    assert all(each.state is TrialState.COMPLETED for each in result.trials)
    assert "4 of 5 over, about " in capsys.readouterr().err
