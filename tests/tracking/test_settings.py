"""The settings in a trial's run are those with which it reached its best value."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Param

from hfsuite.reproduce import recorded as records
from hfsuite.reproduce.plan import differences
from hfsuite.reproduce.surroundings import counting, recorded
from hfsuite.tracking import describe, runs, settings, store, views
from hfsuite.tracking.logged import Logged
from hfsuite.tracking.record import TrialRecord
from hfsuite.tracking.recorder import Recorder
from hfsuite.tracking.state import TrialState
from hfsuite.tracking.sync import sync
from tests.tracking import made

FIRST = {"x": 0.607, "kind": "plain", "api_key": "hunter2", "address": "https://me:hunter2@example.org/a"}
SPACE = {"workers": 2, "space": {"x": "0 to 1", "kind": "one of plain, fancy"}}


def member(directory: Any, state: TrialState, **changes: Any) -> TrialRecord:
    """Of a population: it made its best report, the second, with other settings than the first and the last."""
    values = [FIRST, {**FIRST, "x": 0.813, "kind": "fancy"}, {**FIRST, "x": 0.9}]
    reports = [
        made.report(place, 10 * place, loss, config)
        for place, (loss, config) in enumerate(zip([0.9, 0.5, 0.7], values, strict=True), start=1)
    ]
    best = made.best(reports)
    assert best is not None
    best.changed = {"x": 0.813, "kind": "fancy"}
    return made.trial(directory, 0, reports, state, config=FIRST, searched=["x", "kind"], best=best, **changes)


def test_a_members_parameters_name_and_place_are_those_of_its_best_value(
    own_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hfsuite.cli import main

    directory, sweep = made.sweep(params=SPACE, decides_at_end=True)
    record = member(directory, TrialState.RUNNING)
    client = store.open_store()
    recorder = Recorder(client, directory)
    recorder.settle_trial(sweep, record)
    run = client.get_run(str(recorder.run_id(record.trial_id)))
    assert "x" not in run.data.params, "it cannot be taken back"
    assert run.data.params["num_workers"] == "2"
    assert settings.read(run)["x"] == "0.813"
    assert "hunter2" not in json.dumps([run.data.tags, settings.read(run)])

    directory.write_trial(replace(record, state=TrialState.COMPLETED, ended_at=made.now()))
    directory.write_sweep(replace(sweep, state=TrialState.COMPLETED, ended_at=made.now(), best=0))
    assert sync(directory).faults == []
    run = client.get_run(run.info.run_id)
    assert (run.data.params["x"], run.data.params["kind"]) == ("0.813", "fancy")
    assert "x=0.813 kind=fancy" in run.info.run_name
    parent = runs.find_sweep(client, "made")
    assert parent is not None
    assert "| 0.813 | fancy |" in parent.data.tags["mlflow.note.content"]
    with pytest.raises(SystemExit, match="0"):
        main(["best", "--json"])
    assert json.loads(capsys.readouterr().out)["config"]["x"] == 0.813


def test_a_run_is_found_by_the_number_that_its_trial_has_in_the_table(own_directory: Path) -> None:
    directory, sweep = made.sweep(params=SPACE)
    record = made.trial(directory, 5, [made.report(1, 10, 0.9)])
    assert describe.trial(sweep, record) == "005 · x=0.5 · 0.9"
    assert describe.trial(sweep, replace(record, searched=[], best=None)) == "005"
    many = {f"setting_{n}": 0.123 for n in range(50)}
    name = describe.trial(sweep, replace(record, config=many, searched=list(many)))
    assert name.startswith("005 · s0=0.123 ")
    assert name.endswith(" · 0.9")
    assert len(name) < 150
    assert describe.trial(replace(sweep, kind="train"), record) == "made"


def test_a_trial_without_changes_is_described_by_what_it_began_with(own_directory: Path) -> None:
    directory, sweep = made.sweep(params=SPACE)
    record = member(directory, TrialState.COMPLETED)
    assert record.best is not None
    assert "x=0.813 kind=fancy" in describe.trial(sweep, record)
    assert "x=0.607 kind=plain" in describe.trial(sweep, replace(record, best=replace(record.best, changed={})))
    (again,) = directory.read_trials()
    assert again.config_at_best["x"] == 0.813
    old = json.loads(Path(directory.path, record.directory, "trial.json").read_text())
    del old["best"]["changed"], old["format"]
    assert TrialRecord.from_json(old).config_at_best["x"] == 0.607, "as versions before have written it"


def test_a_setting_that_does_not_count_is_no_parameter_and_differs_from_none(own_directory: Path) -> None:
    directory, _ = made.sweep(params=SPACE, state="completed", ended_at=made.now(), best=0)
    values = {"kind": ["plain", "fancy"], "x": [0.5, 0.7]}
    for number, (kind, x) in enumerate(zip(*values.values(), strict=True)):
        idle = ["x"] if kind == "plain" else []
        searched = [name for name in ("x", "kind") if name not in idle]
        made.trial(
            directory, number, [made.report(1, 10, 0.5 + number)], config={"x": x, "kind": kind}, searched=searched,
            idle=idle,
        )  # fmt: skip
    assert sync(directory).faults == []
    client = store.open_store()
    parent = runs.find_sweep(client, "made")
    assert parent is not None
    plain, fancy = runs.children(client, parent)
    assert ("x" in plain.data.params, fancy.data.params["x"]) == (False, "0.7")
    assert (plain.info.run_name, fancy.info.run_name) == ("000 · kind=plain · 0.5", "001 · x=0.7 kind=fancy · 1.5")
    assert "| 000 | 0.5 | 10 | completed | plain | - |" in parent.data.tags["mlflow.note.content"]
    view = client.get_experiment(parent.info.experiment_id).tags[views.PREFIX + views.view_id("made")]
    packed = json.loads(view)["state"].removeprefix("deflate;")
    shown = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert {"params.`x`", "params.`kind`"} <= set(shown["selectedColumns"])
    assert shown["compareRunCharts"][0]["selectedParams"] == ["kind"], "MLflow draws no run that lacks an axis"
    logged = Logged(plain, set(), print)
    assert logged.admitted([], [Param("x", "0.5")], [])[1] == [], "what a training function logs of it is known"
    ours, theirs = (records.read(client, each, whole=False) for each in (plain, fancy))
    found = differences(*(replace(recorded(each), config=counting(each)) for each in (ours, theirs)))
    assert ("x", "does not count", "0.7") in [(each.subject, each.recorded, each.here) for each in found]
    assert ours.recipe["config"]["x"] == 0.5, "it takes all of them to train it again"
