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
from collections.abc import Callable
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from hfsuite.errors import TrialFailed
from hfsuite.ranks import pace
from hfsuite.sweeps.gpu_sharing import LOOK_EVERY_S, WARM_AFTER, GpuSharing
from hfsuite.sweeps.head_start import HeadStart
from hfsuite.sweeps.reasons import first_line
from hfsuite.sweeps.remaining import is_worth
from hfsuite.sweeps.request import GROW, STAY, AtEnd
from hfsuite.trials import resources
from hfsuite.trials.failure import is_out_of_gpu_memory
from hfsuite.trials.gpu_group import Group, State
from hfsuite.trials.resources import TrialRequest, grown, is_alone, is_grown

NEEDS_NO_SLOT = (Trial.RUNNING, Trial.TERMINATED, Trial.ERROR)
TWICE_THE_WORKERS = 1.5  # times as fast, until it has been measured
NO_GAIN = 1.05  # measured: more workers are not worth their GPUs


class LastTrials(Callback):
    """Says where trials go on.

    Args:
        sharing: follows the trials.
        head_start: starts workers ahead.
        at_end: what shall become of GPUs for which no trial waits.
        planned: how many trials there will be.
        rest: seconds that a trial still takes; None if that cannot be told.
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
        told: Callable[[str], None],
    ) -> None:
        self.sharing, self.shared, self.head_start = sharing, sharing.shared, head_start
        self.at_end, self.planned, self.rest, self.told = at_end, planned, rest, told
        self.keeps_idle = False  # whether actors without a trial stay, since one may leave its neighbours for them
        self._is_end, self._may_grow = False, at_end == GROW
        self._began: dict[str, float] = {}  # trials that have made no step yet; seconds since 1970
        self._starts: list[float] = []  # seconds from there to the first step
        self._larger: tuple[Group, TrialRequest] | None = None  # made for a trial that may grow
        self._former: dict[str, TrialRequest] = {}  # of trials that have grown, and not reported since
        self._rates: dict[str, float] = {}  # steps a second of those, before
        self._looked_at = -math.inf

    # ---- Ray Tune's events

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial begins, or goes on."""
        self._began[trial.trial_id] = time.time()
        for group in self.shared.groups:
            group.is_left = False  # if one has left it, it is elsewhere now

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial that goes on with more workers has shown that it can."""
        if is_grown(trial.placement_group_factory):  # not the report at which it leaves
            self._former.pop(trial.trial_id, None)

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Tune's loop has turned."""
        if time.monotonic() - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = time.monotonic()
        running = [trial for trial in trials if trial.status == Trial.RUNNING]
        for trial in running:
            self._note_steps(trial)
        is_known = len(trials) >= self.planned
        self.keeps_idle = is_known and self.at_end != STAY and any(map(self._may_leave, running))
        self._is_end = is_known and all(trial.status in NEEDS_NO_SLOT for trial in trials)
        if not self._is_end:
            return
        if not self._former:  # whose trial may come back
            self.shared.release([each for each in self.shared.groups if each.is_empty and not self._is_larger(each)])
        if self._may_grow:
            self._make_room(running)

    # ---- asked by Ray Tune's loop

    def next_place(self, trial: Trial) -> TrialRequest | None:
        """What a trial asks for that has just saved, to go on elsewhere; None if it stays."""
        request: TrialRequest = trial.placement_group_factory
        slot = self.sharing.slot_of(trial)
        if not self._is_end or slot is None or is_alone(request) or is_grown(request):
            return None
        if (rest := self.rest(trial)) is None:
            return None
        if (larger := self._larger) is not None and self._is_ready(larger[0]) and self._pays(rest, larger[0].ranks):
            self._is_end, self._larger = False, None
            self.sharing.note_left(trial)
            self._former[trial.trial_id] = request
            if paces := pace.read(slot.name, slot.group.ranks):
                self._rates[trial.trial_id] = min(each.rate for each in paces)
            self.told(f"Trial {_number(trial)} goes on with {larger[0].ranks} workers.")
            return larger[1]
        if self._may_leave(trial) and any(map(self._is_free, self.shared.groups)):
            self._is_end, slot.group.is_left = False, True
            self.sharing.note_left(trial)
            self.told(f"Trial {_number(trial)} goes on without neighbours on its GPU.")
            return request
        return None

    def again(self, trial: Trial, why: str) -> TrialRequest | None:
        """What a trial asks for that has failed through no fault of its own, to be tried again; None if it has failed.

        Args:
            trial: which.
            why: with the traceback of its rank.
        """
        request: TrialRequest = trial.placement_group_factory
        if (former := self._former.pop(trial.trial_id, None)) is not None:
            self._may_grow = False
            self.told(
                f"Trial {_number(trial)} cannot go on with more workers, and goes on as it was: {told_by_rank(why)}"
            )
            return former
        lacks_memory = is_out_of_gpu_memory(why) and self.sharing.runs_out_of_memory(trial)
        return resources.alone(request) if lacks_memory else None

    # ---- inside

    def _note_steps(self, trial: Trial) -> None:
        """What a trial's first steps say: how long its start took, and whether more workers make it faster."""
        slot = self.sharing.slot_of(trial)
        paces = pace.read(slot.name, slot.group.ranks) if slot is not None else []
        if not paces or paces[0].trial != trial.trial_id or not paces[0].steps:
            return
        if (began := self._began.pop(trial.trial_id, None)) is not None:
            self._starts.append(max(0.0, paces[0].since - began))
        if is_grown(trial.placement_group_factory) and all(each.steps >= WARM_AFTER and each.rate for each in paces):
            before, rate = self._rates.pop(trial.trial_id, 0.0), min(each.rate for each in paces)
            if before and rate < before * NO_GAIN:
                self._may_grow = False
                self.told(
                    f"Trial {_number(trial)} makes {rate:.1f} steps a second with more workers and made {before:.1f} "
                    "without: no other trial gets more."
                )

    def _make_room(self, running: list[Trial]) -> None:
        """Has Ray look for room for more workers where that would pay; gives it back where it does not any more."""
        rests = [rest for each in running if not is_grown(each.placement_group_factory) and (rest := self.rest(each))]
        longest = max(rests, default=0.0)
        if self._larger is not None:
            if not self._pays(longest, self._larger[0].ranks):
                self.shared.release([self._larger[0]])
                self._larger = None
            return
        if any(group.busy > 1 for group in self.shared.groups) or not rests:
            return  # those that share a GPU come first
        request = next(each for each in running if not is_grown(each.placement_group_factory)).placement_group_factory
        room = resources.room_for(Group.bundles_of(request, 1)[0]) // self.shared.ranks
        times = 2 ** int(math.log2(room)) if room else 0
        if times > 1 and self._pays(longest, times * self.shared.ranks):
            larger = grown(request, times)
            self._larger = Group.made(larger, 1), larger
            self.shared.add(self._larger[0])
            self.head_start.begin_in(self._larger[0].slots[0], larger)

    def _may_leave(self, trial: Trial) -> bool:
        """Whether it would be worth a trial's while to have a GPU for itself, as far as is known."""
        slot = self.sharing.slot_of(trial)
        faster = self.sharing.slower(slot.group.busy) if slot is not None and slot.group.busy > 1 else None
        return faster is not None and ((rest := self.rest(trial)) is None or self._is_worth(rest, faster))

    def _pays(self, rest: float, workers: int) -> bool:
        return self._is_worth(rest, TWICE_THE_WORKERS ** math.log2(workers / self.shared.ranks))

    def _is_worth(self, rest: float, faster: float) -> bool:
        return is_worth(rest, faster, statistics.median(self._starts) if self._starts else math.inf)

    def _is_larger(self, group: Group) -> bool:
        return self._larger is not None and group is self._larger[0]

    def _is_ready(self, group: Group) -> bool:
        return self.shared.is_there(group) and self.head_start.is_ready_in(group.slots[0])

    def _is_free(self, group: Group) -> bool:
        """Whether a trial can go on there at once."""
        waits = any(slot.state is State.IDLE for slot in group.slots)
        return waits and not group.busy and self.shared.is_there(group) and not group.is_reserved


def told_by_rank(failure: str) -> str:
    """What a rank said as it failed, in one line, out of what Ray makes of it."""
    return first_line(failure.rpartition(f"{TrialFailed.__name__}: ")[2])


def _number(trial: Trial) -> str:
    return str(trial).rpartition("_")[2]
