"""The training function of a rank of AccelerateTrainer. In every rank."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray.train
import ray.train.torch

from hfsuite.ranks import accelerate_environment
from hfsuite.ranks.accelerate_environment import AccelerateConfig


@dataclass(frozen=True)
class AccelerateLoop:
    """The training function of a rank: the environment of `accelerate launch`, then the user's loop.

    Args:
        train_loop_per_worker: the user's loop.
        config: accelerate's configuration, as the driver read it.
        cpus: CPUs of each worker.
        is_local: whether this is the driver's own process.
    """

    train_loop_per_worker: Callable[..., Any]
    config: AccelerateConfig
    cpus: float
    is_local: bool

    def __call__(self, config: dict[str, Any]) -> Any:
        """Trains. Runs in every rank, in the thread that Ray Train makes for it."""
        from hfsuite.ranks import dealing, facts  # they import torch, which the driver need not wait for

        context = ray.train.get_context()
        seeds: dict[str, Any] = {name: config[name] for name in ("seed", "data_seed") if name in config}
        with accelerate_environment.scratch_directory() as directory:
            accelerate_environment.apply(
                self.config,
                world_size=context.get_world_size(),
                rank=context.get_world_rank(),
                use_cpu=ray.train.torch.get_device().type == "cpu",
                cpus=self.cpus,
                directory=directory,
            )
            parameters = inspect.signature(self.train_loop_per_worker).parameters
            with facts.of_prepared(seeds, self.is_local), dealing.in_force(weighs=True):
                return self.train_loop_per_worker(config) if parameters else self.train_loop_per_worker()
