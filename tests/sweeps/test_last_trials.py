"""What the last trials of a sweep do with GPUs, or CPUs, for which no trial waits."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import ScalingConfig
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from hfsuite.ranks import pace
from hfsuite.report import FACTS_FILE, TRAINING_FINISHED
from hfsuite.sweeps import remaining
from hfsuite.sweeps.last_trials import TWICE_THE_WORKERS, LastTrials
from hfsuite.sweeps.remaining import Durations, Seen, is_worth
from hfsuite.sweeps.result import SweepResult, TrialResult
from hfsuite.sweeps.tune_moves import last_trials_move
from hfsuite.tracking import store
from hfsuite.trials import resources
from hfsuite.trials.gpu_group import Group, Slot, State
from hfsuite.trials.resources import TrialRequest, alone, grown
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


REQUEST = TrialRequest.of(ScalingConfig(num_workers=1), owner="test")


class MadeUpGpus:
    """What `LastTrials` asks of the GPUs of a sweep, and of whoever starts workers there."""

    ranks = 1

    def __init__(self, *busy: int, slots: int = 2) -> None:
        self.groups = [self.group(1, slots) for _ in busy]
        for group, count in zip(self.groups, busy, strict=True):
            for slot in group.slots[:count]:
                group.put(slot, State.BUSY)

    @staticmethod
    def group(ranks: int, slots: int) -> Group:
        made = Group(None, ranks)  # type: ignore[arg-type]  # nothing is started in it
        made.slots = [Slot(made) for _ in range(slots)]
        return made

    def add(self, group: Group) -> None:
        self.groups.append(group)

    def release(self, groups: Sequence[Group]) -> None:
        for group in groups:
            group.is_gone = True

    def is_there(self, group: Group) -> bool:
        return not group.is_gone

    def last_trials(self, monkeypatch: pytest.MonkeyPatch, trials: int, room: int = 0) -> LastTrials:
        monkeypatch.setattr(resources, "room_for", lambda *_: room)
        monkeypatch.setattr(Group, "made", lambda request, _: self.group(len(request.bundles), 1))
        monkeypatch.setattr(pace, "read", lambda *_: [])
        sharing: Any = SimpleNamespace(
            shared=self, slot_of=lambda each: each.slot, note_left=lambda _: None, slower=lambda count: 0.8 * count,
            runs_out_of_memory=lambda _: False,
        )  # fmt: skip
        head_start: Any = SimpleNamespace(begin_in=lambda *_: None, is_ready_in=lambda _: True)
        made = LastTrials(
            sharing, head_start, at_end="grow", planned=trials, rest=lambda _: 1_000.0, saves_all=lambda _: True,
            told=lambda _: None,
        )  # fmt: skip
        made._starts._seconds = [5.0]
        return made


def trial_in(slot: Slot, number: int, **about: Any) -> Any:
    """One that runs there and has saved."""
    known = {"status": Trial.RUNNING, "checkpoint": "saved", "placement_group_factory": REQUEST}
    return SimpleNamespace(trial_id=str(number), slot=slot, **known | about)


def look(last: LastTrials, trials: Sequence[Any]) -> None:
    last._looked_at = -math.inf
    last.on_step_end(0, list(trials))


def test_where_one_cannot_have_more_workers_no_other_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = MadeUpGpus(1, 1)
    last = gpus.last_trials(monkeypatch, 2, room=2)
    one, other = (trial_in(group.slots[0], number) for number, group in enumerate(gpus.groups))
    look(last, [one, other])
    assert last.next_place(one) == grown(REQUEST, 2)
    one.placement_group_factory = grown(REQUEST, 2)
    last.on_trial_start(0, [], one)
    look(last, [one, other])
    second = gpus.groups[-1]
    assert (second.ranks, second.is_gone) == (2, False), "the other one would have it"
    assert last.again(one, "...TrialFailed: rank 0: ConfigurationError: With 2 workers") == REQUEST
    one.placement_group_factory = REQUEST
    last.on_trial_start(0, [], one)
    assert last.next_place(other) is None
    look(last, [one, other])
    assert second.is_gone
    assert last.again(one, "of itself") is None


@pytest.mark.parametrize("about", [{"checkpoint": None}, {"placement_group_factory": alone(REQUEST)}])
def test_nothing_is_held_for_a_trial_that_cannot_move(about: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sharing, lone = MadeUpGpus(2, 0), MadeUpGpus(1)
    last = sharing.last_trials(monkeypatch, 2)
    look(last, [trial_in(slot, number, **about) for number, slot in enumerate(sharing.groups[0].slots)])
    assert not last.keeps_idle
    assert sharing.groups[1].is_gone
    last = lone.last_trials(monkeypatch, 1, room=4)
    look(last, [trial_in(lone.groups[0].slots[0], 0, **about)])
    assert len(lone.groups) == 1


def test_one_trial_leaves_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = MadeUpGpus(2, 0)
    crowded, free = gpus.groups
    free.put(free.slots[0], State.IDLE)
    last = gpus.last_trials(monkeypatch, 2)
    one, other = (trial_in(slot, number) for number, slot in enumerate(crowded.slots))
    look(last, [one, other])
    assert last.keeps_idle
    assert last.next_place(one) == REQUEST
    assert crowded.is_left
    look(last, [one, other])
    assert last.next_place(other) is None, "it would come to the same GPU"
    assert not free.is_gone
    last.on_trial_start(0, [], one)
    assert not crowded.is_left
    assert last.again(one, "...TrialFailed: rank 0: cannot go on") == REQUEST, "where it was, it could"
    assert last.next_place(other) is None


@pytest.mark.parametrize(
    ("report", "moves"),
    [
        ({}, False),
        ({SHOULD_CHECKPOINT: True}, True),
        ({SHOULD_CHECKPOINT: True, TRAINING_FINISHED: True}, False),
    ],
)
def test_a_trial_moves_at_a_checkpoint_that_is_not_its_last(
    report: dict[str, Any], moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(controller: Any, trial: Any, result: dict[str, Any]) -> Any:
        return controller._scheduler_alg.on_trial_result(controller, trial, result)

    monkeypatch.setattr(TuneController, "_process_trial_result", ask)
    controller: Any = SimpleNamespace(_scheduler_alg=FIFOScheduler())
    trial: Any = SimpleNamespace(trial_id="0")
    with last_trials_move(lambda _: REQUEST, lambda: False):
        decision = TuneController._process_trial_result(controller, trial, report)
    assert decision == (TrialScheduler.PAUSE if moves else TrialScheduler.CONTINUE)


def test_checkpoints_without_the_optimizer_are_told_of() -> None:
    found = [
        json.loads(
            Path(
                swept(set={"epochs": 1, "step_s": 0.0, "saves_only_model": only}).trials[0].path, FACTS_FILE
            ).read_text()
        )
        for only in (False, True)
    ]
    assert [each["saves_only_model"] for each in found] == [False, True]


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
