"""What a loss is a mean over: labels, rows or neither. Found out by comparing the loss of two rows with those of each.

The rows are the same on any number of workers. They lie far apart in the dataset, which may be sorted by label, and
are paired so that one has few labels and the other many, or that the labels differ. Where a dataset has no places (a
stream), the first batch at hand is divided instead. Runs in every rank.
"""

from __future__ import annotations

import math
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers.trainer_pt_utils import find_batch_size

ITEMS, ROWS, NEITHER = "items", "rows", "neither"  # what a loss is a mean of
LOOKED_AT, TESTED = 32, 8  # rows; as many as need not be many to hold rare labels, and four pairs of them
COLLECTED_IN = (dict, defaultdict, OrderedDict, Counter, list, deque, set)
LARGEST_COLLECTION = 10_000
CERTAIN = 0.01  # of the tolerance: by less, two means are not told apart


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """How far a loss is from being a mean over labels, and over rows; by up to 1 it is, as far as rounding shows."""

    items_off: float = 0.0
    rows_off: float = 0.0
    is_tested: bool = False  # otherwise it is taken for a mean over labels, if there are some
    draws: bool = False  # whether the same rows come as other batches each time

    @property
    def weighs_by(self) -> str:
        """ITEMS or ROWS, whichever is nearer."""
        return ITEMS if self.items_off <= self.rows_off + CERTAIN else ROWS

    @property
    def over(self) -> str:
        """ITEMS, ROWS or NEITHER."""
        return self.weighs_by if min(self.items_off, self.rows_off) <= 1 else NEITHER

    def as_numbers(self) -> list[float]:
        """For ranks to gather."""
        return [float(each) for each in astuple(self)]

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> Averaging:
        """The opposite."""
        return cls(items_off=numbers[0], rows_off=numbers[1], is_tested=bool(numbers[2]), draws=bool(numbers[3]))

    @classmethod
    def of(cls, tests: Sequence[Averaging]) -> Averaging:
        """What several tests come to: what one contradicts is not so."""
        return cls.from_numbers([max(column) for column in zip(*(each.as_numbers() for each in tests), strict=True)])


def compared(losses: Sequence[float], items: Sequence[float], rows: Sequence[float], tolerance: float) -> Averaging:
    """How far the first loss is from a mean of the others.

    Args:
        losses: of a batch, and of its parts.
        items: labels in each part; empty where they cannot be counted.
        rows: in each part.
        tolerance: for rounding, of a loss of 1.
    """
    whole, *parts = losses
    if not math.isfinite(whole) or (items and not sum(items)):
        return Averaging(items_off=0.0 if items else math.inf)  # it tells nothing
    allowed = tolerance * (max(abs(each) for each in losses if math.isfinite(each)) + 0.25)

    def off(counts: Sequence[float]) -> float:
        mean = sum(part * count for part, count in zip(parts, counts, strict=True) if count) / sum(counts)
        return abs(whole - mean) / allowed if math.isfinite(mean) else math.inf

    return Averaging(items_off=off(items) if items else math.inf, rows_off=off(rows), is_tested=True)


def batches_to_compare(
    loader: Any, batch: Any, labels: Callable[[Any], tuple[float, list[Any]]]
) -> tuple[list[list[Any]], bool]:
    """Batches, each followed by its two parts; and whether the same rows come as another batch each time.

    Args:
        loader: where the batches come from.
        batch: the one at hand, which is divided where the loader has no rows with places.
        labels: how many a batch has that count, and all of them: what rows are sorted by.
    """
    places = _places(loader)
    if not places:
        return ([parts] if (parts := _halves(batch)) else []), False

    def collated(*at: int) -> Any:
        return loader.collate_fn([loader.dataset[place] for place in at])

    alone = {place: collated(place) for place in places}
    ordered = sorted(places, key=lambda place: labels(alone[place]))
    empty = [place for place in ordered if not labels(alone[place])[0]]
    labelled = ordered[len(empty) :]
    pairs = [*zip(labelled, labelled[::-1], strict=True)][: min(len(labelled), TESTED) // 2]
    pairs += zip(empty[:1], labelled[-1:], strict=False)
    together = [collated(*pair) for pair in pairs]
    if all(_are_equal(batch, collated(*pair)) for batch, pair in zip(together, pairs, strict=True)):
        return [[batch, *(alone[place] for place in pair)] for batch, pair in zip(together, pairs, strict=True)], False
    # Only the parts of a batch have what was drawn for it.
    return [parts for batch in together if (parts := _halves(batch))], True


def rows_of(batch: Any) -> int:
    """How many rows a batch has."""
    return find_batch_size(batch) or 0


@contextmanager
def without_trace(trainer: Any, model: Any) -> Iterator[None]:
    """Losses that nobody trains with: without dropout, and without a trace in random numbers or the trainer.

    What the trainer counts, and the containers that it collects values in, are as they were afterwards.
    """
    was_training = model.training
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    states = np.random.get_state(), random.getstate()
    attributes = dict(vars(trainer))
    contents = [(each, each.copy()) for each in _containers(attributes)]
    trainer.is_tried = True
    with torch.no_grad(), torch.random.fork_rng(devices):
        model.eval()
        try:
            yield
        finally:
            model.train(was_training)
            np.random.set_state(states[0])
            random.setstate(states[1])
            for name in vars(trainer).keys() - attributes.keys():
                delattr(trainer, name)
            vars(trainer).update(attributes)
            for each, content in contents:
                each.clear()
                each.extend(content) if isinstance(each, list | deque) else each.update(content)


# ---- inside


def _containers(held: Mapping[str, Any]) -> list[Any]:
    """Those in which a trainer collects values, and those in them; not its datasets."""
    found: dict[int, Any] = {}
    left = [each for name, each in held.items() if not name.endswith("dataset")]
    while left:
        each = left.pop()
        if type(each) in COLLECTED_IN and len(each) <= LARGEST_COLLECTION and id(each) not in found:
            found[id(each)] = each
            left += each.values() if isinstance(each, dict) else each
    return list(found.values())


def _places(loader: Any) -> list[int]:
    """Of rows that lie far apart; none, where rows have no places or come in batches that are not to be made anew."""
    dataset: Any = getattr(loader, "dataset", None)
    if getattr(loader, "batch_sampler", None) is None or isinstance(dataset, IterableDataset):
        return []
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or len(dataset) < 2:
        return []
    count = min(LOOKED_AT, len(dataset))
    return [number * (len(dataset) - 1) // (count - 1) for number in range(count)]


def _halves(batch: Any) -> list[Any]:
    """A batch and its halves; nothing of a batch that cannot be divided."""
    rows = rows_of(batch)
    return [_part(batch, *part, rows) for part in ((0, rows), (0, rows // 2), (rows // 2, rows))] if rows > 1 else []


def _part(batch: Any, start: int, end: int, rows: int) -> Any:
    """Some rows of a batch, in a container of its kind."""
    if isinstance(batch, Mapping):
        return {name: _part(each, start, end, rows) for name, each in batch.items()}
    if isinstance(batch, list | tuple) and any(isinstance(each, torch.Tensor) for each in batch):
        return type(batch)(_part(each, start, end, rows) for each in batch)
    is_by_row = isinstance(batch, torch.Tensor) and batch.ndim > 0 and len(batch) == rows
    return batch[start:end] if is_by_row or (isinstance(batch, list) and len(batch) == rows) else batch


def _are_equal(one: Any, other: Any) -> bool:
    """Whether two batches hold the same tensors; what is no tensor trains nothing."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_are_equal(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_are_equal, one, other))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())
    return True
