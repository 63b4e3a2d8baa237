"""How the rows of an epoch are dealt to the ranks: each row once, in the same global batches on any number of workers.

Accelerate fills the last batches of an epoch up with rows from its beginning, and has each rank draw a sampler's order
from its global generator, which dropout has moved in each rank differently. Here

- all ranks know the same order, which follows from a seed and the number of the epoch alone;
- a global batch is `batch size x accumulation x ranks` rows of it, one after another;
- the last one of an epoch holds what is left, divided as evenly as can be. A rank for which no row is left gets one
  that counts nothing, since it must take part in the computation (`drop_last` drops the global batch instead);
- what ranks gather of uneven batches (`Accelerator.gather`, `.gather_for_metrics`) is each row's once.

`Accelerator.backward` weighs the batches of a last, smaller step by their rows. Runs in every rank.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import accelerate.data_loader
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard, SeedableRandomSampler, SkipBatchSampler
from accelerate.utils import broadcast, slice_tensors
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler
from transformers.trainer_pt_utils import LengthGroupedSampler, find_batch_size

from hfsuite.ranks.gathering import gathered
from hfsuite.ranks.shares import DealtBatches, DealtRows, Order, SizedDealtRows, shares
from hfsuite.seeds import Seeds

WINDOW = "_hfsuite_window"  # of an Accelerator: batches of an optimizer step, where its own configuration knows nothing
EVALUATION = 0  # instead: there are no steps, and no row is dropped
NOT_DEALT = "_hfsuite_not_dealt"  # of an Accelerator of several ranks: why loaders have been left as they are


class DealtLoader(DataLoaderShard):
    """A loader that knows which batch of the epoch is at hand. It stands for Accelerate's own meanwhile."""

    place = 0
    accelerator: Accelerator | None = None  # whose ranks get random numbers of their own when the loader is first used
    _begun: int | None = None  # the epoch that was begun last, unless another was asked for since

    def begin(self) -> None:
        """An epoch begins. Accelerate shall cut nothing off what ranks gather: there are no rows too many."""
        super().begin()
        self.remainder = -1

    def set_epoch(self, epoch: int) -> None:
        """Which epoch is dealt next."""
        super().set_epoch(epoch)
        self._begun = None

    def __iter__(self) -> Iterator[Any]:
        """The batches, on the rank's device."""
        if self.accelerator is not None:
            _separate_once(self.accelerator)
        if self._begun == self.iteration:  # a loop that did not go to the epoch's end, which Accelerate counts
            self.iteration += 1
        first = self.batch_sampler.skip_batches if isinstance(self.batch_sampler, SkipBatchSampler) else 0
        for place, batch in enumerate(super().__iter__(), start=first + self.skip_batches):
            self.place, self._begun = place, self.iteration
            yield batch


class DealtDispatcher(DataLoaderDispatcher):
    """A loader of rank 0's, whose last round has each row once; likewise."""

    def __iter__(self) -> Iterator[Any]:
        """The batches, on the rank's device."""
        for batch in super().__iter__():
            counts = _shares_of_dispatched(self) if self.end_of_dataloader else None
            yield batch if counts is None else slice_tensors(batch, slice(0, max(counts[self.state.process_index], 1)))


def shares_at_hand(accelerator: Accelerator) -> list[int] | None:
    """The rows of each rank in the batch at hand, if it is a last one that is not whole; otherwise None."""
    loader = accelerator.gradient_state.active_dataloader
    if loader is None or not loader.end_of_dataloader:
        return None
    if isinstance(loader, DataLoaderDispatcher):
        return _shares_of_dispatched(loader)
    if (dealt := _dealt(loader)) is not None:
        counts = dealt.shares(loader.place)
        return counts if sum(counts) < dealt.round else None
    if isinstance(loader.dataset, DealtRows):
        rows = loader.dataset
        is_whole = rows.last_round == rows.batch_size * rows.num_processes
        return None if is_whole else shares(rows.last_round, rows.num_processes)
    return None


def dealt_rows(accelerator: Accelerator) -> int | None:
    """How many rows this rank has in the batch at hand; 0 where one only stands in, None where rows are not dealt."""
    loader: Any = accelerator.gradient_state.active_dataloader
    rank = int(accelerator.process_index)
    if loader is None:
        return None
    if (dealt := _dealt(loader)) is not None:
        return dealt.shares(loader.place)[rank]
    if (counts := shares_at_hand(accelerator)) is not None:
        return counts[rank]
    rows = loader.dataset
    return rows.batch_size if isinstance(rows, DealtRows) else None


def rows_at_hand(accelerator: Accelerator, batch: Any) -> int:
    """The same, where rows are not dealt by the first dimension of its tensors, or by what a batch should have."""
    rows = dealt_rows(accelerator)
    if rows is None:
        loader = accelerator.gradient_state.active_dataloader
        rows = find_batch_size(batch) or getattr(loader, "batch_size", None) or 1
    return rows


@contextmanager
def prepared_for(accelerator: Accelerator, window: int) -> Iterator[None]:
    """A loader that is prepared meanwhile deals for optimizer steps of so many batches, or for EVALUATION."""
    before = getattr(accelerator, WINDOW, None)
    setattr(accelerator, WINDOW, window)
    try:
        yield
    finally:
        setattr(accelerator, WINDOW, before)


@contextmanager
def in_force(*, weighs: bool) -> Iterator[None]:
    """Has Accelerate deal rows as said above.

    Args:
        weighs: whether `Accelerator.backward` weighs a step's batches by their rows, and each rank gets random numbers
            of its own when a loop has prepared what it trains. Otherwise the caller sees to both.
    """
    patches = {"prepare_data_loader": _prepare, "gather": _gather, "gather_for_metrics": _gather}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(accelerate.data_loader, "DataLoaderShard", DealtLoader))
        stack.enter_context(mock.patch.object(accelerate.data_loader, "DataLoaderDispatcher", DealtDispatcher))
        for name, replacement in {
            **patches,
            **({"backward": _backward, "prepare_data_loader": _prepare_in_loop} if weighs else {}),
        }.items():
            stack.enter_context(mock.patch.object(Accelerator, name, _around(getattr(Accelerator, name), replacement)))
        yield


def why_not_dealt(accelerator: Accelerator, *used: Any) -> list[str]:
    """Why loaders are not dealt to the ranks as said above; empty if all are.

    Args:
        accelerator: that has prepared some.
        used: loaders that are iterated, prepared or not.
    """
    is_alone = accelerator.num_processes == 1
    bare = [each for each in used if each is not None and not getattr(each, "_is_accelerate_prepared", False)]
    whole = (
        ["a loader was not prepared by Accelerate: all of its rows are every worker's"] if bare and not is_alone else []
    )
    return [*getattr(accelerator, NOT_DEALT, ()), *whole]


def separate_streams(rank: int) -> None:
    """Gives a rank random numbers of its own, which follow from what it was seeded with; rank 0 keeps its own."""
    if rank > 0:
        seeds = Seeds(Seeds(torch.initial_seed() % 2**63).stream(f"rank {rank}"))
        torch.manual_seed(seeds.torch)
        np.random.seed(seeds.numpy)
        random.seed(seeds.python)


# ---- inside


def _shares_of_dispatched(loader: DataLoaderDispatcher) -> list[int] | None:
    """The rows of each rank in the last round, which Accelerate fills up to a multiple of the ranks."""
    ranks, left = loader.state.num_processes, max(loader.remainder, 0)
    size = -(-left // ranks)
    return [min(max(left - rank * size, 0), size) for rank in range(ranks)] if left else None


def _around(method: Any, replacement: Any) -> Any:
    def patched(accelerator: Accelerator, *args: Any, **kwargs: Any) -> Any:
        return replacement(lambda *a, **k: method(accelerator, *a, **k), accelerator, *args, **kwargs)

    patched.__doc__ = method.__doc__
    return patched


def _prepare(prepare: Any, accelerator: Accelerator, data_loader: Any, *args: Any, **kwargs: Any) -> Any:
    """A loader whose batches are dealt, where Accelerate would have dealt them otherwise."""
    if getattr(data_loader, "_is_accelerate_prepared", False):
        return prepare(data_loader, *args, **kwargs)
    if (why := _why_not_dealt(accelerator, data_loader)) is not None:
        if why and accelerator.num_processes > 1:
            setattr(accelerator, NOT_DEALT, {**getattr(accelerator, NOT_DEALT, {}), why: None})
        return prepare(data_loader, *args, **kwargs)
    window = getattr(accelerator, WINDOW, None)
    ranks = {"num_processes": accelerator.num_processes, "process_index": accelerator.process_index}
    if isinstance(data_loader.dataset, IterableDataset):
        kind = SizedDealtRows if hasattr(data_loader.dataset, "__len__") else DealtRows
        rows = kind(data_loader.dataset, batch_size=data_loader.batch_size, drop_last=data_loader.drop_last, **ranks)
        return _as_single(
            prepare, accelerator, _with(data_loader, rows, batch_size=data_loader.batch_size), *args, **kwargs
        )
    own = data_loader.batch_sampler
    is_shuffled = not isinstance(own.sampler, SequentialSampler) if window is None else window != EVALUATION
    accumulation = 1 if window == EVALUATION else window or accelerator.gradient_accumulation_steps
    sampler, generator = _sampler(accelerator, own.sampler)
    one_round = own.batch_size * accelerator.num_processes
    if isinstance(sampler, LengthGroupedSampler) and is_shuffled:
        sampler.batch_size = one_round * accumulation
    seed = _seed(accelerator) if is_shuffled and generator is None else 0
    batches = DealtBatches(
        Order(sampler, seed), batch_size=own.batch_size, accumulation=accumulation, **ranks,
        multiple_of=(
            one_round * (accumulation if is_shuffled else 1)
            if own.drop_last and window != EVALUATION else 1
        ),
    )  # fmt: skip
    prepared = _as_single(
        prepare, accelerator, _with(data_loader, data_loader.dataset, batch_sampler=batches), *args, **kwargs
    )
    if generator is not None and accelerator.num_processes > 1:
        prepared.rng_types, prepared.synchronized_generator = ["generator"], generator
    return prepared


def _why_not_dealt(accelerator: Accelerator, loader: Any) -> str | None:
    """Why the ranks do not divide a loader's rows as said above; empty where their rows are the same nevertheless."""
    is_stream, batches, dispatches = (
        isinstance(loader.dataset, IterableDataset), loader.batch_sampler, accelerator.dispatch_batches,
    )  # fmt: skip
    reasons = {
        "ranks that share a model share rows too": accelerator.torch_device_mesh is not None,
        "`split_batches` is True": accelerator.split_batches,
        "`even_batches` is False": not accelerator.even_batches,
        "a loader makes batches in a way of its own (`batch_sampler`)": not is_stream
        and not (type(batches) is BatchSampler and hasattr(batches.sampler, "__len__")),
        "a stream has a `batch_size` of None": is_stream and loader.batch_size is None,
        "a stream is read in processes of their own (`num_workers`)": is_stream
        and dispatches is False
        and loader.num_workers > 0,
        "`dispatch_batches` is True": not is_stream and bool(dispatches),
    }
    why = next((reason for reason, holds in reasons.items() if holds), None)
    return "" if why is None and is_stream and dispatches is not False else why


def _sampler(accelerator: Accelerator, sampler: Any) -> tuple[Any, Any]:
    """What draws the order, and the generator of the user's that it draws from."""
    generator = getattr(sampler, "generator", None)
    if type(sampler) is RandomSampler and generator is None:
        again = SeedableRandomSampler(
            sampler.data_source, replacement=sampler.replacement, num_samples=sampler._num_samples,
            generator=torch.Generator(), data_seed=_seed(accelerator),
        )  # fmt: skip
        return again, None
    return sampler, generator


def _seed(accelerator: Accelerator) -> int:
    """Of the order: what was asked for, or what rank 0 was seeded with."""
    if (asked := accelerator.dataloader_config.data_seed) is not None:
        return int(asked)
    seed = torch.tensor([torch.initial_seed() % 2**63], device=accelerator.device)
    return int(broadcast(seed)) if accelerator.num_processes > 1 else int(seed)


def _with(loader: DataLoader[Any], dataset: Any, **batching: Any) -> DataLoader[Any]:
    """The same loader, but for what it takes its batches from."""
    names = (
        "num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context", "generator",
        "prefetch_factor", "persistent_workers", "pin_memory_device", "in_order",
    )  # fmt: skip
    return DataLoader(dataset, **batching, **{name: getattr(loader, name) for name in names if hasattr(loader, name)})


def _as_single(prepare: Any, accelerator: Accelerator, loader: Any, *args: Any, **kwargs: Any) -> Any:
    """Prepares a loader whose rows have been divided already."""
    original = accelerate.accelerator.prepare_data_loader

    def undivided(given: Any, *a: Any, **k: Any) -> Any:
        return original(given, *a, **{**k, "num_processes": 1, "process_index": 0, "dispatch_batches": False})

    with mock.patch.object(accelerate.accelerator, "prepare_data_loader", undivided):
        return prepare(loader, *args, **kwargs)


def _gather(gather: Any, accelerator: Accelerator, *args: Any, **kwargs: Any) -> Any:
    """Gathers; of a last batch that is not whole each row once, in the order of the rows."""
    counts = shares_at_hand(accelerator) if accelerator.num_processes > 1 else None
    if counts is None or len(set(counts)) == 1:
        return gather(*args, **kwargs)
    # `gather` calls it `tensor`, `gather_for_metrics` `input_data`.
    data, *more = args or [kwargs.pop(name) for name in ("tensor", "input_data") if name in kwargs]
    is_plain = not more and not kwargs
    return gathered(lambda each: gather(each, *more, **kwargs), accelerator, counts, data, is_plain=is_plain)


def _backward(backward: Any, accelerator: Accelerator, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
    """Weighs a batch's mean loss by its rows, where its step is not whole."""
    _separate_once(accelerator)
    loader = accelerator.gradient_state.active_dataloader
    dealt = _dealt(loader) if loader is not None else None
    if dealt is not None:
        loss = loss * dealt.weight(loader.place)
    elif (counts := shares_at_hand(accelerator)) is not None:  # of rows without places
        loss = loss * (counts[accelerator.process_index] * len(counts) / sum(counts))
    backward(loss, *args, **kwargs)


def _prepare_in_loop(prepare: Any, accelerator: Accelerator, *args: Any, **kwargs: Any) -> Any:
    prepared = _prepare(prepare, accelerator, *args, **kwargs)
    if isinstance(prepared, DealtLoader):
        prepared.accelerator = accelerator
    return prepared


def _separate_once(accelerator: Accelerator) -> None:
    """When rows are first asked for, or a gradient: what a loop draws before, a split of its rows, is every rank's."""
    if not getattr(accelerator, "_hfsuite_separate", False):
        separate_streams(accelerator.process_index)
        accelerator._hfsuite_separate = True


def _dealt(loader: Any) -> DealtBatches | None:
    batches = loader.batch_sampler
    if isinstance(batches, SkipBatchSampler):
        batches = batches.batch_sampler
    return batches if isinstance(batches, DealtBatches) and isinstance(loader, DealtLoader) else None
