"""When is a question about means settled? A group-sequential test of paired differences. Pure functions.

Seeds are added one after another, and after each the leader is compared with its rivals. Whoever looks often finds a
difference by chance at some time; so each look is held to a stricter level, the same at each (Pocock 1977, Biometrika
64), such that all looks together err as seldom as asked. That level is found by recursive integration (Armitage,
McPherson and Rowe 1969, J. R. Stat. Soc. A 132), and applied to Student's t as Jennison and Turnbull do (Group
Sequential Methods, 2000, section 4.4). Several rivals share the error among them (Bonferroni).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ERROR = 0.05  # how often all looks together may tell two apart that are the same
FEWEST = 3  # seeds that can tell two apart: two may agree by chance, where what is measured is counted in rows
GRID = 241  # points of the integration


@dataclass(frozen=True)
class Comparison:
    """A leader against a rival, over the same seeds.

    Args:
        seeds: how many.
        mean: of the differences, leader minus rival; positive if the leader is better.
        low: of the confidence interval of that mean; -inf of fewer seeds than `FEWEST`.
        high: likewise.
        level: of confidence of the interval: so that it holds at every look.
        apart: whether the interval leaves out zero: the two are told apart.
    """

    seeds: int
    mean: float
    low: float
    high: float
    level: float
    apart: bool


def compare(leader: Sequence[float], rival: Sequence[float], *, looks: int, rivals: int, sign: int) -> Comparison:
    """Compares two by what they reached with the same seeds.

    Args:
        leader: a value a seed.
        rival: likewise, in the same order.
        looks: how often is looked at most.
        rivals: how many share the error.
        sign: 1 if larger is better, -1 if smaller is.
    """
    from scipy import stats

    differences = sign * (np.asarray(leader) - np.asarray(rival))
    count, mean = len(differences), float(differences.mean())
    level = 1 - nominal_level(looks, ERROR / rivals)
    if count < FEWEST:
        return Comparison(count, mean, -math.inf, math.inf, level, apart=False)
    spread = float(differences.std(ddof=1)) / math.sqrt(count)
    if spread == 0.0:  # every seed says the same to the last bit: most likely seeds change nothing there
        return Comparison(count, mean, -math.inf, math.inf, level, apart=False)
    half = float(stats.t.ppf(1 - (1 - level) / 2, count - 1)) * spread
    return Comparison(count, mean, mean - half, mean + half, level, apart=abs(mean) > half)


@functools.cache
def nominal_level(looks: int, error: float) -> float:
    """The two-sided level of each of so many looks, so that all together err with this probability.

    >>> round(nominal_level(5, 0.05), 4)
    0.0158
    """
    from scipy import optimize, stats

    if looks <= 1:
        return error
    boundary = optimize.brentq(lambda c: _crossing(looks, c) - error, stats.norm.ppf(1 - error / 2), 6.0)
    return float(2 * stats.norm.sf(boundary))


def _crossing(looks: int, boundary: float) -> float:
    """The probability that a standardised sum of so many equal steps leaves the boundary at some look."""
    from scipy import integrate, stats

    points = np.linspace(-boundary, boundary, GRID)
    density, inside = stats.norm.pdf(points), 1.0
    for look in range(1, looks + 1):
        # Of sums that are inside: they were inside before, and have made one more step.
        edge = boundary * math.sqrt(look)
        now = np.linspace(-edge, edge, GRID)
        if look == 1:
            density = stats.norm.pdf(now)
        else:
            steps = stats.norm.pdf(now[:, None] - points[None, :])
            density = integrate.simpson(steps * density[None, :], x=points, axis=1)
        points, inside = now, float(integrate.simpson(density, x=now))
    return 1 - inside
