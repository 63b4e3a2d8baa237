"""Losses, rows and steps are the same on any number of workers, with any division into batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.ranks import numbers_in_ranks as ranks
from tests.trainers.in_ranks import found_on

Numbers = dict[int, dict[str, Any]]
EXACT = 1e-6


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Numbers:
    return {workers: found_on(workers, ranks.all_cases, tmp_path_factory.mktemp("on")) for workers in (1, 2)}


def test_a_training_without_dropout_is_the_same(numbers: Numbers) -> None:
    _check_trainings(numbers)


def test_an_epoch_deals_each_row_once(numbers: Numbers) -> None:
    _check_rows(numbers)


def test_evaluations_are_exact(numbers: Numbers) -> None:
    _check_evaluations(numbers)


def test_a_loop_with_accelerate_is_the_same(numbers: Numbers) -> None:
    _check_loops(numbers)


@pytest.mark.slow
def test_four_workers_compute_the_same(numbers: Numbers, tmp_path: Path) -> None:
    with_four = {1: numbers[1], 4: found_on(4, ranks.all_cases, tmp_path)}
    for check in (_check_trainings, _check_rows, _check_evaluations, _check_loops):
        check(with_four)


def test_accumulation_changes_nothing(numbers: Numbers) -> None:
    for found in numbers.values():
        assert found["140 accumulated"]["losses"] == pytest.approx(found["140"]["losses"], abs=1e-5)
        assert found["140 accumulated"]["eval_loss"] == pytest.approx(found["140"]["eval_loss"], abs=1e-5)
        assert found["140 accumulated"]["steps"] == found["140"]["steps"]


def test_what_is_not_a_number_is_shown_as_such(numbers: Numbers) -> None:
    for found in numbers.values():
        first, *others = found["nan"]["losses"]
        assert first == first
        assert all(loss != loss for loss in others)
        assert found["nan"]["eval_loss"] != found["nan"]["eval_loss"]


def test_each_rank_has_its_own_dropout(numbers: Numbers) -> None:
    first, second = numbers[2]["loop with dropout"]["masks"]
    assert first != second


def _check_trainings(numbers: Numbers) -> None:
    one, several = numbers.values()
    for case in ("tagger 1", "tagger 4"):
        assert several[case]["losses"] == pytest.approx(one["tagger 1"]["losses"], abs=1e-5), case
        assert several[case]["eval_loss"] == pytest.approx(one["tagger 1"]["eval_loss"], abs=1e-5), case
    for case in ("trained, streamed", "trained, dispatched", "trained, streamed, accumulated"):
        for found in (one, several):
            assert found[case]["steps"] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]] * 2, case
            assert found[case]["losses"] == pytest.approx(one["trained, streamed"]["losses"], abs=1e-5), case
    for case in ("128", "130", "140", "140 accumulated", "130 dropped", "by length", "in turn"):
        assert several[case]["losses"] == pytest.approx(one[case]["losses"], abs=1e-5), case
        assert several[case]["eval_loss"] == pytest.approx(one[case]["eval_loss"], abs=1e-5), case
        assert several[case]["steps"] == one[case]["steps"], case
        assert several[case]["rows_trained"] == one[case]["rows_trained"], case


def _check_rows(numbers: Numbers) -> None:
    for found in numbers.values():
        for case, count, epochs in [("128", 128, 2), ("130", 130, 2), ("140 accumulated", 140, 2), ("in turn", 130, 1),
                                    ("by length", 200, 1), ("by length, dropout", 128, 2)]:  # fmt: skip
            steps = found[case]["steps"]
            an_epoch = len(steps) // epochs
            for epoch in range(epochs):
                dealt = [row for step in steps[epoch * an_epoch : (epoch + 1) * an_epoch] for row in step]
                assert sorted(dealt) == list(range(count)), f"{case}, epoch {epoch}"
            assert all(len(step) == ranks.GLOBAL_BATCH for step in steps[: an_epoch - 1])
            assert found[case]["rows_trained"] == count * epochs
        assert all(len(step) == ranks.GLOBAL_BATCH for step in found["130 dropped"]["steps"])
        assert steps[:an_epoch] != steps[an_epoch : 2 * an_epoch], "each epoch has an order of its own"


def _check_evaluations(numbers: Numbers) -> None:
    tokens = numbers[1]["language model 1"]["eval_loss"]
    rows = numbers[1]["classifier 2"]["eval_loss"]
    for found in numbers.values():
        for size in (1, 2, 4, 8):
            assert found[f"language model {size}"]["eval_loss"] == pytest.approx(tokens, rel=EXACT), size
        for size in (2, 4, 8):
            for case in (f"classifier {size}", f"knowing classifier {size}"):
                assert found[case]["eval_loss"] == pytest.approx(rows, rel=EXACT), case
                assert found[case]["labels"] == ranks.sentences(9)["labels"], "in the order of the rows"
        assert found["generated"] == 21
        for case in ("streamed", "dispatched"):
            assert found[case]["rows"] == 9
            assert found[case]["eval_loss"] == pytest.approx(numbers[1]["streamed"]["eval_loss"], rel=EXACT)


def _check_loops(numbers: Numbers) -> None:
    one, several = numbers.values()
    for case in ("loop, streamed", "loop, dispatched"):
        for found in (one, several):
            assert found[case]["steps"] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]], case
            assert found[case]["weight"] == pytest.approx(one["loop, streamed"]["weight"], abs=1e-6), case
    for case, count in (("loop 128", 128), ("loop 130", 130), ("loop 140 accumulated", 140)):
        assert several[case]["eval_loss"] == pytest.approx(one[case]["eval_loss"], abs=1e-5), case
        for found in (one, several):
            assert [sorted(epoch) for epoch in found[case]["rows"]] == [list(range(count))] * 2
            assert found[case]["evaluated"] == 50
