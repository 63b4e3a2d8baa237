"""Workers that start before their trial does: they import while driver and trial's actor do so too. Driver.

A cold worker pays seconds for its imports, and so do the driver and the trial's actor; one after the other, they would
make the first trial of a sweep late. So the driver makes the placement groups of the first trials itself, as soon as it
knows what a trial asks for, and starts workers in them. Ray Tune gets these groups when it asks for such ones (see
`TrialRequest`), and a trial's actor takes the workers that it finds in its group. A trial that fails costs its actor
and its group; into the next group that Tune asks for, workers are started at once too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import ray
from ray.tune import Callback, PlacementGroupFactory
from ray.util import remove_placement_group

from hfsuite.trials.gpu_group import Slot, State
from hfsuite.trials.gpu_slots import SharedGpus
from hfsuite.trials.resources import TrialRequest
from hfsuite.trials.waiting_actor import WaitingActor
from hfsuite.trials.worker_actors import name_ahead, start_processes

if TYPE_CHECKING:
    from hfsuite.trials.trainable import TrainingTrial


class HeadStart(Callback):
    """Workers of a sweep's first trials; as a callback of Ray Tune's, it ends those that no first trial has taken."""

    def __init__(self) -> None:
        self._workers: list[Any] = []  # held, since an actor that nobody holds ends
        self._made: list[tuple[TrialRequest, Any]] = []
        self._trial: type[TrainingTrial] | None = None
        self._shared: SharedGpus | None = None
        self._in_slots: dict[str, list[Any]] = {}  # by the slot's name
        self._coming_up: dict[str, list[Any]] = {}  # likewise: what is there when they are

    def begin(self, trial: type[TrainingTrial], groups: int) -> None:
        """Makes the groups and starts the workers; waits for neither.

        Args:
            trial: whose workers they are.
            groups: how many trials may begin at once.
        """
        self._trial = trial
        TrialRequest.given[trial.owner] = []
        request = trial.default_resource_request({})
        for _ in range(groups):
            group = PlacementGroupFactory.to_placement_group(request)  # a new one
            self._made.append((request, group))
            TrialRequest.made_ahead.append((request, group))
            self._workers += self._start_workers(request, group, name_ahead(group))

    def begin_in_slots(self, trial: type[TrainingTrial], shared: SharedGpus) -> None:
        """Starts workers, and actors, for the trials that may come to share GPUs; those that begin alone first.

        Args:
            trial: whose workers they are.
            shared: the GPUs.
        """
        self._trial, self._shared = trial, shared
        TrialRequest.given[trial.owner] = []
        request = trial.default_resource_request({})
        for slots in zip_longest(*(group.slots for group in shared.groups)):
            for slot in filter(None, slots):
                self.begin_in(slot, request)

    def begin_in(self, slot: Slot, request: TrialRequest) -> None:
        """Starts workers and an actor for a trial that may come.

        Args:
            slot: where.
            request: of the trial.
        """
        assert self._trial is not None
        self._in_slots[slot.name] = self._start_workers(request, slot.group.placement_group, slot.name)
        slot.waiting = WaitingActor(self._trial, slot.group.placement_group, slot.name)

    def is_ready_in(self, slot: Slot) -> bool:
        """Whether the workers that were started there have come up, with all that they import."""
        waiting, workers = self._coming_up.get(slot.name), self._in_slots[slot.name]
        if waiting is None and slot.waiting is not None:
            waiting = [slot.waiting.ready, *(each.__ray_ready__.remote() for each in workers)]
            self._coming_up[slot.name] = waiting
        return waiting is not None and not ray.wait(waiting, num_returns=len(waiting), timeout=0)[1]

    def end_in(self, slots: Sequence[Slot]) -> None:
        """No trial will come to these slots: ends what waits there."""
        for slot in slots:
            if slot.state is State.EMPTY:
                for worker in self._in_slots.pop(slot.name, []):
                    ray.kill(worker)
                slot.end_waiting()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end_waiting()
        if self._trial is not None:
            TrialRequest.for_the_next.pop(self._trial.owner, None)
            given = TrialRequest.given.pop(self._trial.owner)
            if self._shared is not None:
                self._shared.clear()
            self._workers, self._trial, self._in_slots, self._shared = [], None, {}, None
            if error is not None and ray.is_initialized():
                for group in given:  # a notebook keeps the exception of a second Ctrl-C, and so Tune's loop with them
                    remove_placement_group(group)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Trials run: a group that is not taken by now would only keep others out, where the search limits itself."""
        self._end_waiting()

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """A trial has failed: the next one in its place shall not wait for its actor before its workers start."""
        if self._trial is not None:
            TrialRequest.for_the_next[self._trial.owner] = self._start_for_the_next

    def _end_waiting(self) -> None:
        for each in self._made:
            if each in TrialRequest.made_ahead:
                TrialRequest.made_ahead.remove(each)
                remove_placement_group(each[1])
        self._made = []

    def _start_for_the_next(self, request: TrialRequest, group: Any) -> None:
        self._workers += self._start_workers(request, group, name_ahead(group))

    def _start_workers(self, request: TrialRequest, group: Any, names: str) -> list[Any]:
        assert self._trial is not None
        return start_processes(
            group,
            len(request.bundles),
            request.bundles[0],
            self._trial.worker_runtime_env,
            self._trial.imports,
            self._trial.policy.memory_limit_gb,
            ahead_of=names,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune saves its callbacks with the sweep; processes do not travel."""
        return HeadStart().__dict__
