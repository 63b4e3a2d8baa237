"""How many trials the memory of a GPU holds, from those that were measured. Driver.

The next trial may need more than any before: it may have the largest batch of the search space. What a trial would need
there is estimated from each one that was measured: what its steps took beyond its weights, gradients and optimizer
grows at most in proportion to its sizes (rows, their length, rank, width). Each estimate is an upper bound, and so the
least of them is one; with each trial that was nearer to the largest sizes it comes down, to what one with them took.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.search.sample import Integer

from hfsuite.ranks.pace import Gpu
from hfsuite.search.domains import steps_of
from hfsuite.search.spaces import examples_of

USED_AT_MOST = 0.92  # of a GPU: fragments, and what CUDA's libraries take when they like
MARGIN = 1.1  # the longest rows may not have come yet
CONTEXT = 1 << 30  # of a process, with what CUDA's libraries load: 0.6 to 1.1 GB on an H100, if not more is seen
NO_SIZES = re.compile(r"seed|epoch|step|warmup|patience|accumulation|workers|limit|every|eval|save|log|period|cycle")
SIZES_OF_ROWS = re.compile(r"batch|rows|len|tokens|seq|context")


@dataclass(frozen=True)
class Taken:
    """What a trial has taken of the memory of each of its GPUs, in bytes.

    Args:
        settings: the trial's.
        held: between steps.
        peak: at most.
    """

    settings: Mapping[str, Any]
    held: int
    peak: int


class GpuMemory:
    """What trials have taken, and how many of them a GPU holds whatever is drawn.

    Args:
        space: what is searched.
    """

    def __init__(self, space: Mapping[str, Any]) -> None:
        self._largest = {
            name: most for name, domain in space.items() if (most := largest_size(name, domain)) is not None
        }
        self._taken: dict[str, Taken] = {}
        self._total, self._outside = 0, CONTEXT
        self._others: int | None = None  # what other programs have of a GPU
        self._too_many: float = math.inf  # so many at once have run out of memory

    def note(self, trial: str, settings: Mapping[str, Any], gpu: Gpu, *, is_alone: bool) -> None:
        """What a trial takes by now.

        Args:
            trial: which.
            settings: its own.
            gpu: what one of its ranks sees.
            is_alone: whether no other trial is on its GPUs, nor was.
        """
        before = self._taken.get(trial)
        peak, held = (max(gpu.peak, before.peak), max(gpu.held, before.held)) if before else (gpu.peak, gpu.held)
        self._taken[trial] = Taken(settings, held, peak)
        self._total = min(gpu.total, self._total or gpu.total)
        self._outside = max(self._outside, (gpu.process or 0) - gpu.peak)  # of what PyTorch has reserved
        if is_alone:
            others = max(0, gpu.used - gpu.peak - self._outside)
            self._others = others if self._others is None else min(others, self._others)

    def note_out_of_memory(self, at_once: int) -> None:
        """A trial has run out of memory beside others.

        Args:
            at_once: how many they were, it included.
        """
        self._too_many = min(self._too_many, max(2, at_once))

    @property
    def limit(self) -> float:
        """How many trials a GPU holds at once; 1 until one was measured."""
        if not self._taken or self._others is None:
            return 1
        room = USED_AT_MOST * self._total - self._others
        return max(1, min(self._too_many - 1, room // (MARGIN * self.largest + self._outside)))

    @property
    def largest(self) -> float:
        """Bytes that the trial takes which needs most."""
        measured = max(each.peak for each in self._taken.values())
        return max(measured, min(self._at_the_largest(each) for each in self._taken.values()))

    def _at_the_largest(self, taken: Taken) -> float:
        """Bytes at most, if a trial like this one had the largest sizes of the space."""
        rows, model = 1.0, 1.0
        for name, most in self._largest.items():
            value = taken.settings.get(name)
            ratio = most / value if isinstance(value, int) and 0 < value <= most else 1.0
            if SIZES_OF_ROWS.search(name):
                rows *= ratio
            else:
                model *= ratio
        return model * (taken.held + rows * max(0, taken.peak - taken.held))


def largest_size(name: str, domain: Any) -> int | None:
    """The largest value of a setting that may be a size of what is in memory; None if it is none.

    Args:
        name: of the setting.
        domain: its values.
    """
    if NO_SIZES.search(name.lower()) and not SIZES_OF_ROWS.search(name.lower()):
        return None
    if isinstance(domain, Integer):
        steps = steps_of(domain)
        return int(steps.value(steps.last)) if steps is not None and math.isfinite(steps.last) else None
    listed = examples_of(domain)
    whole = [each for each in listed if isinstance(each, int) and not isinstance(each, bool)]
    return max(whole) if len(listed) > 1 and len(whole) == len(listed) else None
