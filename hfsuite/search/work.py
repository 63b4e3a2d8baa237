"""How much longer a trial is expected to take than another, from their settings alone.

It only ranks them, so that long trials begin first: the last ones are then short, and no worker waits long for them.
Graham showed what that is worth ("Bounds on multiprocessing timing anomalies", 1969): a third more than the least
possible time at most, where any order can cost twice as much.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

LENGTHS = re.compile(r"(^|_)(epochs?|max_steps|steps|iterations)$")
OTHERS = re.compile(  # numbers of steps, and numbers about layers, that make nothing longer
    r"warmup|eval|log|sav|accumulation|per_epoch|every|decay|dropout|norm|penalty|momentum|scheduler|rate|(^|_)lr(_|$)"
)
BATCHES = re.compile(r"batch")
LARGEST = 1e15  # beyond it a number stands for none at all
SIZES = re.compile(r"(^|_)(layers|hidden|width|dim|depth|length|len|context|d_model)(_|$)|hidden_size")


def expected_work(settings: Mapping[str, Any]) -> float:
    """In no unit: twice as much is expected to take twice as long.

    Epochs and steps count in proportion. A larger batch makes an epoch shorter and a number of steps longer, on a GPU
    that it does not fill by less than in proportion: by the root. A larger model or longer rows take longer, likewise.

    Args:
        settings: of a trial, by name.
    """
    lengths = [name for name in settings if _exponent(name, True) == 1.0]
    has_epochs = not lengths or any("epoch" in name for name in lengths)
    factors: Iterable[float] = (
        float(value) ** _exponent(name, has_epochs)
        for name, value in settings.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < LARGEST
    )
    return math.prod(factors)


def tells_work(names: Iterable[str]) -> bool:
    """Whether one of these settings says anything of it."""
    return any(_exponent(name, True) for name in names)


def _exponent(name: str, has_epochs: bool) -> float:
    name = name.lower()
    if OTHERS.search(name):
        return 0.0
    if LENGTHS.search(name):
        return 1.0
    if BATCHES.search(name):
        return -0.5 if has_epochs else 0.5
    return 0.5 if SIZES.search(name) else 0.0
