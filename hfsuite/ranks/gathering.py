"""What ranks gather of batches that are not equally large: each row once, in their order. Runs in every rank."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather as all_of
from accelerate.utils import recursively_apply

if TYPE_CHECKING:
    from accelerate import Accelerator


def gathered(
    gather: Callable[[Any], Any], accelerator: Accelerator, counts: list[int], data: Any, *, is_plain: bool
) -> Any:
    """What all ranks hold; of what is rows each row once, in the order of the rows.

    Args:
        gather: Accelerate's own way.
        accelerator: of this rank.
        counts: the rows of each rank in the batch at hand; a rank with 0 holds one that only stands in.
        data: of this rank: tensors, containers of them, or objects.
        is_plain: whether nothing is asked of `gather` but its default.
    """
    held, most = [max(count, 1) for count in counts], max(counts)

    def one(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim == 0:
            return gather(tensor)
        # All ranks must agree on whether these are rows: something else may be as long as the rows of one.
        lengths = all_of(torch.tensor([len(tensor)], device=accelerator.device)).tolist()
        if lengths != held:
            return gather(tensor)
        padded = torch.cat([tensor, tensor[-1:].expand(most - len(tensor), *tensor.shape[1:])])
        rows = [rank * most + row for rank, count in enumerate(counts) for row in range(count)]
        return all_of(padded)[rows]

    if is_plain:
        with suppress(TypeError):  # objects, which Accelerate gathers as lists
            return recursively_apply(one, data, error_on_other_type=True)
    found = gather(data)
    if isinstance(found, list) and len(found) == sum(held):
        starts = [sum(held[:rank]) for rank in range(len(held))]
        return [each for start, count in zip(starts, counts, strict=True) for each in found[start : start + count]]
    return found
