"""The last trials of a sweep take GPUs for which no trial waits any more. Driver.

A trial that has just saved a checkpoint may go on from it elsewhere: on a GPU of its own where it shares one, or with
more workers. What that costs is the start of a trial, as measured in this sweep; what it saves follows from how long
trials take (`hfsuite.sweeps.remaining`) and from their speeds (`hfsuite.sweeps.pack_size`).

More workers are started in a group of their own while the trial still trains: it waits for nothing but its checkpoint,
and where others take the GPUs first, nothing has happened. A trial that cannot go on with more workers goes on as it
was.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from hfsuite.errors import TrialFailed
from hfsuite.ranks import pace
from hfsuite.ranks.pace import Pace
from hfsuite.sweeps.gpu_sharing import LOOK_EVERY_S, WARM_AFTER, GpuSharing
from hfsuite.sweeps.head_start import HeadStart
from hfsuite.sweeps.reasons import first_line
from hfsuite.sweeps.remaining import is_worth
from hfsuite.sweeps.request import GROW, STAY, AtEnd
from hfsuite.trials import resources
from hfsuite.trials.failure import is_out_of_gpu_memory
from hfsuite.trials.gpu_group import Group, State
from hfsuite.trials.resources import TrialRequest, is_alone, is_grown

NEEDS_NO_SLOT = (Trial.RUNNING, Trial.TERMINATED, Trial.ERROR)
TWICE_THE_WORKERS = 1.5  # times as fast, until it has been measured
ENOUGH_RATES = 5  # of about a second each
NO_GAIN = 1.05  # measured: more workers are not worth their GPUs


class LastTrials(Callback):
    """Says where trials go on.

    Args:
        sharing: follows the trials.
        head_start: starts workers ahead.
        at_end: what shall become of GPUs for which no trial waits.
        planned: how many trials there will be.
        rest: seconds that a trial still takes; None if that cannot be told.
        saves_all: whether a trial's checkpoints hold all that its training needs to go on as if nothing had happened.
        told: says something to whoever watches.
    """

    def __init__(
        self,
        sharing: GpuSharing,
        head_start: HeadStart,
        *,
        at_end: AtEnd,
        planned: int,
        rest: Callable[[Trial], float | None],
        saves_all: Callable[[Trial], bool],
        told: Callable[[str], None],
    ) -> None:
        self.sharing, self.shared, self.head_start = sharing, sharing.shared, head_start
        self.planned, self.rest, self.saves_all, self.told = planned, rest, saves_all, told
        self.keeps_idle = False  # whether actors without a trial stay, since one may leave its neighbours for them
        self._is_end, self._may_spread, self._may_grow = False, at_end != STAY, at_end == GROW
        self._starts, self._restarts = _Starts(), _Starts()
        self._larger: tuple[Group, TrialRequest] | None = None  # made for a trial that may grow
        self._leaving: set[str] = set()  # trials that have not arrived yet
        self._former: dict[str, TrialRequest] = {}  # what those asked for that have not reported since they left
        self._rates: dict[str, _Rates] = {}  # of trials that have grown
        self._looked_at = -math.inf

    # ---- Ray Tune's events

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial begins, or goes on."""
        (self._starts if trial.checkpoint is None else self._restarts).begins(trial)
        self._leaving.discard(trial.trial_id)
        for group in self.shared.groups:
            group.is_left = False  # if one has left it, it is elsewhere now

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial that has gone elsewhere has shown that it can."""
        if trial.trial_id not in self._leaving:  # it is not the report at which it leaves
            self._former.pop(trial.trial_id, None)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """It is over, and needs no place any more."""
        self._leaving.discard(trial.trial_id)
        self._former.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Likewise."""
        self.on_trial_complete(iteration, trials, trial)

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Tune's loop has turned."""
        if time.monotonic() - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = time.monotonic()
        running = [trial for trial in trials if trial.status == Trial.RUNNING]
        for trial in running:
            self._note_steps(trial)
        is_known = len(trials) >= self.planned
        self.keeps_idle = is_known and any(map(self._may_leave, running))
        self._is_end = is_known and not self._leaving and all(trial.status in NEEDS_NO_SLOT for trial in trials)
        if not self._is_end:
            return
        self._make_room(running)
        if not self._former:  # whose trial may come back
            self.shared.release([each for each in self.shared.groups if each.is_empty and not self._is_larger(each)])

    # ---- asked by Ray Tune's loop

    def next_place(self, trial: Trial) -> TrialRequest | None:
        """What a trial asks for that has just saved, to go on elsewhere; None if it stays."""
        request: TrialRequest = trial.placement_group_factory
        slot = self.sharing.slot_of(trial)
        if not self._is_end or slot is None or not self._can_move(trial) or (rest := self.rest(trial)) is None:
            return None
        larger = self._larger
        if self._may_grow and larger is not None and self._is_ready(larger[0]) and self._pays(rest, larger[0].ranks):
            self._larger = None
            self._rates[trial.trial_id] = _Rates(_rate(pace.read(slot.name, slot.group.ranks)))
            self.told(f"Trial {_number(trial)} goes on with {larger[0].ranks} workers.")
            return self._leaves(trial, larger[1])
        if self._may_leave(trial) and any(map(self._is_free, self.shared.groups)):
            slot.group.is_left = True
            self.told(f"Trial {_number(trial)} goes on without neighbours on its GPU.")
            return self._leaves(trial, request)
        return None

    def again(self, trial: Trial, why: str) -> TrialRequest | None:
        """What a trial asks for that has failed through no fault of its own, to be tried again; None if it has failed.

        Args:
            trial: which.
            why: with the traceback of its rank.
        """
        self._leaving.discard(trial.trial_id)
        request: TrialRequest = trial.placement_group_factory
        if (former := self._former.pop(trial.trial_id, None)) is not None:
            where = "with more workers" if is_grown(request) else "elsewhere"
            self._may_grow, self._may_spread = False, self._may_spread and is_grown(request)
            self.told(f"Trial {_number(trial)} cannot go on {where}, and goes on as it was: {told_by_rank(why)}")
            return former
        lacks_memory = is_out_of_gpu_memory(why) and self.sharing.runs_out_of_memory(trial)
        return resources.alone(request) if lacks_memory else None

    # ---- inside

    def _leaves(self, trial: Trial, request: TrialRequest) -> TrialRequest:
        self._is_end = False
        self._leaving.add(trial.trial_id)
        self._former[trial.trial_id] = trial.placement_group_factory
        self.sharing.note_left(trial)
        return request

    def _note_steps(self, trial: Trial) -> None:
        """What a trial's first steps say: how long its start took, and whether more workers make it faster."""
        slot = self.sharing.slot_of(trial)
        paces = pace.read(slot.name, slot.group.ranks) if slot is not None else []
        if not paces or paces[0].trial != trial.trial_id or not paces[0].steps:
            return
        for starts in (self._starts, self._restarts):
            starts.note(trial, paces[0].since)
        if trial.trial_id in self._rates and all(each.steps >= WARM_AFTER for each in paces):
            rates = self._rates[trial.trial_id]
            rates.note(paces)
            if rates.are_known and rates.faster < NO_GAIN and self._may_grow:
                self._may_grow = False
                self.told(
                    f"More workers make {rates.faster:.2f} times as many steps a second in trial {_number(trial)}: no "
                    "other trial gets more."
                )

    def _make_room(self, running: list[Trial]) -> None:
        """Has Ray look for room for more workers where that would pay; gives it back where it does not any more."""
        movable = [trial for trial in running if self._can_move(trial)]
        longest = max((self.rest(trial) or 0.0 for trial in movable), default=0.0)
        if self._larger is not None:
            if not self._may_grow or not self._pays(longest, self._larger[0].ranks):
                self.shared.release([self._larger[0]])
                self._larger = None
            return
        if not self._may_grow or not movable or any(group.busy > 1 for group in self.shared.groups):
            return  # those that share a GPU come first
        request: TrialRequest = movable[0].placement_group_factory
        room = resources.room_for(Group.bundles_of(request, 1)[0], request.strategy) // self.shared.ranks
        times = 2 ** int(math.log2(room)) if room else 0
        if times > 1 and self._pays(longest, times * self.shared.ranks):
            larger = resources.grown(request, times)
            self._larger = Group.made(larger, 1), larger
            self.shared.add(self._larger[0])
            self.head_start.begin_in(self._larger[0].slots[0], larger)

    def _can_move(self, trial: Trial) -> bool:
        """Whether it could go on elsewhere from what it saves; once it has saved anything."""
        request = trial.placement_group_factory
        has_moved_enough = is_alone(request) or is_grown(request) or trial.trial_id in self._former
        return not has_moved_enough and trial.checkpoint is not None and self.saves_all(trial)

    def _may_leave(self, trial: Trial) -> bool:
        """Whether it would be worth a trial's while to have a GPU for itself, as far as is known."""
        slot = self.sharing.slot_of(trial)
        if not self._may_spread or slot is None or slot.group.busy < 2 or not self._can_move(trial):
            return False
        faster = self.sharing.slower(slot.group.busy)
        return faster is not None and ((rest := self.rest(trial)) is None or self._is_worth(rest, faster))

    def _pays(self, rest: float, workers: int) -> bool:
        return self._is_worth(rest, TWICE_THE_WORKERS ** math.log2(workers / self.shared.ranks))

    def _is_worth(self, rest: float, faster: float) -> bool:
        return is_worth(rest, faster, self._restarts.usual or self._starts.usual or math.inf)

    def _is_larger(self, group: Group) -> bool:
        return self._larger is not None and group is self._larger[0]

    def _is_ready(self, group: Group) -> bool:
        return self.shared.is_there(group) and self.head_start.is_ready_in(group.slots[0])

    def _is_free(self, group: Group) -> bool:
        """Whether a trial can go on there at once."""
        waits = any(slot.state is State.IDLE for slot in group.slots)
        return waits and not group.busy and self.shared.is_there(group) and not group.is_reserved


class _Starts:
    """How long trials take to their first step."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}  # of those that have made none yet; seconds since 1970
        self._seconds: list[float] = []

    def begins(self, trial: Trial) -> None:
        """A trial's actor runs."""
        self._began[trial.trial_id] = time.time()

    def note(self, trial: Trial, first_step: float) -> None:
        """A trial trains; only its first step counts."""
        if (began := self._began.pop(trial.trial_id, None)) is not None:
            self._seconds.append(max(0.0, first_step - began))

    @property
    def usual(self) -> float | None:
        """Seconds; None if none was seen."""
        return statistics.median(self._seconds) if self._seconds else None


@dataclass
class _Rates:
    """Steps a second of a trial, with fewer workers and with more."""

    before: float
    since: dict[float, float] = field(default_factory=dict)  # by when it was told

    def note(self, paces: Sequence[Pace]) -> None:
        """What its ranks tell."""
        if rate := _rate(paces):
            self.since[paces[0].until] = rate

    @property
    def are_known(self) -> bool:
        """Whether enough was seen."""
        return bool(self.before) and len(self.since) >= ENOUGH_RATES

    @property
    def faster(self) -> float:
        """How many times as fast it is now."""
        return statistics.median(self.since.values()) / self.before


def _rate(paces: Sequence[Pace]) -> float:
    """Steps a second of the slowest rank; 0 if that is not known."""
    return min((each.rate for each in paces), default=0.0)


def told_by_rank(failure: str) -> str:
    """What a rank said as it failed, in one line, out of what Ray makes of it."""
    return first_line(failure.rpartition(f"{TrialFailed.__name__}: ")[2])


def _number(trial: Trial) -> str:
    return str(trial).rpartition("_")[2]
