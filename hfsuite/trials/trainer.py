"""What a trial needs of the trainer that it runs. Both trainers have it: see `hfsuite.trainers.training`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self

from ray.train import Checkpoint, RunConfig, ScalingConfig

from hfsuite.later import Later
from hfsuite.ranks.conditions import Conditions


class Trainer(Protocol):
    """One training: how it is configured, what its ranks run, and how a trial's settings are merged over it."""

    config_argument: ClassVar[str]
    run_config: RunConfig
    scaling_config: ScalingConfig
    datasets: Mapping[str, Any]
    backend_config: Any
    train_run_context: Any
    start_from: Checkpoint | None
    conditions: Conditions
    examination: Later | None

    @property
    def is_streamed(self) -> bool:
        """Whether tasks of Ray Data must run while the workers read."""

    def with_settings(self, settings: Mapping[str, Any], *, run_config: RunConfig | None = None) -> Self:
        """A copy with a trial's settings merged over its own."""

    def prepare_datasets(self) -> None:
        """Fits the preprocessor and applies it, once. Driver."""

    def for_ranks(self) -> Self:
        """A copy whose function is unpickled by the ranks alone."""

    def modules_of_ranks(self) -> tuple[str, ...]:
        """What a rank imports before it trains."""

    def _create_default_callbacks(self) -> list[Any]:
        """Ray Train's own callbacks, and the trainer's."""

    def _get_train_func(self) -> Callable[[], Any]:
        """What a rank runs."""
