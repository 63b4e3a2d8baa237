"""The end of a trial's process groups, which the next trial does not wait for. In a process of its own."""

from __future__ import annotations

import threading
from typing import Any
from unittest import mock

import ray


@ray.remote(num_cpus=0, max_calls=1)
def after_each_trial(trials: int, *, fault: str = "") -> Any:
    """Whether there is a group, how many have ended, and what the worker says; while none may end, and at last."""
    from torch import distributed

    from hfsuite.ranks import process_groups
    from hfsuite.ranks.clean_room import CleanRoom

    room, may_end = CleanRoom(1.5), threading.Event()
    ended: list[str] = []

    def shutdown(group: distributed.ProcessGroup) -> None:
        may_end.wait()
        if fault:
            raise RuntimeError(fault)
        ended.append(group.group_name)

    def seen() -> tuple[bool, int, list[str]]:
        reasons = room.tidy()
        return distributed.is_initialized(), len(ended), reasons

    said = []
    patched = mock.patch.object(distributed.ProcessGroup, "shutdown", shutdown)
    with patched, mock.patch.object(process_groups, "END_WITHIN_S", 0.1):
        for _ in range(trials):
            distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
            distributed.new_group([0])
            said.append(seen())
        may_end.set()
        process_groups.END_WITHIN_S = 60.0
        said.append(seen())
    return said


def test_a_trial_s_process_groups_are_forgotten_at_once_and_end_beside_the_next_trial() -> None:
    assert ray.get(after_each_trial.remote(1)) == [(False, 0, []), (False, 2, [])]


def test_groups_that_do_not_end_while_a_whole_trial_runs_cost_the_worker_its_life() -> None:
    during, one_later, _ = ray.get(after_each_trial.remote(2))
    assert during == (False, 0, [])
    assert one_later == (False, 0, ["a process group of the trial before has not ended"])


def test_what_goes_wrong_at_the_end_is_a_reason_too() -> None:
    during, later = ray.get(after_each_trial.remote(1, fault="unhandled NCCL error"))
    assert during == (False, 0, [])
    assert later == (False, 0, ["a process group could not be ended: unhandled NCCL error"])
