"""The end of a trial's process groups, which the next trial does not wait for. In a process of its own."""

from __future__ import annotations

import threading
from typing import Any
from unittest import mock

import ray


@ray.remote(num_cpus=0, max_calls=1)
def groups_that_take_long_to_end(trials: int) -> Any:
    """What a worker says after each trial while groups do not end, and how many did once they could."""
    from torch import distributed

    from hfsuite.trials.clean_room import CleanRoom
    from hfsuite.trials.process_groups import end_process_groups, ending

    room, may_end, ended = CleanRoom(1.5), threading.Event(), []

    def shutdown(group: distributed.ProcessGroup) -> None:
        may_end.wait()
        ended.append(group.group_name)

    said = []
    with mock.patch.object(distributed.ProcessGroup, "shutdown", shutdown):
        for _ in range(trials):
            distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
            distributed.new_group([0])
            end_process_groups()
            said.append((distributed.is_initialized(), list(ended), room.tidy()))
        still_ending = ending()
        may_end.set()
        for thread in still_ending:
            thread.join()
    return said, len(ended), room.tidy()


def test_another_process_group_can_be_made_while_the_last_one_ends() -> None:
    said, ended, later = ray.get(groups_that_take_long_to_end.remote(1))
    assert said == [(False, [], [])]
    assert ended == 2, "both groups of the trial end"
    assert later == []


def test_groups_that_have_not_ended_when_the_next_trial_has_cost_the_worker_its_life() -> None:
    said, ended, later = ray.get(groups_that_take_long_to_end.remote(2))
    assert said == [
        (False, [], []),
        (False, [], ['the thread "the end of a trial\'s process groups" is still running']),
    ]
    assert ended == 4
    assert later == []
