"""Names that are one in MLflow: no value stands for another, whatever is reported when, live and in a later sync."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from hfsuite.tracking import runs, store
from hfsuite.tracking.names import NAME_LIMIT, Names, flat, with_mark
from hfsuite.tracking.points import Points, numbers
from hfsuite.tracking.recorder import Recorder
from hfsuite.tracking.state import TrialState
from hfsuite.tracking.sync import sync
from tests.tracking import made

LONG = "a" * NAME_LIMIT
MEET: list[dict[str, Any]] = [
    {"recall_1": 1.0, "recall@1": 2.0},
    {"f1(macro)": 1.0, "f1[macro]": 2.0},
    {"a.b": 1.0, "a": {"b": 2.0}},
    {f"{LONG}b": 1.0, f"{LONG}c": 2.0},
    {"a.b": 1.0, "a": {"b": 2.0, "b@": 5.0}, "a@b": 3.0, "a(b": 4.0, "a.b_": 6.0},
]


def written(*reports: dict[str, Any], metric: str = "loss") -> dict[tuple[str, int], float]:
    points = Points(metric=metric)
    for each in reports:
        points.add(each)
    found = points.settled(before=0)
    named = {(name, step): value for name, value, _, step in found}
    assert len(named) == len(found), "no two values have one name at one step"
    return named


@pytest.mark.parametrize("meeting", MEET)
def test_values_that_meet_are_all_there_in_whatever_order_they_are_reported(meeting: dict[str, Any]) -> None:
    first = written(made.report(1, 10, 0.5, **meeting))
    assert set(flat(meeting).values()) <= set(first.values())
    for order in itertools.islice(itertools.permutations(meeting), 24):
        assert written(made.report(1, 10, 0.5, **{name: meeting[name] for name in order})) == first
    assert all(len(name) <= NAME_LIMIT for name, _ in first)
    assert set(flat(meeting).values()) <= set(numbers(made.report(1, 10, 0.5, **meeting)).values())


def test_a_name_that_comes_later_has_the_mark_and_keeps_it() -> None:
    found = written(
        made.report(1, 10, 0.5, **{"recall@1": 1.0}),
        made.report(2, 20, 0.5, recall_1=2.0),
        made.report(3, 30, 0.5, **{"recall_1": 3.0, "recall@1": 4.0}),
    )
    mark = with_mark("recall_1", ("recall_1",))
    assert {each: value for each, value in found.items() if each[0].startswith("recall")} == {
        ("recall_1", 10): 1.0, (mark, 20): 2.0, (mark, 30): 3.0, ("recall_1", 30): 4.0,
    }  # fmt: skip


@pytest.mark.parametrize("metric", ["recall@1", "recall_1", "a.b", f"{LONG}c"])
def test_what_is_optimised_keeps_the_plain_name_and_so_does_its_best(metric: str) -> None:
    others = {"recall@1": 1.0, "recall_1": 2.0, "a": {"b": 3.0}, f"{LONG}b": 4.0, f"best_{metric}": 5.0}
    found = written(made.report(1, 10, 0.5, **others), made.report(2, 20, 0.5, **{metric: 6.0}), metric=metric)
    plain = Names()
    assert found[plain.of((metric,)), 20] == 6.0
    assert (Names().of((f"best_{metric}",)), 10) not in found
    assert {1.0, 2.0, 3.0, 4.0, 5.0} - {others.get(metric)} <= set(found.values())
    assert numbers(made.report(1, 10, 0.5, **others), metric).get("a.b") is (None if metric == "a.b" else 3.0)


def test_texts_and_infinities_that_meet_are_tags_of_their_own() -> None:
    points = Points()
    points.add(made.report(1, 10, 0.5, **{"kind@1": "x", "kind_1": "y", f"{LONG}b": "z", f"{LONG}c": "w"}))
    assert points.tags["reported.kind_1"] == "y"
    assert sorted(points.tags.values()) == ["w", "x", "y", "z"]
    assert all(len(name) <= NAME_LIMIT for name in points.tags), "MLflow refuses longer ones"
    points.add(made.report(2, 20, 0.5, **{"gap@": float("inf"), "gap_": float("-inf")}))
    infinite = {text for name, text in points.tags.items() if name.startswith("infinite.gap_")}
    assert infinite == {"+inf at step 20", "-inf at step 20"}


def test_what_meets_is_in_mlflow_whole_and_said_once(own_directory: Path) -> None:
    directory, sweep = made.sweep(metric="recall@1", params={"workers": 2, "space": {"lr@": "0 to 1", "lr_": "0 to 1"}})
    reports = [
        made.report(n, 10 * n, 0.5, **{"recall_1": n, "recall@1": n / 2, "a.b": 3, "a": {"b": 4}}) for n in (1, 2)
    ]
    config = {"lr@": 1, "lr_": 2, "g.h": 3, "g": {"h": 4}, f"{LONG}b": 5, f"{LONG}c": 6, "num_workers": 7}
    record = made.trial(directory, 0, reports, TrialState.RUNNING, config=config, searched=["lr@", "lr_"], kept=[])
    record.best = made.checkpoint(directory, record, "checkpoint_one", step=20)
    record.best.metrics = numbers(reports[1], "recall@1")
    record.saved = record.kept = [record.best]
    record.state, record.ended_at = TrialState.COMPLETED, made.now()
    directory.write_trial(record)
    sweep.state, sweep.ended_at, sweep.best = TrialState.COMPLETED, made.now(), 0
    directory.write_sweep(sweep)

    client = store.open_store()
    live = Recorder(client, directory)
    live.settle_sweep(sweep)
    live.settle_trial(sweep, record)
    live.settle_sweep(sweep)
    assert live.take_faults() == []
    mark = with_mark("recall_1", ("recall_1",))
    assert f"{mark} is recall_1" in " ".join(live.remarks)
    for _ in range(2):
        assert sync(directory).faults == []
        parent = runs.find_sweep(client, "made")
        assert parent is not None
        (run,) = runs.children(client, parent)
        (model,) = client.search_logged_models([run.info.experiment_id])
        nested = with_mark("a.b", ("a", "b"))
        for metrics in (run.data.metrics, parent.data.metrics, {each.key: each.value for each in model.metrics}):
            assert {name: metrics[name] for name in ("recall_1", mark, "a.b", nested)} == {
                "recall_1": 1.0, mark: 2.0, "a.b": 3.0, nested: 4.0,
            }  # fmt: skip
        assert [each.value for each in client.get_metric_history(run.info.run_id, mark)] == [1.0, 2.0]
        params = run.data.params
        assert {"1", "2", "3", "4", "5", "6", "7"} <= set(params.values())
        assert (params["lr_"], params["g.h"], params["num_workers"]) == ("2", "3", "2")
        assert set(model.params.values()) == {"1", "2"}
        assert set(model.params) <= set(params)
        assert f"{mark} is recall_1" in run.data.tags[runs.MARKED]
        assert {name for name in parent.data.params if name.startswith("space.")} == {
            "space.lr_", with_mark("space.lr_", ("space", "lr@")),
        }  # fmt: skip
