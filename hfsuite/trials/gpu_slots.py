"""Where trials run that share GPUs: Ray Tune's resource manager for them. Driver.

Ray puts parts of GPUs where it likes: two ranks of a trial that take half a GPU each would come onto one, which NCCL
refuses, and nobody could say which trials are neighbours. So these trials run in *groups*: placement groups with a
bundle for each rank, and a whole GPU in each bundle. A group has *slots*; a slot holds one trial at a time, its rank 0
on the group's first GPU, its rank 1 on the second. Ranks ask for their part of a GPU of the group, and the group holds
all of it: what else runs in the cluster sees that these GPUs are in use.

How many trials a group holds at once, `SharedGpus.size`, may change at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.air.execution import PlacementGroupResourceManager
from ray.air.execution.resources.placement_group import PlacementGroupAcquiredResources
from ray.util.placement_group import remove_placement_group

from hfsuite.ranks import pace
from hfsuite.trials.gpu_group import Group, Slot, State
from hfsuite.trials.resources import TrialRequest, is_alone
from hfsuite.trials.waiting_actor import where


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
        self.groups, self.size, self.ranks = list(groups), size, groups[0].ranks
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
        if slot.group.ranks != self.ranks:
            self.release([slot.group])  # no other trial has so many
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
        return self.size * sum(not group.is_gone and group.ranks == self.ranks for group in self.groups)

    def add(self, group: Group) -> None:
        """One more."""
        self.groups.append(group)
        self._ready[group.placement_group.ready()] = group

    def is_there(self, group: Group) -> bool:
        """Whether a group has its GPUs."""
        self.update_state()
        return not group.is_gone and group not in self._ready.values()

    def release(self, groups: Sequence[Group]) -> None:
        """Gives the GPUs of groups back to the cluster, and ends what runs there."""
        for group in groups:
            if not group.is_gone and ray.is_initialized():
                remove_placement_group(group.placement_group)
                for slot in group.slots:
                    self._forget(slot)
            group.is_gone = True
            self._ready = {future: each for future, each in self._ready.items() if each is not group}

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
        most = self.size if group.ranks == self.ranks else 1
        return self.is_there(group) and not group.is_reserved and not group.is_left and group.busy < most

    def _slot_for(self, request: TrialRequest) -> Slot | None:
        """Of the groups that have room, the one with the fewest trials: the first ones run alone."""
        if is_alone(request):
            return self._slot_alone()
        roomy = [group for group in self.groups if group.ranks == len(request.bundles) and self._is_open(group)]
        emptiest = min(roomy, key=lambda group: group.busy, default=None)
        if emptiest is None or any(slot.state is State.IDLE for slot in emptiest.slots):
            return None  # there an actor waits, which Ray Tune gives to the trial instead
        return _empty(emptiest)

    def _slot_alone(self) -> Slot | None:
        there = [group for group in self.groups if group.ranks == self.ranks and self.is_there(group)]
        reserved = [group for group in there if group.is_reserved]
        if not reserved and there:
            emptiest = min(there, key=lambda group: group.busy)
            emptiest.is_reserved = True  # its trials run to their ends, and no other comes
            reserved = [emptiest]
        return next((_empty(group) for group in reserved if not group.busy), None)


def _empty(group: Group) -> Slot | None:
    """A slot without an actor."""
    return next((slot for slot in group.slots if slot.state is State.EMPTY), None)
