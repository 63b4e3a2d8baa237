"""Batches whose losses tell what a loss is a mean over, and computing them without a trace. Runs in every rank.

A batch of two rows is followed by each row alone. The rows are the same on any number of workers. They lie far apart in
the dataset, which may be sorted by label; in a pair the labels differ, or one row has few of them and the other many.
Where rows have no places (a stream), or come in batches that only a sampler of the user's makes, the batch at hand is
halved instead.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import SkipBatchSampler
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Subset
from transformers.trainer_pt_utils import find_batch_size

from hfsuite.ranks.shares import DealtBatches

LOOKED_AT, LABELS_LOOKED_AT = 32, 100_000  # rows of which all is read, and rows of which only the label is
FEW_LABELS, PAIRS = 16, 4  # up to so many labels each is compared with the next; at least so many pairs in all
READ_TWICE = 8  # rows, to see whether they are the same again
COLLECTED_IN = (dict, defaultdict, OrderedDict, Counter, list, deque, set)
LARGEST_COLLECTION = 10_000  # elements of what is put back afterwards

Labels = tuple[float, list[Any]]  # how many of a row's labels count, and all of them


def groups_to_compare(
    loader: Any, batch: Any, labels_of: Callable[[Any], Labels], label_names: Sequence[str]
) -> tuple[list[list[Any]], bool]:
    """Batches, each followed by its two parts; and whether the same rows come as another batch each time.

    Args:
        loader: where the batches come from.
        batch: the one at hand.
        labels_of: the labels of a batch of one row.
        label_names: columns of labels.
    """
    places = _places(loader, label_names)
    if len(places) < 2:
        return ([halves] if (halves := _halves(batch)) else []), False
    samples = _samples(loader, [*places, *places[:READ_TWICE]])

    def collated(*at: int) -> Any:  # collators may change what they get
        return loader.collate_fn([copy.deepcopy(samples[index]) for index in at])

    alone = [collated(index) for index in range(len(places))]
    again = [collated(len(places) + index) for index in range(len(samples) - len(places))]
    pairs = _pairs([labels_of(each) for each in alone])
    together = [collated(*pair) for pair in pairs]
    draws = not all(map(_are_equal, alone, again)) or not all(
        _are_equal(whole, collated(*pair)) for whole, pair in zip(together, pairs, strict=True)
    )
    if draws:  # only the parts of a batch have what was drawn for it
        return [halves for whole in together if (halves := _halves(whole))], True
    return [[whole, alone[one], alone[other]] for whole, (one, other) in zip(together, pairs, strict=True)], False


@contextmanager
def without_trace(trainer: Any, model: Any) -> Iterator[None]:
    """In evaluation mode, without gradients, and without a trace in random numbers.

    The trainer's attributes are the same afterwards, the containers among them hold what they held, and small tensors
    have their values; an object of a class of the user's may keep a trace.
    """
    was_training = model.training
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    states = np.random.get_state(), random.getstate()
    attributes = dict(vars(trainer))
    containers = [(each, each.copy()) for each in _containers(attributes)]
    tensors = [(each, each.detach().clone()) for each in attributes.values() if _is_small(each)]
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
            for each, content in containers:
                each.clear()
                each.extend(content) if isinstance(each, list | deque) else each.update(content)
            for each, content in tensors:
                each.copy_(content)


def in_full_precision(model: Any) -> bool:
    """Whether a model's weights are float32 or more, so that it can compute without automatic mixed precision."""
    kinds = {each.dtype for each in model.parameters() if each.is_floating_point()}
    return kinds <= {torch.float32, torch.float64} and "flash" not in str(
        getattr(getattr(model, "config", None), "_attn_implementation", "")
    )


@contextmanager
def without_mixed_precision(model: Any) -> Iterator[None]:
    """Rounds as little as the weights do: Accelerate's automatic mixed precision and TF32 are off meanwhile."""
    own = vars(model).get("_original_forward")
    prepared, tf32 = vars(model).get("forward"), torch.backends.cuda.matmul.allow_tf32
    if own is not None:
        model.forward = own
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        if own is not None:
            model.forward = prepared


def rows_of(batch: Any) -> int:
    """How many rows a batch has, by its tensors; 0 if it has none."""
    return find_batch_size(batch) or 0


# ---- inside


def _places(loader: Any, label_names: Sequence[str]) -> list[int]:
    """Of rows that lie far apart, and of the first with each label, where these are easily read; or none."""
    dataset: Any = getattr(loader, "dataset", None)
    batches = getattr(loader, "batch_sampler", None)
    if isinstance(batches, SkipBatchSampler):
        batches = batches.batch_sampler
    is_usual = type(batches) is BatchSampler or isinstance(batches, DealtBatches)
    if not is_usual or isinstance(dataset, IterableDataset):
        return []
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or len(dataset) < 2:
        return []
    count = min(LOOKED_AT, len(dataset))
    spread = [number * (len(dataset) - 1) // (count - 1) for number in range(count)]
    return list(dict.fromkeys([*spread, *_first_of_each_label(dataset, label_names)]))


def _first_of_each_label(dataset: Any, label_names: Sequence[str]) -> list[int]:
    """In a dataset of Hugging Face's, whose columns can be read without its rows."""
    column = next(
        (each for each in (*label_names, "label") if each in (getattr(dataset, "column_names", None) or ())), None
    )
    if column is None or not hasattr(dataset, "with_format"):
        return []
    values = np.asarray(dataset.select_columns([column]).with_format("numpy")[:LABELS_LOOKED_AT][column])
    if values.ndim != 1 or values.dtype.kind not in "iub":
        return []
    return [int(place) for place in np.unique(values, return_index=True)[1][:FEW_LABELS]]


def _samples(loader: Any, places: Sequence[int]) -> list[Any]:
    """Rows as the dataset gives them; out of another process, if the loader's come from some.

    A dataset may open its file when it is first asked, and processes that are forked later would share its position.
    """
    reader = DataLoader(
        Subset(loader.dataset, places), batch_size=len(places), collate_fn=list, num_workers=min(loader.num_workers, 1),
        worker_init_fn=loader.worker_init_fn, multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator(),
    )  # fmt: skip
    samples: list[Any] = next(iter(reader))
    return samples


def _pairs(labels: Sequence[Labels]) -> list[tuple[int, int]]:
    """Which rows are compared, given the labels of each."""
    ordered = sorted(range(len(labels)), key=lambda index: labels[index])
    empty = [index for index in ordered if not labels[index][0]]
    labelled = ordered[len(empty) :]
    first = list({str(labels[index]): index for index in reversed(labelled)}.values())[::-1]  # of each label
    pairs = list(itertools.pairwise(first)) if len(first) <= FEW_LABELS else []
    extremes = [*zip(labelled, labelled[::-1], strict=True)][: len(labelled) // 2]
    pairs += extremes[: max(PAIRS - len(pairs), 0)]
    return [*pairs, *zip(empty[:1], labelled[-1:], strict=False)]


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


def _is_small(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() <= LARGEST_COLLECTION
