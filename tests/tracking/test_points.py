"""From reports to points and tags."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

from hfsuite.report import EARLIER
from hfsuite.tracking.names import mlflow_name
from hfsuite.tracking.points import SUPERSEDED, Points, current, numbers
from tests.tracking.made import BEGAN, report


def all_of(points: Points, *reports: dict[str, Any]) -> list[tuple[str, float, int, int]]:
    found = []
    for each in reports:
        points.add(each)
        found += points.settled(before=0)
    return found


def named(points: list[tuple[str, float, int, int]], name: str) -> list[tuple[int, float]]:
    return [(step, value) for each, value, _, step in points if each == name]


def test_numbers_are_metrics_at_their_step_and_all_else_is_a_tag() -> None:
    points = Points()
    found = all_of(points, report(1, 30, 0.5, text="no", flag=True, nested={"f1": 1}, classes=["a", "b"], none=None))
    assert {(name, value, step) for name, value, _, step in found} == {
        ("loss", 0.5, 30), ("step", 30.0, 30), ("training_iteration", 1.0, 30), ("time_total_s", 0.5, 30),
        ("nested.f1", 1.0, 30),
    }  # fmt: skip
    assert {moment for _, _, moment, _ in found} == {(BEGAN + 10) * 1_000}, "the time of the report, not of the writing"
    assert points.tags == {"reported.text": "no", "reported.flag": "True", "reported.classes": '["a", "b"]'}


def test_what_was_logged_between_two_reports_has_its_own_step() -> None:
    logged = [{"step": 5, "loss": 0.9, "learning_rate": 1e-3}, {"step": 7, "loss": 0.8}]
    found = all_of(Points(), report(1, 10, 0.5, **{EARLIER: logged}))
    assert sorted(named(found, "loss")) == [(5, 0.9), (7, 0.8), (10, 0.5)]
    assert named(found, "learning_rate") == [(5, 1e-3)]


def test_infinity_is_told_from_nan() -> None:
    points = Points()
    found = all_of(points, report(1, 1, math.inf), report(2, 2, math.nan), report(3, 3, -math.inf))
    assert all(math.isnan(value) for _, value in named(found, "loss")), "infinity would be 1.8e308 in MLflow"
    assert points.tags["infinite.loss"] == "+inf at step 1, -inf at step 3"


def test_a_trial_that_went_back_writes_no_point_twice_and_marks_what_was_superseded() -> None:
    points = Points()
    first = [report(n, 10 * n, 1 / n) for n in (1, 2, 3, 4)]
    again = report(3, 30, 1 / 3, time_total_s=9.0), report(4, 40, 0.2), report(5, 50, 0.1)
    found = all_of(points, *first, *again)
    assert named(found, "loss") == [(10, 1.0), (20, 0.5), (30, 1 / 3), (40, 0.25), (40, 0.2), (50, 0.1)]
    assert [step for step, _ in named(found, "time_total_s")] == [10, 20, 30, 40, 50]
    marked = json.loads(points.tags[SUPERSEDED])
    assert marked == [{"after_step": 20, "to_step": 40, "before": (BEGAN + 30) * 1_000}]


def test_what_no_checkpoint_has_followed_waits_and_is_forgotten_if_the_trial_goes_back() -> None:
    points = Points()
    first = [report(1, 10, 1.0), *(report(n, 10 * n, 1 / n, should_checkpoint=False) for n in (2, 3))]
    assert named(all_of(points, *first), "loss") == [(10, 1.0)]
    assert points.is_holding
    again = report(2, 20, 0.4, should_checkpoint=False), report(3, 30, 0.3)
    assert named(all_of(points, *again), "loss") == [(20, 0.4), (30, 0.3)]
    assert SUPERSEDED not in points.tags
    points.add(report(4, 40, 0.2, should_checkpoint=False))
    assert points.settled(before=(BEGAN + 40) * 1_000) == []
    assert named(points.settled(before=(BEGAN + 41) * 1_000), "loss") == [(40, 0.2)], "it is old enough"


def test_what_is_known_already_is_not_written_again() -> None:
    reports = [report(n, 10 * n, 1 / n, same=1) for n in (1, 2, 3)]
    known: dict[tuple[str, int], set[str]] = {}
    for name, value, _, step in all_of(Points(), *reports[:2]):
        known.setdefault((name, step), set()).add(repr(value))
    assert {step for _, _, _, step in all_of(Points(known), *reports)} == {30}


def test_settings_that_a_population_changes_are_curves_and_tags() -> None:
    points = Points()
    configs: list[dict[str, Any]] = [
        {"lr": 0.1, "kind": "a"}, {"lr": 0.1, "kind": "a"}, {"lr": 0.3, "kind": "b"}, {"lr": 0.2, "kind": "b"},
    ]  # fmt: skip
    found = all_of(points, *(report(n + 1, 10 * (n + 1), 0.5, config) for n, config in enumerate(configs)))
    assert named(found, "config.lr") == [(0, 0.1), (30, 0.3), (40, 0.2)]
    assert points.tags["config.kind"] == "a (step 0) → b (step 30)"


def test_the_last_word_at_each_step_is_current_and_nothing_beyond_the_end() -> None:
    history = [
        SimpleNamespace(step=step, timestamp=at, value=value)
        for step, at, value in ((1, 1, 0.9), (2, 2, 0.8), (3, 3, 0.7), (2, 4, 0.6), (9, 3, 0.1))
    ]
    assert [(each.step, each.value) for each in current(history, last_step=3)] == [(1, 0.9), (2, 0.6), (3, 0.7)]


def test_names_that_mlflow_refuses_are_changed_to_near_ones() -> None:
    refused = ("recall@5", "f1%", "../up", "/top", "a" * 300, "fine/loss", "lr (max)")
    assert [mlflow_name(name) for name in refused] == [
        "recall_5", "f1_", "_up", "_top", "a" * 250, "fine/loss", "lr _max_",
    ]  # fmt: skip
    assert numbers(report(1, 1, 0.5, **{"recall@5": 1}))["recall@5"] == 1.0, "but for MLflow a metric keeps its name"
