"""What the last trials of a sweep do with GPUs, or CPUs, for which no trial waits."""

from __future__ import annotations

import json
import math
import random
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hfsuite.sweeps import remaining
from hfsuite.sweeps.last_trials import TWICE_THE_WORKERS
from hfsuite.sweeps.remaining import Durations, Seen, is_worth
from hfsuite.sweeps.result import SweepResult, TrialResult
from hfsuite.tracking import store
from tests.sweeps import growing


@dataclass
class MadeUp:
    """A trial of a made-up sweep: seconds alone on a GPU."""

    whole: float
    done: float = 0.0
    seconds: float = 0.0
    workers: int = 1
    starts_until: float = 0.0

    def seen(self) -> Seen:
        is_over = self.done >= self.whole
        return Seen(1.0, self.seconds, is_over, is_over)


def made_up_end(seed: int, at_end: str) -> float:
    """When the last trial of a sweep ends, with four trials at once on each GPU and a checkpoint every 20 seconds."""
    draw = random.Random(seed)
    gpus, costs, spread = draw.choice([2, 4, 8]), draw.uniform(1, 10), draw.uniform(0, 1)
    gain, twice = draw.uniform(0.1, 0.9), draw.uniform(1.3, 1.9)  # of a neighbour; of twice the workers
    waiting = [MadeUp(draw.lognormvariate(5, spread)) for _ in range(draw.randint(4 * gpus, 8 * gpus))]
    trials, places, now, every = [], [[] for _ in range(gpus)], 0.0, 5.0

    def faster(count: int) -> float:
        return count / (1 + gain * (count - 1))

    while waiting or any(places):
        for place in sorted(places, key=len):
            while waiting and len(place) < 4:
                place.append(waiting.pop())
                trials.append(place[-1])
        now += every
        for place in places:
            for each in place:
                each.seconds += every
                if each.starts_until < now:
                    each.done += every / faster(len(place)) * twice ** math.log2(each.workers)
        for place in places:
            place[:] = [each for each in place if each.done < each.whole]
        durations = Durations([each.seen() for each in trials])
        if waiting or not durations.is_known or now % 20:
            continue
        if at_end == "stay":
            continue
        for place in sorted(places, key=len, reverse=True):
            room = sum(not each for each in places) - sum(each.workers - 1 for other in places for each in other)
            rest = durations.rest(place[0].seen()) if place else 0.0
            if len(place) > 1 and room > 0:
                if is_worth(rest, faster(len(place)), costs):
                    place[0].starts_until = now + costs
                    next(each for each in places if not each).append(place.pop(0))
            elif at_end == "grow" and len(place) == 1 and place[0].workers == 1 and room > 1:
                workers = 2 ** int(math.log2(room))
                if is_worth(rest, TWICE_THE_WORKERS ** math.log2(workers), costs):
                    place[0].workers, place[0].starts_until = workers, now + costs
    return now


@pytest.mark.slow
def test_a_thousand_sweeps_end_sooner_where_the_last_trials_take_what_is_free() -> None:
    ends = {each: [made_up_end(seed, each) for seed in range(1_000)] for each in ("stay", "spread", "grow")}
    for at_end, most in (("spread", 0.985), ("grow", 0.945)):
        ratios = [ours / theirs for ours, theirs in zip(ends[at_end], ends["stay"], strict=True)]
        assert statistics.fmean(ratios) < most, at_end
        assert sum(ratio > 1.01 for ratio in ratios) < 20, at_end


def swept(**asked: Any) -> SweepResult:
    """A sweep of a long trial and a short one, one worker each; there are CPUs for four."""
    return growing.experiment.sweep(**{"searcher": "grid", "trial_scheduler": "fifo", **asked})


def curve(trial: TrialResult) -> dict[int, tuple[float, float]]:
    """What it reported at each step."""
    lines = map(json.loads, Path(trial.path, "result.json").read_text().splitlines())
    return {each["step"]: (each["eval_loss"], each["loss"]) for each in lines if "eval_loss" in each}


@pytest.mark.slow
def test_a_trial_goes_on_with_more_workers_and_its_numbers_stay(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(remaining, "WORTH", 0.1)
    grown = swept(at_end="grow").trials[0]
    told = capfd.readouterr().err
    alone = swept(at_end="stay", set={"step_s": 0.0}).trials[0]
    (begins, first), (from_step, workers) = grown.workers
    assert (begins, first, workers) == (0, 1, 2)
    assert 0 < from_step < 128
    assert "Trial 000 goes on with 2 workers" in told
    assert alone.workers == [[0, 1]]
    assert curve(grown).keys() == curve(alone).keys()
    for step, numbers in curve(alone).items():
        assert curve(grown)[step] == pytest.approx(numbers, rel=1e-4), step
    tags = store.open_store().get_run(grown.run_id).data.tags
    assert tags["hfsuite.workers"] == f"1, 2 from step {from_step}"
    assert str(grown.state) == str(alone.state) == "completed"


@pytest.mark.slow
def test_a_trial_whose_batch_would_grow_goes_on_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(remaining, "WORTH", 0.1)
    result = swept(at_end="grow", set={"divides": False})
    assert [str(trial.state) for trial in result.trials] == ["completed"] * 2
    assert result.trials[0].workers == [[0, 1]]
    assert result.trials[0].iterations == 32
    assert not Path(result.trials[0].path, "failure.txt").exists()
    told = capfd.readouterr().err
    assert told.count("goes on as it was: rank 0: ConfigurationError: With 2 workers a step would take 16 rows") == 1
