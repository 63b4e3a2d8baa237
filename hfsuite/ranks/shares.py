"""Which rows of an epoch each rank gets: each row once, in the same global batches on any number of ranks.

See `hfsuite.ranks.dealing`, which has Accelerate's loaders use it. Runs in every rank.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, IterableDataset, Sampler, SequentialSampler

from hfsuite.seeds import Seeds


class Order:
    """The order of an epoch's rows, the same in every rank and after every resume.

    Args:
        sampler: draws it. One with a generator of its own draws from that, which `DataLoaderShard` keeps equal.
        seed: of all epochs.
    """

    def __init__(self, sampler: Sampler[int], seed: int) -> None:
        self.sampler, self.seed, self.epoch = sampler, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch is drawn next."""
        self.epoch = epoch
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        """Rows of an epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        """The rows of the epoch."""
        if isinstance(self.sampler, SequentialSampler) or getattr(self.sampler, "generator", None) is not None:
            return iter(self.sampler)
        with drawing_from(Seeds(self.seed).stream(f"order of epoch {self.epoch}")):
            return iter(list(self.sampler))


class DealtBatches(BatchSampler):
    """The batches of one rank.

    Args:
        order: of all rows.
        batch_size: rows a rank takes at once.
        accumulation: batches of an optimizer step.
        num_processes: ranks.
        process_index: this one.
        multiple_of: the rows of an epoch that are dealt; what is left at its end is dropped.
    """

    def __init__(
        self, order: Order, *, batch_size: int, accumulation: int, num_processes: int, process_index: int,
        multiple_of: int = 1,
    ) -> None:  # fmt: skip
        self.sampler: Any = order  # Accelerate looks for it by this name
        self.batch_size, self.accumulation, self.multiple_of = batch_size, accumulation, multiple_of
        self.drop_last = multiple_of > 1
        self.num_processes, self.process_index = num_processes, process_index

    @property
    def round(self) -> int:
        """Rows that all ranks take at once."""
        return self.batch_size * self.num_processes

    @property
    def rows(self) -> int:
        """Rows of an epoch that are dealt."""
        return len(self.sampler) // self.multiple_of * self.multiple_of

    def set_epoch(self, epoch: int) -> None:
        """Which epoch is dealt next."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches of an epoch, as many in every rank."""
        return -(-self.rows // self.round)

    def __iter__(self) -> Iterator[list[int]]:
        """The rows of each batch."""
        order = list(self.sampler)[: self.rows]
        for start in range(0, len(order), self.round):
            yield share_of(order[start : start + self.round], self.num_processes, self.process_index)

    def shares(self, place: int) -> list[int]:
        """The rows of each rank in a batch, by the batch's place in the epoch; 0 where a row only stands in."""
        return shares(min(self.round, self.rows - place * self.round), self.num_processes)

    def weight(self, place: int) -> float:
        """By what a batch's mean loss counts in its step, times ranks and batches of a step: 1 if the step is whole."""
        window = self.round * self.accumulation
        whole = min(window, self.rows - place // self.accumulation * window)
        return self.shares(place)[self.process_index] * self.num_processes * self.accumulation / whole


class DealtRows(IterableDataset[Any]):
    """The rows of one rank, of a dataset without places. Every rank reads all of it.

    Args:
        dataset: yields the same rows in every rank.
        batch_size: rows a rank takes at once.
        num_processes: ranks.
        process_index: this one.
        drop_last: whether the last rows are dropped if they fill no batch in every rank.
    """

    def __init__(
        self, dataset: Any, *, batch_size: int, num_processes: int, process_index: int, drop_last: bool
    ) -> None:
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        self.num_processes, self.process_index = num_processes, process_index
        self.last_round = 0  # rows of the last round, when it has been dealt

    def set_epoch(self, epoch: int) -> None:
        """Which epoch is dealt next."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        """The rows of this rank, a batch at a time."""
        for rows in rounds(self.dataset, self.batch_size * self.num_processes):
            if len(rows) == self.batch_size * self.num_processes or not self.drop_last:
                self.last_round = len(rows)
                yield from share_of(rows, self.num_processes, self.process_index)

    def __getattr__(self, name: str) -> Any:
        """All else is the dataset's."""
        if name.startswith("__") or name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)


class SizedDealtRows(DealtRows):
    """The same, of a dataset that knows how many rows it has."""

    def __len__(self) -> int:
        """So many that a loader counts the batches right, of which the last may have fewer rows."""
        whole, rest = divmod(len(self.dataset), self.batch_size * self.num_processes)
        return (whole + bool(rest and not self.drop_last)) * self.batch_size


def shares(rows: int, ranks: int) -> list[int]:
    """How many rows each rank gets of a round: a batch, or an even part of what is left.

    >>> shares(16, 2), shares(9, 2), shares(1, 2)
    ([8, 8], [5, 4], [1, 0])
    """
    least, more = divmod(rows, ranks)
    return [least + (rank < more) for rank in range(ranks)]


def share_of(rows: list[Any], ranks: int, rank: int) -> list[Any]:
    """The rows that one rank gets of a round; the round's first, where none is left for it."""
    counts = shares(len(rows), ranks)
    start = sum(counts[:rank])
    return rows[start : start + counts[rank]] or rows[:1]


def rounds(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """So many rows at a time; at the end what is left."""
    at_hand: list[Any] = []
    for row in rows:
        at_hand.append(row)
        if len(at_hand) == size:
            yield at_hand
            at_hand = []
    if at_hand:
        yield at_hand


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Whatever draws meanwhile draws from this seed; afterwards all generators are as they were."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
