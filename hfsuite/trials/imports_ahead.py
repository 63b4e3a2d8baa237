"""Processes that import what actors of trials need, before those are wanted: Ray takes such a process for an actor.

A trial that comes to share a GPU needs an actor, which imports for ten seconds and more; meanwhile the GPU would do
less than it can. A task imports instead, and ends when its process is wanted. It must not end before: Ray ends an idle
process after a second where there are more of them than CPUs.

One of the files that touch Ray's internals.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.experimental import internal_kv
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from hfsuite.later import Later
from hfsuite.trials.gpu_slots import Group

NAMESPACE = b"hfsuite"
LOOKS_EVERY_S = 0.1


class ImportsAhead:
    """For the trials that may come to share GPUs beside the first ones, which have actors of their own. Driver."""

    def __init__(self) -> None:
        self._tasks: list[Any] = []
        self._groups: list[Group] = []
        self._given_up = 0  # in each group

    @property
    def have_begun(self) -> bool:
        """Whether they have."""
        return bool(self._groups)

    def begin(self, given: Later, groups: Sequence[Group]) -> None:
        """Starts the imports, beside one another; waits for none.

        Args:
            given: the trainer of the trials, pickled: with it come the imports.
            groups: where the trials may run.
        """
        self._groups = list(groups)
        self._tell()
        for group in groups:
            where = PlacementGroupSchedulingStrategy(group.placement_group, 0, True)
            task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=where)(_import_and_wait)
            self._tasks += [task.remote(given, _key(group), number) for number in range(1, len(group.slots))]

    def give_up(self, size: int) -> None:
        """So many trials shall share each GPU: as many processes are wanted now.

        Args:
            size: trials of a group.
        """
        if size - 1 > self._given_up:
            self._given_up = size - 1
            self._tell()

    def end(self) -> None:
        """No more are wanted."""
        if ray.is_initialized():
            for task in self._tasks:
                ray.cancel(task, force=True)
            for group in self._groups:
                internal_kv._internal_kv_del(_key(group), namespace=NAMESPACE)
        self._tasks, self._groups = [], []

    def _tell(self) -> None:
        for group in self._groups:
            internal_kv._internal_kv_put(_key(group), str(self._given_up).encode(), True, namespace=NAMESPACE)


def _import_and_wait(given: Later, key: bytes, number: int) -> None:
    """The task: imports, and ends when that many processes are wanted."""
    given.value  # noqa: B018  it is unpickled when it is asked for
    while int(internal_kv._internal_kv_get(key, namespace=NAMESPACE) or 0) < number:
        time.sleep(LOOKS_EVERY_S)


def _key(group: Group) -> bytes:
    return f"imports ahead of {group.placement_group.id.hex()}".encode()
