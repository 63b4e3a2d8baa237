"""GPUs that trials share, and the slots in which they run there: see `hfsuite.trials.gpu_slots`. Driver."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from enum import Enum, auto

import ray
from ray.util.placement_group import PlacementGroup, placement_group

from hfsuite.trials.resources import TrialRequest
from hfsuite.trials.waiting_actor import WaitingActor


class State(Enum):
    """Of a slot."""

    EMPTY = auto()
    BUSY = auto()  # a trial begins, runs or ends
    IDLE = auto()  # the actor of a trial that is over waits for the next one


@dataclass(eq=False)
class Slot:
    """Where one trial of a group runs.

    Args:
        group: whose slot it is.
        name: by which the actor of its trials, and workers that were started ahead of it, are found; each actor of the
            slot has another one.
        state: what is there.
        most: how many trials ran in the group at once while this one did.
        busy_s: seconds for which this trial has run.
        shared_s: the same, each divided by how many ran in the group.
        waiting: an actor that was started ahead of a trial.
    """

    group: Group
    name: str = field(default_factory=lambda: f"hfsuite-{uuid.uuid4().hex}")
    state: State = State.EMPTY
    most: int = 0
    busy_s: float = 0.0
    shared_s: float = 0.0
    waiting: WaitingActor | None = None

    def take_waiting(self) -> WaitingActor | None:
        """The actor that waits here for a trial; None if there is none, or it has died."""
        waiting, self.waiting = self.waiting, None
        return waiting if waiting is not None and waiting.lives else None

    def end_waiting(self) -> None:
        """No trial will come."""
        if (waiting := self.take_waiting()) is not None:
            ray.kill(waiting.actor)

    @property
    def share(self) -> float:
        """The part of its GPUs that the trial has had, on an average of its time: 1 if it was alone."""
        self.group.count()
        return self.shared_s / self.busy_s if self.busy_s else 1.0 / max(1, self.group.busy)


@dataclass(eq=False)
class Group:
    """GPUs that trials share, one for each of their ranks.

    Args:
        placement_group: Ray's.
        ranks: of a trial, and so GPUs.
        slots: each for a trial.
    """

    placement_group: PlacementGroup
    ranks: int
    slots: list[Slot] = field(default_factory=list)
    is_reserved: bool = False  # for a trial that shall have no neighbours
    is_left: bool = False  # its trials go on elsewhere, one after the other, and none comes
    is_gone: bool = False
    changed_at: float = field(default_factory=time.time)  # when a trial last came or went, seconds since 1970
    _counted_at: float = field(default_factory=time.monotonic)

    @classmethod
    def made(cls, request: TrialRequest, slots: int) -> Group:
        """A new one; Ray may not have found its GPUs yet.

        Args:
            request: of one of its trials: its parts of GPUs and CPUs.
            slots: how many trials it shall hold.
        """
        bundles = cls.bundles_of(request, slots)
        group = cls(placement_group(bundles, request.strategy), len(bundles))
        group.slots = [Slot(group) for _ in range(slots)]
        return group

    @staticmethod
    def bundles_of(request: TrialRequest, slots: int) -> list[dict[str, float]]:
        """What it takes for each rank: see `made`."""
        return [
            {name: 1.0 if name == "GPU" else amount * slots for name, amount in bundle.items()}
            for bundle in request.bundles
        ]

    @property
    def busy(self) -> int:
        """How many trials it holds."""
        return sum(slot.state is State.BUSY for slot in self.slots)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is there, not even an actor that waits."""
        return all(slot.state is State.EMPTY for slot in self.slots)

    def is_crowded(self, size: int) -> bool:
        """Whether it holds more actors than there shall be trials."""
        return sum(slot.state is not State.EMPTY for slot in self.slots) > size

    def count(self) -> None:
        """Notes how its trials have shared it since it was last counted."""
        now = time.monotonic()
        passed, busy, self._counted_at = now - self._counted_at, self.busy, now
        for slot in self.slots:
            if slot.state is State.BUSY:
                slot.busy_s += passed
                slot.shared_s += passed / busy
                slot.most = max(slot.most, busy)

    def put(self, slot: Slot, state: State) -> None:
        """A trial comes into a slot, or leaves it."""
        self.count()
        slot.state, self.changed_at = state, time.time()
        if state is State.BUSY:
            slot.most, slot.busy_s, slot.shared_s = 0, 0.0, 0.0
        if state is State.EMPTY:
            slot.name, slot.waiting = f"hfsuite-{uuid.uuid4().hex}", None
        if not self.busy:
            self.is_left = False
        self.count()
