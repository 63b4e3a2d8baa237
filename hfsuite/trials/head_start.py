"""Workers that start before their trial does: they import while the driver is still at its own set-up. Driver.

A cold worker pays seconds for its imports, and so do the driver and the trial's actor; one after the other, they would
make the first trial of a sweep late. So the driver makes the placement groups of the first trials itself, as soon as it
knows what a trial asks for, and starts workers in them. Ray Tune gets these groups when it asks for such ones (see
`TrialRequest`), and a trial's actor takes the workers that it finds in its group.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ray.tune import PlacementGroupFactory
from ray.util import remove_placement_group

from hfsuite.trials.resources import TrialRequest

if TYPE_CHECKING:
    from hfsuite.trainers.training import HuggingFaceTrainer
    from hfsuite.trials.policy import WorkerPolicy


class HeadStart:
    """Workers of a sweep's first trials. Those that no trial has taken end with it."""

    def __init__(self) -> None:
        self._workers: list[Any] = []  # held, since an actor that nobody holds ends
        self._made: list[tuple[TrialRequest, Any]] = []

    def begin(self, trainer: HuggingFaceTrainer, policy: WorkerPolicy, groups: int) -> None:
        """Makes the groups and starts the workers; waits for neither.

        Args:
            trainer: of the trials.
            policy: of their workers.
            groups: how many trials may begin at once.
        """
        from hfsuite.trials.worker_group import start_processes

        request = TrialRequest.of(trainer.scaling_config)
        for _ in range(groups):
            group = PlacementGroupFactory.to_placement_group(request)  # a new one
            self._made.append((request, group))
            TrialRequest.made_ahead.append((request, group))
            self._workers += start_processes(
                group,
                len(request.bundles),
                request.bundles[0],
                trainer.run_config.worker_runtime_env,
                trainer.modules_of_ranks(),
                policy.memory_limit_gb,
                ahead=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends what no trial has taken."""
        for each in self._made:
            if each in TrialRequest.made_ahead:
                TrialRequest.made_ahead.remove(each)
                remove_placement_group(each[1])
        self._made, self._workers = [], []
