"""Whoever looks often is held to a stricter level, and errs as seldom as asked."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hfsuite.sweeps.sequential import ERROR, FEWEST, compare, nominal_level


@pytest.mark.parametrize(
    ("looks", "level"), [(1, 0.05), (2, 0.0294), (3, 0.0221), (4, 0.0182), (5, 0.0158), (10, 0.0106)]
)
def test_levels_are_pococks(looks: int, level: float) -> None:
    assert nominal_level(looks, 0.05) == pytest.approx(level, abs=6e-5)  # Jennison and Turnbull 2000, table 2.1


def test_equal_rivals_are_told_apart_as_seldom_as_asked() -> None:
    draw, looks, trials, wrong = np.random.default_rng(3), 3, 3_000, 0
    for _ in range(trials):
        one, other = draw.normal(size=(2, FEWEST + looks - 1))
        seen = range(FEWEST, FEWEST + looks)
        wrong += any(compare(one[:n], other[:n], looks=looks, rivals=1, sign=1).apart for n in seen)
    assert 0.6 * ERROR < wrong / trials < 1.3 * ERROR


def test_seeds_are_paired() -> None:
    leader, rival = [0.80, 0.70, 0.90, 0.60], [0.79, 0.69, 0.885, 0.59]
    found = compare(leader, rival, looks=4, rivals=2, sign=1)
    assert found.apart, "each seed says the same, though seeds differ by more than the two do"
    assert found.mean == pytest.approx(0.01125)
    assert found.low < found.mean < found.high
    worse = compare(leader, rival, looks=4, rivals=2, sign=-1)
    assert (worse.mean, worse.apart) == (pytest.approx(-0.01125), True)


@pytest.mark.parametrize("seeds", [1, 2])
def test_two_seeds_say_nothing(seeds: int) -> None:
    found = compare([0.9] * seeds, [0.1] * seeds, looks=4, rivals=1, sign=1)
    assert (found.low, found.high, found.apart) == (-math.inf, math.inf, False)


def test_seeds_that_change_nothing_are_one_seed() -> None:
    for leader in ([0.5] * 3, [0.6] * 3):
        found = compare(leader, [0.5] * 3, looks=2, rivals=1, sign=1)
        assert (found.apart, found.high) == (False, math.inf)
