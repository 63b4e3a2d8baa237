"""Loops with Accelerate over loaders of many kinds, each on all ranks: which rows a step has, and what is learned."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import ray.train
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, gather_object, set_seed
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SubsetRandomSampler

from hfsuite.ranks import dealing
from tests.trainers.in_ranks import run_cases

GLOBAL_BATCH = 4


class Numbers(IterableDataset[Any]):
    """A stream; one with a length if that is asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        yield from (torch.tensor(float(each)) for each in range(self.count))


class CountedNumbers(Numbers):
    def __len__(self) -> int:
        return self.count


def places(count: int) -> Any:
    return [torch.tensor(float(each)) for each in range(count)]


def all_loops(config: dict[str, Any]) -> None:
    cases = {name: partial(looped, make_loader, **options) for name, (make_loader, options) in LOOPS.items()}
    run_cases({**cases, "gathered": gathered, "broken off": broken_off, "draws": draws}, config["out"])


def looped(make_loader: Callable[[int], Any], accumulation: int = 1, **how: Any) -> dict[str, Any]:
    """Two epochs; a weight follows the mean of the rows of each step."""
    world = ray.train.get_context().get_world_size()
    with dealing.in_force(weighs=True):
        accelerator = Accelerator(
            cpu=True, gradient_accumulation_steps=accumulation, dataloader_config=DataLoaderConfiguration(**how)
        )
        set_seed(3)
        model = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        loader = make_loader(GLOBAL_BATCH // accumulation // world)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        steps: list[list[float]] = [[]]
        for _ in range(2):
            for batch in loader:
                with accelerator.accumulate(model):
                    steps[-1] += accelerator.gather_for_metrics(batch).tolist()
                    accelerator.backward(((model(batch[:, None])[:, 0] - batch) ** 2).mean())
                    optimizer.step()
                    optimizer.zero_grad()
                if accelerator.sync_gradients:
                    steps.append([])
    return {
        "steps": [sorted(each) for each in steps if each],
        "weight": accelerator.unwrap_model(model).weight.item(),
        "not dealt": dealing.why_not_dealt(accelerator),
    }


def gathered() -> dict[str, Any]:
    """What is gathered of a last batch of seven rows in batches of four that is not rows; and of its rows."""
    with dealing.in_force(weighs=True):
        accelerator = Accelerator(cpu=True)
        loader = accelerator.prepare(DataLoader(places(7), 8 // accelerator.num_processes))
        if accelerator.is_main_process:  # in turn: the others are not asked
            list(accelerator.prepare(DataLoader(places(7), 4)))
        accelerator.wait_for_everyone()
        for batch in loader:
            rows = accelerator.gather_for_metrics(batch)
            other = accelerator.gather(torch.arange(3.0))
            objects = accelerator.gather_for_metrics([f"row {each:.0f}" for each in batch], use_gather_object=True)
    return {"rows": rows.tolist(), "other": other.tolist(), "objects": objects}


def broken_off() -> list[list[float]]:
    """The rows of three epochs of a loop that takes two batches of each."""
    with dealing.in_force(weighs=True):
        accelerator = Accelerator(cpu=True)
        set_seed(3)
        loader = accelerator.prepare(DataLoader(places(16), GLOBAL_BATCH // accelerator.num_processes, shuffle=True))
        epochs = []
        for _ in range(3):
            rows: list[float] = []
            for number, batch in enumerate(loader):
                if number == 2:
                    break
                rows += accelerator.gather(tensor=batch).tolist()
            epochs.append(sorted(rows))
    return epochs


def draws() -> list[list[float]]:
    """What ranks draw when their loop has begun."""
    with dealing.in_force(weighs=True):
        accelerator = Accelerator(cpu=True)
        set_seed(3)
        next(iter(accelerator.prepare(DataLoader(places(8), 4))))
        return gather_object([[torch.rand(()).item(), np.random.rand(), random.random()]])


LOOPS: dict[str, tuple[Callable[[int], Any], dict[str, Any]]] = {
    "in turn, accumulated": (lambda size: DataLoader(places(12), size), {"accumulation": 2}),
    "a subset": (
        lambda size: DataLoader(
            places(100), size, sampler=SubsetRandomSampler(range(32), generator=torch.Generator().manual_seed(0))
        ),
        {},
    ),
    "a usual batch sampler": (
        lambda size: DataLoader(places(10), batch_sampler=BatchSampler(RandomSampler(range(10)), size, False)), {},
    ),
    "with replacement": (
        lambda size: DataLoader(places(10), size, sampler=RandomSampler(range(10), replacement=True, num_samples=14)),
        {},
    ),
    "streamed": (lambda size: DataLoader(CountedNumbers(9), size), {"dispatch_batches": False}),
    "streamed, dropped": (lambda size: DataLoader(Numbers(9), size, drop_last=True), {"dispatch_batches": False}),
    "streamed and counted, dropped": (
        lambda size: DataLoader(CountedNumbers(9), size, drop_last=True), {"dispatch_batches": False},
    ),
    "split": (lambda size: DataLoader(places(12), GLOBAL_BATCH), {"split_batches": True}),
    "uneven": (lambda size: DataLoader(places(12), size), {"even_batches": False}),
}  # fmt: skip
