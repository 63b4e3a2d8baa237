"""Where trials run that share GPUs: Ray Tune's resource manager for them. Driver.

Ray puts parts of GPUs where it likes: two ranks of a trial that take half a GPU each would come onto one, which NCCL
refuses, and nobody could say which trials are neighbours. So these trials run in *groups*: placement groups with a
bundle for each rank, and a whole GPU in each bundle. A group has *slots*; a slot holds one trial at a time, its rank 0
on the group's first GPU, its rank 1 on the second. Ranks ask for their part of a GPU of the group, and the group holds
all of it: what else runs in the cluster sees that these GPUs are in use.

How many trials a group holds at once, `SharedGpus.size`, may change at any time.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import ray
from ray.air.execution import PlacementGroupResourceManager
from ray.air.execution.resources.placement_group import PlacementGroupAcquiredResources
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from hfsuite.ranks import pace
from hfsuite.trials.resources import TrialRequest
from hfsuite.trials.waiting_actor import WaitingActor, where

ALONE = "alone"  # the name of the placement group that a trial asks for which shall have no neighbours


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
        bundles = [
            {name: 1.0 if name == "GPU" else amount * slots for name, amount in bundle.items()}
            for bundle in request.bundles
        ]
        group = cls(placement_group(bundles, request.strategy), len(bundles))
        group.slots = [Slot(group) for _ in range(slots)]
        return group

    @property
    def busy(self) -> int:
        """How many trials it holds."""
        return sum(slot.state is State.BUSY for slot in self.slots)

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
        self.count()


@dataclass
class AcquiredSlot(PlacementGroupAcquiredResources):
    """The slot that an actor has got."""

    slot: Slot

    def _annotate_remote_entity(self, entity: Any, bundle: Any, bundle_index: int) -> Any:
        """What starts an actor, which knows its slot by its name; or gives the one that waits there."""
        return self.slot.take_waiting() or entity.options(**where(self.placement_group), name=self.slot.name)


class SharedGpus(PlacementGroupResourceManager):
    """Gives trials that ask for GPUs their slots.

    Args:
        groups: that there are.
        size: how many trials each holds at once, to begin with.
    """

    def __init__(self, groups: Sequence[Group], size: int = 1) -> None:
        self.groups, self.size = list(groups), size
        self.actors: Any = None  # Ray's manager of the actors that run in the slots
        self._asked: Counter[TrialRequest] = Counter()
        self._ready = {group.placement_group.ready(): group for group in self.groups}  # those that are not yet

    # ---- asked by Ray's manager of actors

    def request_resources(self, resource_request: TrialRequest) -> None:
        """An actor wants a slot."""
        self._asked[resource_request] += 1

    def cancel_resource_request(self, resource_request: TrialRequest) -> None:
        """It does not any more."""
        self._asked[resource_request] -= 1
        if is_alone(resource_request) and not self._asked[resource_request]:
            for group in self.groups:
                group.is_reserved = False

    def has_resources_ready(self, resource_request: TrialRequest) -> bool:
        """Whether there is one."""
        return self._asked[resource_request] > 0 and self._slot_for(resource_request) is not None

    def acquire_resources(self, resource_request: TrialRequest) -> AcquiredSlot | None:
        """Gives it; None if there is none."""
        slot = self._slot_for(resource_request) if self._asked[resource_request] else None
        if slot is None:
            return None
        self._asked[resource_request] -= 1
        slot.group.put(slot, State.BUSY)
        return AcquiredSlot(resource_request, slot.group.placement_group, slot)

    def free_resources(self, acquired_resource: AcquiredSlot) -> None:
        """The actor has ended; its group stays."""
        slot = acquired_resource.slot
        self._forget(slot)
        slot.group.put(slot, State.EMPTY)
        if is_alone(acquired_resource.resource_request):
            slot.group.is_reserved = False

    def get_resource_futures(self) -> list[Any]:
        """Of the groups for which Ray has not found GPUs yet."""
        return list(self._ready)

    def update_state(self) -> None:
        """Looks which of them have them now."""
        if self._ready:
            found, _ = ray.wait(list(self._ready), num_returns=len(self._ready), timeout=0)
            for each in found:
                del self._ready[each]

    def clear(self) -> None:
        """No trial will come."""
        self.release(self.groups)

    # ---- asked by a sweep

    @property
    def at_once(self) -> int:
        """How many trials may run now, of all groups."""
        return self.size * sum(not group.is_gone for group in self.groups)

    def release(self, groups: Sequence[Group]) -> None:
        """Gives the GPUs of groups back to the cluster, and ends what runs there."""
        for group in groups:
            if not group.is_gone and ray.is_initialized():
                remove_placement_group(group.placement_group)
                for slot in group.slots:
                    self._forget(slot)
            group.is_gone = True
            self._ready = {future: each for future, each in self._ready.items() if each is not group}

    def release_idle(self) -> None:
        """Gives back those that hold nothing, since no trial will come to them."""
        self.release([group for group in self.groups if all(slot.state is State.EMPTY for slot in group.slots)])

    def slot_of(self, actor: Any) -> Slot | None:
        """Where a trial's actor runs."""
        for ray_actor, acquired in self.actors._live_actors_to_ray_actors_resources.values():
            if actor is not None and ray_actor._actor_id == actor._actor_id:
                found: Slot = acquired.slot
                return found
        return None

    def slot_of_tracked(self, actor: Any) -> Slot | None:
        """Likewise, of an actor as Ray's manager of actors knows it."""
        _, acquired = self.actors._live_actors_to_ray_actors_resources.get(actor, (None, None))
        return None if acquired is None else acquired.slot

    def next_of(self, idle: Sequence[Slot]) -> Slot | None:
        """Of slots whose actors are idle, the one that may have the next trial and has the fewest neighbours."""
        open_ones = [slot for slot in idle if self._is_open(slot.group)]
        return min(open_ones, key=lambda slot: slot.group.busy, default=None)

    # ---- inside

    @staticmethod
    def _forget(slot: Slot) -> None:
        """What the ranks of its trials have told stays in no cluster that outlives the sweep."""
        pace.forget(slot.name, slot.group.ranks)

    def _is_open(self, group: Group) -> bool:
        is_there = not group.is_gone and group not in self._ready.values()
        return is_there and not group.is_reserved and group.busy < self.size

    def _slot_for(self, request: TrialRequest) -> Slot | None:
        """Of the groups that have room, the one with the fewest trials: the first ones run alone."""
        self.update_state()
        if is_alone(request):
            return self._slot_alone()
        roomy = [group for group in self.groups if self._is_open(group)]
        emptiest = min(roomy, key=lambda group: group.busy, default=None)
        if emptiest is None or any(slot.state is State.IDLE for slot in emptiest.slots):
            return None  # there an actor waits, which Ray Tune gives to the trial instead
        return _empty(emptiest)

    def _slot_alone(self) -> Slot | None:
        there = [group for group in self.groups if not group.is_gone and group not in self._ready.values()]
        reserved = [group for group in there if group.is_reserved]
        if not reserved and there:
            emptiest = min(there, key=lambda group: group.busy)
            emptiest.is_reserved = True  # its trials run to their ends, and no other comes
            reserved = [emptiest]
        return next((_empty(group) for group in reserved if not group.busy), None)


def is_alone(request: TrialRequest) -> bool:
    """Whether a trial shall have no neighbours."""
    return bool(request._kwargs.get("name") == ALONE)


def alone(request: TrialRequest) -> TrialRequest:
    """What a trial asks for that shall have no neighbours."""
    made = TrialRequest([{}, *request.bundles], strategy=request.strategy, name=ALONE)
    made.owner = request.owner
    return made


def _empty(group: Group) -> Slot | None:
    """A slot without an actor."""
    return next((slot for slot in group.slots if slot.state is State.EMPTY), None)
