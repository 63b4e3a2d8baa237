"""Where trials run that share GPUs. CPUs stand for GPUs here: what is shared is a placement group."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import ray
from ray.experimental import internal_kv
from ray.train import ScalingConfig

from hfsuite.ranks import pace
from hfsuite.trials.gpu_group import Group, State
from hfsuite.trials.gpu_slots import AcquiredSlot, SharedGpus
from hfsuite.trials.resources import TrialRequest, alone, grown, is_alone, is_grown

REQUEST = TrialRequest.of(ScalingConfig(num_workers=1), owner="test")


@pytest.fixture
def shared() -> Iterator[SharedGpus]:
    """Two groups of two slots, for which the session has room."""
    found = SharedGpus([Group.made(REQUEST, 2) for _ in range(2)])
    ray.get(found.get_resource_futures())
    yield found
    found.clear()


def taken(shared: SharedGpus, request: TrialRequest = REQUEST) -> AcquiredSlot | None:
    """What an actor gets that asks."""
    shared.request_resources(request)
    if not shared.has_resources_ready(request):
        shared.cancel_resource_request(request)
        return None
    return shared.acquire_resources(request)


def test_first_one_on_each_then_as_many_as_shall_be(shared: SharedGpus) -> None:
    first, second = taken(shared), taken(shared)
    assert first is not None
    assert second is not None
    assert first.slot.group is not second.slot.group
    assert taken(shared) is None
    shared.size = 2
    assert taken(shared) is not None
    assert taken(shared) is not None
    assert taken(shared) is None
    assert [group.busy for group in shared.groups] == [2, 2]
    shared.size = 1
    shared.free_resources(first)
    assert taken(shared) is None, "one is there already"


def test_nothing_is_given_that_was_not_asked_for(shared: SharedGpus) -> None:
    assert not shared.has_resources_ready(REQUEST)
    assert shared.acquire_resources(REQUEST) is None


def test_who_shall_be_alone_waits_until_the_others_are_over_and_keeps_them_out(shared: SharedGpus) -> None:
    shared.size = 2
    running = [taken(shared) for _ in range(3)]
    lone = alone(REQUEST)
    assert is_alone(lone)
    assert lone != REQUEST
    shared.request_resources(lone)
    assert not shared.has_resources_ready(lone)
    emptiest = next(group for group in shared.groups if group.busy == 1)
    assert emptiest.is_reserved
    assert taken(shared) is None, "the other group is full, and this one is reserved"
    (last,) = [each for each in running if each is not None and each.slot.group is emptiest]
    shared.free_resources(last)
    assert shared.has_resources_ready(lone)
    acquired = shared.acquire_resources(lone)
    assert acquired is not None
    assert taken(shared) is None
    shared.free_resources(acquired)
    assert taken(shared) is not None


def test_who_shall_be_alone_and_does_not_want_to_any_more_reserves_nothing(shared: SharedGpus) -> None:
    lone = alone(REQUEST)
    shared.request_resources(lone)
    assert shared.has_resources_ready(lone)
    shared.cancel_resource_request(lone)
    assert not any(group.is_reserved for group in shared.groups)


def test_an_actor_that_waits_comes_before_a_new_one(shared: SharedGpus) -> None:
    first = taken(shared)
    assert first is not None
    first.slot.group.put(first.slot, State.IDLE)
    other = taken(shared)
    assert other is None or other.slot.group is not first.slot.group
    assert shared.next_of([first.slot]) is first.slot
    shared.size = 0
    assert shared.next_of([first.slot]) is None


def test_a_share_is_what_a_trial_has_had(shared: SharedGpus) -> None:
    shared.size = 2
    shared.release(shared.groups[1:])
    first = taken(shared)
    assert first is not None
    time.sleep(0.2)
    assert first.slot.share == pytest.approx(1)
    second = taken(shared)
    assert second is not None
    time.sleep(0.2)
    assert second.slot.share == pytest.approx(0.5)
    assert 0.6 < first.slot.share < 0.9
    assert first.slot.most == second.slot.most == 2


def test_a_slot_has_another_name_for_each_actor(shared: SharedGpus) -> None:
    first = taken(shared)
    assert first is not None
    before = first.slot.name
    key = f"{before}/0".encode()
    internal_kv._internal_kv_put(key, b"told", namespace=pace.NAMESPACE)
    shared.free_resources(first)
    assert first.slot.name != before
    assert internal_kv._internal_kv_get(f"{before}/0".encode(), namespace=pace.NAMESPACE) is None, (
        "what it told is gone"
    )


def test_a_trial_that_leaves_its_neighbours_does_not_come_back(shared: SharedGpus) -> None:
    shared.size = 2
    running = [each for each in (taken(shared) for _ in range(3)) if each is not None]
    crowded = next(group for group in shared.groups if group.busy == 2)
    crowded.is_left = True
    leaving = next(each.slot for each in running if each.slot.group is crowded)
    crowded.put(leaving, State.IDLE)
    assert shared.next_of([leaving]) is None
    place = taken(shared)
    assert place is not None
    assert place.slot.group is not crowded
    assert taken(shared) is None
    for slot in crowded.slots:
        crowded.put(slot, State.IDLE)
    assert not crowded.is_left, "when all have left, others may come"


def test_a_trial_that_grows_gets_the_group_that_was_made_for_it(shared: SharedGpus) -> None:
    shared.release(shared.groups[:1])
    larger = grown(REQUEST, 2)
    assert (len(larger.bundles), larger.owner, is_grown(larger), is_grown(REQUEST)) == (2, "test", True, False)
    assert taken(shared, larger) is None
    group = Group.made(larger, 1)
    shared.add(group)
    ray.get(shared.get_resource_futures())
    assert shared.at_once == 1, "of those that have not grown"
    acquired = taken(shared, larger)
    assert acquired is not None
    assert acquired.slot.group is group
    assert taken(shared, larger) is None
    other = taken(shared)
    assert other is not None
    assert other.slot.group is not group
    shared.free_resources(acquired)
    assert group.is_gone, "no other has so many workers"


def test_groups_that_hold_nothing_are_given_back(shared: SharedGpus) -> None:
    first = taken(shared)
    assert first is not None
    shared.release([group for group in shared.groups if group.is_empty])
    assert [group.is_gone for group in shared.groups].count(True) == 1
    assert not first.slot.group.is_gone
    assert taken(shared) is None
    states = [each["state"] for each in ray.util.placement_group_table().values()]
    assert states.count("CREATED") >= 1
