"""Which values a domain of Ray Tune's holds: for every searcher those that Ray Tune itself draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ray.tune.search.sample import Categorical, Domain, Float, Integer, LogUniform, Normal, Quantized

from hfsuite.own_values import as_written, own_value


@dataclass(frozen=True)
class Steps:
    """Multiples of a number, from one to another.

    Args:
        first: the first value, in steps; minus infinity if there is none.
        last: the last value, likewise; less than the first if there are no values at all.
        by: the step.
    """

    first: float
    last: float
    by: float

    def value(self, index: float) -> Any:
        """The value that is so many steps from zero: as Ray Tune computes it, to the last bit."""
        return index * self.by

    def nearest(self, value: float) -> float:
        """How many steps it is from zero to what is nearest to a value."""
        return min(max(round(value / self.by), self.first), self.last)

    def __contains__(self, value: float) -> bool:
        try:
            index = round(value / self.by)
        except (OverflowError, ValueError):  # infinity, NaN, or more digits than a float has
            return False
        return self.first <= index <= self.last and math.isclose(value, index * self.by, abs_tol=1e-9 * self.by)


def steps_of(domain: Domain) -> Steps | None:
    """The values of a domain of whole or quantised numbers; None for any other.

    A quantum counts from zero, whatever the bounds: qrandint(1, 10, 3) is 3, 6 and 9. Whole numbers end before their
    upper bound, and with a quantum other than 1 at it.
    """
    sampler = domain.get_sampler()
    is_whole = isinstance(domain, Integer)
    if not isinstance(domain, Integer | Float) or not (is_whole or isinstance(sampler, Quantized)):
        return None
    by = sampler.q if isinstance(sampler, Quantized) else 1
    first, last = _index(domain.lower, by, math.ceil), _index(domain.upper, by, math.floor)
    return Steps(first, last - 1 if is_whole and by == 1 else last, by)


def holds(domain: Any, value: Any) -> bool:
    """Whether a trial could get a value from a domain, the bounds of real numbers included; of functions nobody knows.

    Args:
        domain: of a setting.
        value: the setting's default, in whose types trials get what is drawn: 1 for 1.0, a list for a tuple.
    """
    value = own_value(value)
    if isinstance(domain, Categorical):
        return any(_is_same(own_value(each, value), value) for each in domain.categories)
    if not isinstance(domain, Integer | Float):
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    steps = steps_of(domain)
    return domain.lower <= value <= domain.upper if steps is None else value in steps


def empty_fault(name: str, domain: Any) -> str | None:
    """A sentence if nothing can be drawn from a range of numbers."""
    if not isinstance(domain, Integer | Float):
        return None
    given, steps = f"{domain.lower:g} to {domain.upper:g}", steps_of(domain)
    if math.isnan(domain.lower) or math.isnan(domain.upper) or domain.lower > domain.upper:
        return f"The search space lists no values for {name!r}: from {given}. Give the smaller bound first."
    if steps is None or steps.first <= steps.last:
        return None
    if steps.by == 1:
        return (
            f"The search space lists no values for {name!r}: whole numbers from {given}, which itself is left out. "
            f"Write tune.randint({domain.lower}, {domain.upper + 1}), or a constant."
        )
    return f"The search space lists no values for {name!r}: there is no multiple of {steps.by:g} from {given}."


def is_logarithmic(domain: Domain) -> bool:
    """Whether small values are drawn as often as large ones of as many digits more."""
    return isinstance(_unquantised(domain), LogUniform)


def normal_of(domain: Domain) -> Normal | None:
    """Mean and deviation of a normal distribution; None for any other."""
    sampler = _unquantised(domain)
    return sampler if isinstance(sampler, Normal) else None


def _is_same(one: Any, other: Any) -> bool:
    try:
        return type(one) is type(other) and bool(one == other)
    except (TypeError, ValueError):  # of arrays
        return bool(as_written(one) == as_written(other))


def _unquantised(domain: Domain) -> Any:
    sampler = domain.get_sampler()
    return sampler.get_sampler() if isinstance(sampler, Quantized) else sampler


def _index(bound: float, by: float, inwards: Any) -> float:
    if math.isinf(bound):
        return bound
    steps = bound / by
    return round(steps) if math.isclose(steps, round(steps)) else int(inwards(steps))
