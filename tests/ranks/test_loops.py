"""A loop with Accelerate has the same rows in each step on one worker and on two, and learns the same from them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ranks import loops_in_ranks as ranks
from tests.trainers.in_ranks import found_on

DEALT = [name for name in ranks.LOOPS if name not in ("split", "uneven")]


@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return [found_on(workers, ranks.all_loops, tmp_path_factory.mktemp("on")) for workers in (1, 2)]


@pytest.mark.parametrize("name", DEALT)
def test_a_loop_is_the_same(loops: list[dict[str, Any]], name: str) -> None:
    one, two = (each[name] for each in loops)
    assert two["steps"] == one["steps"]
    assert two["weight"] == pytest.approx(one["weight"], rel=1e-6)
    assert two["not dealt"] == []


@pytest.mark.parametrize(
    ("name", "rows"),
    [("in turn, accumulated", 12), ("a subset", 32), ("a usual batch sampler", 10), ("with replacement", 14),
     ("streamed", 9), ("streamed, dropped", 8), ("streamed and counted, dropped", 8)],
)  # fmt: skip
def test_an_epoch_has_all_rows(loops: list[dict[str, Any]], name: str, rows: int) -> None:
    for found in loops:
        dealt = [row for step in found[name]["steps"] for row in step]
        assert len(dealt) == 2 * rows
        if name != "with replacement":
            assert sorted(dealt[:rows]) == sorted(dealt[rows:]) == [float(each) for each in range(rows)]


def test_what_is_not_dealt_says_why(loops: list[dict[str, Any]]) -> None:
    one, two = loops
    assert one["split"]["not dealt"] == one["uneven"]["not dealt"] == []
    assert two["split"]["not dealt"] == ["`split_batches` is True"]
    assert two["uneven"]["not dealt"] == ["`even_batches` is False"]


def test_only_rows_are_gathered_as_rows(loops: list[dict[str, Any]]) -> None:
    one, two = (each["gathered"] for each in loops)
    assert two["rows"] == one["rows"] == [float(each) for each in range(7)]
    assert two["objects"] == one["objects"] == [f"row {each}" for each in range(7)]
    assert two["other"] == one["other"] * 2


def test_a_loop_that_is_broken_off_goes_on_with_another_epoch(loops: list[dict[str, Any]]) -> None:
    one, two = (each["broken off"] for each in loops)
    assert two == one
    assert len({tuple(epoch) for epoch in one}) == 3


def test_ranks_draw_numbers_of_their_own_and_the_first_as_if_alone(loops: list[dict[str, Any]]) -> None:
    ((alone,), (first, second)) = (each["draws"] for each in loops)
    assert first == alone
    assert all(one != other for one, other in zip(first, second, strict=True))
