"""What a loss is a mean over: labels, rows or neither. Pure functions of losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

ITEMS, ROWS, NEITHER = "items", "rows", "neither"  # what a loss is a mean over
TIE = 0.01  # of the tolerance: by less, neither of two means fits better
TELLING = 10  # times the tolerance: parts whose losses differ by less fit any mean


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """How far a loss was from a mean over labels, and from one over rows, in units of what rounding explains."""

    items_off: float = 0.0
    rows_off: float = 0.0
    is_tested: bool = False  # otherwise it is taken for a mean over labels, if there are some
    draws: bool = False  # whether the same rows give another batch, or another loss, each time

    @property
    def weighs_by(self) -> str:
        """ITEMS or ROWS, whichever is nearer."""
        return ITEMS if self.items_off <= self.rows_off + TIE else ROWS

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
        """What several tests come to: the worst of each."""
        return cls.from_numbers([max(column) for column in zip(*(each.as_numbers() for each in tests), strict=True)])


def untested(items: float | None) -> Averaging:
    """What is taken for true before anything is known, of a batch with so many labels; None if it has none."""
    return Averaging(items_off=math.inf if items is None else 0.0)


def compared(losses: Sequence[float], items: Sequence[float], rows: Sequence[float], tolerance: float) -> Averaging:
    """How far the first loss is from a mean of the others.

    Args:
        losses: of a batch, and of its parts.
        items: labels in each part; empty where they cannot be counted.
        rows: in each part.
        tolerance: for rounding, of a loss of 1.
    """
    whole, *parts = losses
    nothing = untested(None if not items else 1)
    if not math.isfinite(whole) or (items and not sum(items)):
        return nothing
    allowed = tolerance * (max(abs(each) for each in losses if math.isfinite(each)) + 0.25)

    def off(counts: Sequence[float]) -> float:
        mean = sum(part * count for part, count in zip(parts, counts, strict=True) if count) / sum(counts)
        return abs(whole - mean) / allowed if math.isfinite(mean) else math.inf

    found = Averaging(items_off=off(items) if items else math.inf, rows_off=off(rows), is_tested=True)
    tells = not all(map(math.isfinite, parts)) or max(parts) - min(parts) > TELLING * allowed
    return found if tells or found.over == NEITHER else nothing
