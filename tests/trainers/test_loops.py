"""A loop with Accelerate has the same rows in each step on one worker and on two, and learns the same from them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from tests.trainers import loops_in_ranks as ranks

DEALT = [name for name in ranks.LOOPS if name not in ("split", "uneven")]


@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """On one worker, which is this process, and on two."""
    found = []
    for workers in (0, 2):
        directory = tmp_path_factory.mktemp(f"on_{workers}")
        TorchTrainer(
            ranks.all_loops,
            train_loop_config={"out": str(directory / "loops.json")},
            scaling_config=ScalingConfig(num_workers=workers),
            run_config=RunConfig(storage_path=str(directory)),
        ).fit()
        found.append(json.loads((directory / "loops.json").read_text()))
    return found


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
