"""A loss is the same on any number of workers and for any size of batches, or it is said what it depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.ranks import losses_in_ranks as ranks
from tests.trainers.in_ranks import found_on

Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    return _losses(tmp_path_factory.mktemp("usual"), usual=True)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    return _losses(tmp_path_factory.mktemp("others"), usual=False)


def _losses(directory: Path, *, usual: bool) -> list[Found]:
    """On one worker (this process) in batches of four rows and of one, and on two."""
    ways = ((1, 4, 4), (1, 1, 2), (2, 1, 1))  # workers, rows of the largest batch in training, in evaluation
    return [
        found_on(workers, ranks.losses, directory, largest=largest, evaluated=evaluated, usual=usual)
        for workers, largest, evaluated in ways
    ]


@pytest.fixture
def of_loss(name: str, request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What a loss came to in each way."""
    return [found[name] for found in request.getfixturevalue("usual" if name in ranks.USUAL else "others")]


def named(losses: dict[str, Any]) -> list[Any]:
    return [pytest.param(name, marks=() if name in ranks.USUAL else pytest.mark.slow) for name in losses]


@pytest.mark.parametrize("name", named(ranks.MEANS))
def test_a_mean_is_the_same(of_loss: list[dict[str, Any]]) -> None:
    first, *others = of_loss
    assert "eval_loss_depends_on" not in first
    for other in others:
        assert other["eval_loss"] == pytest.approx(first["eval_loss"], rel=1e-5)
        assert other["losses"] == pytest.approx(first["losses"], rel=1e-5)
        assert other["loss_is_mean_over"] == first["loss_is_mean_over"]
        assert "eval_loss_depends_on" not in other
    for each in (first, *others):
        assert each["eval_loss"] == pytest.approx(each["of all at once"], rel=1e-5), "by the user's class alone"


@pytest.mark.parametrize("name", named(ranks.AS_TRANSFORMERS_DIVIDES))
def test_a_step_that_divides_as_transformers_does_is_the_same(of_loss: list[dict[str, Any]]) -> None:
    first, *others = of_loss
    for other in others:
        assert other["losses"] == pytest.approx(first["losses"], rel=1e-5)
        assert other["eval_loss"] == pytest.approx(first["eval_loss"], rel=1e-5)
        assert "perhaps" in other["eval_loss_depends_on"]


@pytest.mark.parametrize("name", named(ranks.OTHERS))
def test_what_is_no_mean_is_told_alike(of_loss: list[dict[str, Any]]) -> None:
    assert len({each["eval_loss_depends_on"] for each in of_loss}) == 1
    assert "perhaps" not in of_loss[0]["eval_loss_depends_on"], "it was found out"
    assert len({each["loss_is_mean_over"] for each in of_loss}) == 1


def test_a_users_class_is_not_touched_by_what_is_only_tried(usual: list[Found]) -> None:
    # Two steps of four rows, in batches of four; an evaluation of nine, likewise.
    assert usual[0]["counting"]["left"] == 2 + 3
