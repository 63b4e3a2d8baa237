"""Two runs side by side: by what each is judged, and what it came to in the end."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from hfsuite.reproduce.comparison import Best, best_of, side_by_side
from hfsuite.reproduce.recorded import RecordedRun
from tests.reproduce.test_verdict import run

CURVES = {"loss": {10: 0.9, 20: 0.5, 30: 0.7}, "eval_accuracy": {10: 0.1, 20: 0.6, 30: 0.8}, "learning_rate": {30: 0.0}}


def recorded(curves: Any = None, **recipe: Any) -> RecordedRun:
    whole = run()
    values = {"metric": "loss", "mode": "min", "best": None, **recipe}
    return replace(whole, curves=curves or CURVES, recipe={**whole.recipe, **values})


def test_numbers_are_those_of_the_best_report_and_the_last_ones_beside_them() -> None:
    other = recorded({"loss": {10: 0.9, 20: 0.8}, "eval_accuracy": {20: 0.3}}, best={"step": 20, "metrics": {}})
    loss, accuracy, rate = side_by_side(recorded(), other)
    assert (loss.name, loss.one, loss.other, loss.last_one, loss.last_other) == ("loss", 0.5, 0.8, 0.7, 0.8)
    assert (accuracy.one, accuracy.last_one, accuracy.other) == (0.6, 0.8, 0.3)
    assert (rate.one, rate.last_one) == (None, 0.0), "not reported with the best"
    assert (loss.apart_from, loss.common) == (20, 2)
    assert loss.ends_elsewhere
    assert not side_by_side(other, other)[0].ends_elsewhere


@pytest.mark.parametrize(
    ("recipe", "found"),
    [
        ({}, Best("loss", 20, 0.5)),
        ({"mode": "max"}, Best("loss", 10, 0.9)),
        ({"best": {"step": 30, "metrics": {"loss": 0.7}}}, Best("loss", 30, 0.7)),
        ({"metric": ""}, None),
        ({"metric": "never"}, None),
    ],
)
def test_the_best_report_is_the_recorded_one_or_the_best_of_the_curve(recipe: dict[str, Any], found: Any) -> None:
    assert best_of(recorded(**recipe)) == found


def test_what_is_no_number_is_never_best_and_somebody_elses_run_shows_its_last_values() -> None:
    assert best_of(recorded({"loss": {10: math.nan, 20: 0.4}})) == Best("loss", 20, 0.4)
    (loss, *_) = side_by_side(recorded(metric="", mode=None), recorded())
    assert (loss.one, loss.other) == (0.7, 0.5)
