"""A loss is the same on any number of workers and for any size of batches, or it is said what it depends on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.trainers import losses_in_ranks as ranks
from tests.trainers.in_ranks import found_on

Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    """On one worker (this process) in batches of four rows and of one, and on two."""
    ways = ((1, 4, 4), (1, 1, 2), (2, 1, 1))  # workers, rows of the largest batch in training, in evaluation
    directory = tmp_path_factory.mktemp("losses")
    return [
        found_on(workers, ranks.all_losses, directory, largest=largest, evaluated=evaluated)
        for workers, largest, evaluated in ways
    ]


@pytest.mark.parametrize("name", ranks.MEANS)
def test_a_mean_is_the_same(losses: list[Found], name: str) -> None:
    first, *others = [each[name] for each in losses]
    assert "eval_loss_depends_on" not in first
    for other in others:
        assert other["eval_loss"] == pytest.approx(first["eval_loss"], rel=1e-5)
        assert other["losses"] == pytest.approx(first["losses"], rel=1e-5)
        assert other["loss_is_mean_over"] == first["loss_is_mean_over"]
        assert "eval_loss_depends_on" not in other
    for each in (first, *others):
        assert each["eval_loss"] == pytest.approx(each["of all at once"], rel=1e-5), "by the user's class alone"


@pytest.mark.parametrize("name", ranks.AS_TRANSFORMERS_DIVIDES)
def test_a_step_that_divides_as_transformers_does_is_the_same(losses: list[Found], name: str) -> None:
    first, *others = [each[name] for each in losses]
    for other in others:
        assert other["losses"] == pytest.approx(first["losses"], rel=1e-5)
        assert other["eval_loss"] == pytest.approx(first["eval_loss"], rel=1e-5)
        assert "perhaps" in other["eval_loss_depends_on"]


@pytest.mark.parametrize("name", ranks.OTHERS)
def test_what_is_no_mean_is_told_alike(losses: list[Found], name: str) -> None:
    assert len({each[name]["eval_loss_depends_on"] for each in losses}) == 1
    assert len({each[name]["loss_is_mean_over"] for each in losses}) == 1


def test_a_users_class_is_not_touched_by_what_is_only_tried(losses: list[Found]) -> None:
    # Two steps of four rows, in batches of four; an evaluation of nine, likewise.
    assert losses[0]["counting"]["left"] == 2 + 3
