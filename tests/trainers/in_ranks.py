"""Cases that all ranks of a group compute, one after another; what came out is compared with that of other groups."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray.train
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def run_cases(cases: Mapping[str, Callable[[], Any]], out: str) -> None:
    """Runs every case, in every rank; rank 0 writes what came out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on models so small, threads only wait for each other
    try:
        found = {}
        for name, case in cases.items():
            _forget()
            found[name] = case()
    finally:
        _forget()
        torch.set_num_threads(threads)
    if ray.train.get_context().get_world_rank() == 0:
        Path(out).write_text(json.dumps(found))


def found_on(workers: int, function: Callable[[dict[str, Any]], None], directory: Path, **config: Any) -> Any:
    """What a function's cases come to on so many workers; one is this process.

    Args:
        workers: how many.
        function: gets `config`, and in it the file that `run_cases` writes: `out`.
        directory: for that.
        config: what else it gets.
    """
    out = directory / f"on_{workers}_{'_'.join(map(str, config.values()))}.json"
    TorchTrainer(
        function,
        train_loop_config={**config, "out": str(out)},
        scaling_config=ScalingConfig(num_workers=workers if workers > 1 else 0),
        run_config=RunConfig(storage_path=str(directory)),
    ).fit()
    return json.loads(out.read_text())


def _forget() -> None:
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
