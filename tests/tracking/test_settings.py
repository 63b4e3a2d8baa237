"""The settings in a trial's run are those with which it reached its best value."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hfsuite.tracking import describe, runs, settings, store
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
    assert json.loads(capsys.readouterr().out)["config"]["x"] == "0.813"


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
