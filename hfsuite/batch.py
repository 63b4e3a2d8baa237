"""How a global batch is spread over workers, devices and steps."""

from __future__ import annotations

from typing import NamedTuple

from hfsuite.errors import ConfigurationError


class Batch(NamedTuple):
    """Rows that one device takes at once, and how many such rounds make one optimizer step."""

    per_device: int
    accumulation: int


def split_batch(global_batch_size: int, world_size: int, *, largest_per_device: int = 32) -> Batch:
    """Splits a global batch size, which is what a search varies, into what a worker needs to know.

    The number of workers then changes the speed of a trial, and not what it computes: all have the same global batches
    (see `hfsuite.ranks.dealing`). Dropout alone differs, since each rank draws masks of its own.

    Args:
        global_batch_size: rows an optimizer step sees, over all workers.
        world_size: number of workers.
        largest_per_device: rows that fit a device; more are reached by gradient accumulation.

    Raises:
        ConfigurationError: the rows cannot be divided evenly.
    """
    if global_batch_size < 1 or global_batch_size % world_size:
        nearest = max(1, round(global_batch_size / world_size)) * world_size
        raise ConfigurationError(
            f"A global batch of {global_batch_size} rows cannot be divided between {world_size} workers: "
            f"choose a multiple of {world_size}, {nearest} for example."
        )
    rows = global_batch_size // world_size
    accumulation = next(
        rounds for rounds in range(1, rows + 1) if rows % rounds == 0 and rows // rounds <= largest_per_device
    )
    return Batch(rows // accumulation, accumulation)
