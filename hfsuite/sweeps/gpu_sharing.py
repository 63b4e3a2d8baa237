"""Trials share GPUs by measure: a sweep begins with one on each, and goes on with as many as are faster so. Driver.

While trials train, their ranks tell how fast and what they take (`hfsuite.ranks.pace`). From this follows how many a
GPU holds (`gpu_memory`) and how many are worth it (`pack_size`); how many run is then a number of Ray Tune's resource
manager (`hfsuite.trials.gpu_slots`).
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.search import ConcurrencyLimiter, Searcher

from hfsuite.ranks import pace
from hfsuite.ranks.pace import Pace
from hfsuite.sweeps.gpu_memory import GpuMemory
from hfsuite.sweeps.pack_size import PackSize
from hfsuite.trials.gpu_group import Group, Slot, State
from hfsuite.trials.gpu_slots import SharedGpus

LOOK_EVERY_S = 0.5
WARM_AFTER = 5  # steps: kernels are chosen, and the optimizer has its state


@dataclass
class GpuUse:
    """What the GPUs of a sweep did: of all that was seen of them, the mean of the busy parts and the most memory."""

    seen: int = 0
    busy: float = 0.0
    memory: float = 0.0  # of the GPU's own, at most

    def note(self, told: Pace) -> None:
        """What a rank has seen of its GPU."""
        if (gpu := told.gpu) is not None:
            self.memory = max(self.memory, gpu.used / gpu.total)
            if gpu.busy is not None:
                self.seen, self.busy = self.seen + 1, self.busy + gpu.busy


@dataclass
class _Warm:
    """Since when the trials of a group have all been training, one beside the other."""

    trials: frozenset[str] = frozenset()
    since: float = math.inf
    told: dict[str, float] = field(default_factory=dict)  # by trial, until when its speed was noted


class GpuSharing(Callback):
    """Follows trials that share GPUs, and says how many do.

    Args:
        shared: the GPUs.
        ranks: of a trial.
        space: what is searched; the largest values of sizes count.
        settings: from Ray Tune's configuration of a trial to its settings.
        is_measured: whether the number is found by measuring; else it stays as it is.
        told: says something to whoever watches.
        ends_spare: ends the workers and actors in slots to which no trial will come.
    """

    def __init__(
        self,
        shared: SharedGpus,
        *,
        ranks: int,
        space: Mapping[str, Any],
        settings: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        is_measured: bool,
        told: Callable[[str], None],
        ends_spare: Callable[[Sequence[Slot]], None],
    ) -> None:
        self.shared, self.ranks, self.settings = shared, ranks, settings
        self.is_measured, self.told, self.ends_spare = is_measured, told, ends_spare
        self.memory, self.pack, self.use = GpuMemory(space), PackSize(), GpuUse()
        self.most = max(len(group.slots) for group in shared.groups)
        self._limiter: ConcurrencyLimiter | None = None
        self._warm: dict[int, _Warm] = defaultdict(_Warm)
        self._looked_at = -math.inf
        self._before: dict[str, tuple[float, float]] = {}  # seconds and shares of trials that left
        self._at_once: list[int] = []  # at each look, how many trials ran
        self._settled: set[int] = set()
        self._has_told_of_memory = False

    # ---- Ray Tune's events

    def setup(self, *_: Any, **__: Any) -> None:
        """Tune's loop begins, which has learnt by now how many trials can run at most."""
        self._limit_searcher()

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Tune's loop has turned."""
        if time.monotonic() - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = time.monotonic()
        running = {slot: each for each in trials if each.status == Trial.RUNNING and (slot := self.slot_of(each))}
        self._at_once.append(len(running))
        told = {slot: paces for slot, each in running.items() if (paces := self._paces(slot, each))}
        for slot, paces in told.items():
            self._note(slot, running[slot], paces)
        for group in self.shared.groups:
            if group.ranks == self.ranks:
                self._note_speeds(group, told)
        if self.is_measured:
            self._decide()

    # ---- asked by the sweep

    def limited(self, searcher: Searcher, most: int) -> ConcurrencyLimiter:
        """A searcher that is asked for a trial only when there is room for it: it has seen more results by then.

        Args:
            searcher: of the sweep.
            most: how many trials can run at once.
        """
        self._limiter = ConcurrencyLimiter(searcher, max_concurrent=most)
        return self._limiter

    def slot_of(self, trial: Trial) -> Slot | None:
        """Where a trial runs; None if it does not."""
        return self.shared.slot_of(trial.temporary_state.ray_actor)

    def share_of(self, trial: Trial) -> float | None:
        """The part of its GPUs that a trial has had so far, on an average of its time; None if it does not run."""
        if (slot := self.slot_of(trial)) is None:
            return None
        now, (seconds, shared) = slot.share, self._before.get(trial.trial_id, (0.0, 0.0))
        seconds, shared = seconds + slot.busy_s, shared + slot.shared_s
        return shared / seconds if seconds else now

    def note_left(self, trial: Trial) -> None:
        """A trial goes on elsewhere: what it has had so far counts."""
        if (slot := self.slot_of(trial)) is not None:
            slot.group.count()
            seconds, shared = self._before.get(trial.trial_id, (0.0, 0.0))
            self._before[trial.trial_id] = seconds + slot.busy_s, shared + slot.shared_s

    def slower(self, at_once: int) -> float | None:
        """How many times as long so many trials on a GPU take as one alone; None where that was not measured."""
        return self.pack.slower(at_once, self._limit) if self.is_measured else None

    def runs_out_of_memory(self, trial: Trial) -> bool:
        """A trial has. Returns whether it was not its own fault: it had neighbours, and has to be tried without."""
        slot = self.slot_of(trial)
        if slot is None:
            return False
        slot.group.count()
        if slot.most < 2:
            return False
        self.memory.note_out_of_memory(slot.most)
        self.shared.size = min(self.shared.size, slot.most - 1)
        if not self._has_told_of_memory:
            self._has_told_of_memory = True
            others = slot.most - 1
            self.told(
                f"A trial ran out of GPU memory beside {others} other{'s' if others > 1 else ''}, and is tried again "
                f"alone. From now on {_trials(self.shared.size)} at once on each GPU."
            )
        return True

    @property
    def summary(self) -> dict[str, Any]:
        """What the sweep's record says of it."""
        counted = [each for each in self._at_once if each]
        measured = self.pack.throughput(self.shared.size, self._limit)
        return {
            "trials_a_gpu": self.shared.size,
            "trials_at_once": round(sum(counted) / len(counted), 2) if counted else 0.0,
            "trials_at_once_most": max(counted, default=0),
            "times_as_fast_as_alone": round(measured, 2) if measured is not None else None,
            "gpu_busy": round(self.use.busy / self.use.seen, 3) if self.use.seen else None,
            "gpu_memory_most": round(self.use.memory, 3) if self.use.memory else None,
        }

    # ---- inside

    @property
    def _limit(self) -> float:
        return min(self.most, self.memory.limit)

    def _paces(self, slot: Slot, trial: Trial) -> list[Pace]:
        paces = pace.read(slot.name, slot.group.ranks)
        return paces if paces and paces[0].trial == trial.trial_id else []  # else of the one before

    def _note(self, slot: Slot, trial: Trial, paces: Sequence[Pace]) -> None:
        is_alone = slot.most < 2 and all(each.state is not State.IDLE for each in slot.group.slots)
        for each in paces:
            self.use.note(each)
            if each.gpu is not None and each.steps >= WARM_AFTER:
                if slot.most < 2 and each.gpu.busy is not None:
                    self.pack.note_busy(each.gpu.busy)
                self.memory.note(trial.trial_id, self.settings(trial.config), each.gpu, is_alone=is_alone)

    def _note_speeds(self, group: Group, told: Mapping[Slot, Sequence[Pace]]) -> None:
        """The speeds of a group's trials, for the time in which all of them were training and none came or went."""
        busy = [slot for slot in group.slots if slot.state is State.BUSY]
        paces = {slot: told[slot] for slot in busy if slot in told}
        warm = self._warm[id(group)]
        if len(paces) < len(busy) or any(each.steps < WARM_AFTER for ranks in paces.values() for each in ranks):
            self._warm[id(group)] = _Warm()
            return
        trials = frozenset(ranks[0].trial for ranks in paces.values())
        if trials != warm.trials or warm.since < group.changed_at:
            last = max((each.until for ranks in paces.values() for each in ranks), default=time.time())
            warm = self._warm[id(group)] = _Warm(trials, max(last, group.changed_at))
        for ranks in paces.values():
            slowest = min(ranks, key=lambda each: each.rate)
            if slowest.since >= warm.since and slowest.until > warm.told.get(slowest.trial, 0) and slowest.rate:
                self.pack.note(slowest.trial, len(trials), slowest.rate, slowest.until - slowest.since)
                warm.told[slowest.trial] = slowest.until

    def _decide(self) -> None:
        self.shared.size = size = self.pack.size(self._limit)
        self._limit_searcher()
        if self.pack.is_settled(self._limit) and size not in self._settled:
            self._settled.add(size)
            for group in self.shared.groups:
                empty = [slot for slot in group.slots if slot.state is State.EMPTY]
                self.ends_spare(empty[max(0, size - len(group.slots) + len(empty)) :])
            self.told(self._found(size))

    def _limit_searcher(self) -> None:
        if self._limiter is not None:
            self._limiter.max_concurrent = self.shared.at_once

    def _found(self, size: int) -> str:
        faster, room = self.pack.throughput(size, self._limit), self.memory.limit
        why = f"; its memory holds {room:.0f}" if room < self.most else ""
        if size == 1 and room < 2:
            return "One trial at a time on each GPU: its memory holds no more."
        if size == 1:
            return "One trial at a time on each GPU: two together are no faster."
        rate = f", {faster:.1f} times as fast as one alone" if faster is not None else ""
        return (
            f"{_trials(size).capitalize()} at once on each GPU{rate}{why}. Seconds of trials that share one are more."
        )


def _trials(count: int) -> str:
    return f"{count} trials run" if count > 1 else "one trial runs"
