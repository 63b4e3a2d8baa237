"""The workers of a trial's actor: they outlive a trial, and serve the next if they are sound. Lives in that actor."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from hfsuite.policy import WorkerPolicy
from hfsuite.ranks.surroundings import end_processes_of, name_of_scratch
from hfsuite.trials import worker_actors

TIDY_WITHIN_S = 10.0
END_CHILDREN_WITHIN_S = 1.0

Request = tuple[int, dict[str, float], dict[str, Any]]


class Workers:
    """Starts workers, has them run trials, and keeps or replaces them after each.

    Args:
        policy: how long they live.
        preload: modules that a worker imports when it starts, which is most of what its start costs.
        owner: whose trials they run, see `name_of_scratch`.
    """

    def __init__(self, policy: WorkerPolicy, preload: Sequence[str], owner: str) -> None:
        self.policy, self.preload = policy, preload
        self.scratch = name_of_scratch(owner)
        self.trials = 0  # that these workers have served
        self.lost = ""  # why the workers before these had to go
        self.name = _new_name()  # of what they share
        self.are_tidying = False  # after a trial
        self._actors: list[Any] = []
        self._request: Request = (0, {}, {})
        self._ending: threading.Thread | None = None

    def launch(self, count: int, resources: Mapping[str, float], runtime_env: Mapping[str, Any]) -> None:
        """Starts worker processes and does not wait for them; does nothing if such workers are there.

        Args:
            count: number of workers.
            resources: of each, and of the bundle of the trial's placement group that it takes.
            runtime_env: of each.
        """
        request: Request = (count, dict(resources), dict(runtime_env))
        if self._actors and request == self._request:
            return
        self.discard()
        group, is_first = ray.util.get_current_placement_group(), not self._request[0]
        self._request, self.trials = request, 0
        self._actors = worker_actors.started_ahead(group, count) if is_first else []
        self._actors = self._actors or worker_actors.start_processes(
            group, *request, self.preload, self.policy.memory_limit_gb
        )

    def take(self, count: int, resources: Mapping[str, float], runtime_env: Mapping[str, Any]) -> list[Any]:
        """The workers for a trial, once they are ready: the living ones, or new ones.

        Raises:
            RayActorError: a new worker died while it started.
        """
        self.launch(count, resources, runtime_env)
        try:
            return worker_actors.ranked(self._actors, self._request[1])
        except RayActorError:
            if not self.trials:
                raise
            self.replace("a worker died between two trials")
            return worker_actors.ranked(self._actors, self._request[1])

    def give_back(self) -> None:
        """A trial is over. Its workers live on if each says that it is as it was before."""
        if not self._actors:
            return  # they had to end before
        self.trials += 1
        if self.trials >= self.policy.trials:
            self.discard()
            return
        self.are_tidying = True
        answers = [actor.leave_trial.remote() for actor in self._actors]
        answered, _ = ray.wait(answers, num_returns=len(answers), timeout=TIDY_WITHIN_S)
        self.are_tidying = False
        reasons = []
        for rank, answer in enumerate(answers):
            try:
                faults = ray.get(answer) if answer in answered else [f"no answer within {TIDY_WITHIN_S:g} s"]
            except RayError as error:
                faults = [str(error).splitlines()[0]]
            reasons += [f"rank {rank}: {fault}" for fault in faults]
        if reasons:
            self.replace("; ".join(reasons))

    def replace(self, why: str) -> None:
        """Ends the workers, and starts others like them in the background."""
        self.discard(why)
        self.launch(*self._request)

    def discard(self, why: str = "") -> None:
        """Ends the workers, and the processes that their trials left. In the background: others can be started."""
        if not self._actors:
            return
        self._ending = threading.Thread(target=_end, args=(self._actors,), name="end-workers", daemon=True)
        self._ending.start()
        self._actors, self.trials, self.lost, self.name = [], 0, why, _new_name()

    def close(self) -> None:
        """No trial will come: ends the workers, and returns when they have ended."""
        self.discard()
        if self._ending is not None:
            self._ending.join()


def _end(workers: Sequence[Any]) -> None:
    """Workers end what they have started, also for a dead one of their node; who does not answer is killed anyway."""
    names = [worker_actors.name_of(worker) for worker in workers]
    goodbyes = [worker.end_processes.remote(names) for worker in workers]
    ray.wait(goodbyes, num_returns=len(goodbyes), timeout=END_CHILDREN_WITHIN_S)
    for worker in workers:
        ray.kill(worker)
    end_processes_of(names)


def _new_name() -> str:
    return f"hfsuite-{uuid.uuid4().hex}"
