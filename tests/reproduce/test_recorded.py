"""What MLflow has of a run: found by its names, and refused with a list if it is not enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfsuite.errors import NotRecorded, UnknownName
from hfsuite.reproduce import recorded as records
from hfsuite.tracking import store
from hfsuite.tracking.state import TrialState
from hfsuite.tracking.sync import sync
from tests import program
from tests.tracking import made


def test_a_run_is_found_by_its_id_and_by_its_place_in_a_sweep() -> None:
    directory, _ = made.sweep(state="completed", ended_at=made.now(), best=1)
    for number in range(2):
        made.trial(directory, number, [made.report(1, 10, 0.5)])
    sync(directory)
    client = store.open_store()
    second = records.find(client, "made:1").info.run_id
    for name in (second, second[:8], "made:best", "made:001"):
        assert records.find(client, name).info.run_id == second
    for name, message in {
        "made": "name a trial of it, made:best",
        "made:2": "no trial '2'",
        "mad:best": "Did you mean 'made'",
        "abcdef": "no run 'abcdef'",
        "abc": "too short",
    }.items():
        with pytest.raises(UnknownName, match=message):
            records.find(client, name)


def test_a_recorded_run_has_its_values_as_they_were() -> None:
    directory, _ = made.sweep(provenance={"packages": {"torch": "2"}, "python": "3.11", "source": "x = 1"})
    config = {"x": 0.1 + 0.2, "kind": "plain", "layers": [1, 2], "password": "hunter2"}
    made.trial(directory, 0, [made.report(1, 10, float("inf"), nan=float("nan"))], config=config)
    sync(directory)
    client = store.open_store()
    run = records.read(client, records.find(client, "made:0"))
    assert run.recipe["config"] == {"x": 0.30000000000000004, "kind": "plain", "layers": [1, 2], "password": "..."}
    assert run.curves["loss"] == {10: float("inf")}
    assert (run.packages, run.source) == ({"torch": "2"}, "x = 1")


def test_a_run_of_somebody_elses_is_refused_with_all_that_it_lacks(own_directory: Path) -> None:
    client = store.open_store()
    run = client.create_run(client.create_experiment("theirs"), run_name="a run")
    with pytest.raises(NotRecorded) as raised:
        records.read(client, run)
    for part in ("was not recorded by hfsuite", "recipe.json", "environment.json", "requirements.txt"):
        assert part in str(raised.value)
    said = program.hfsuite("reproduce", run.info.run_id)
    _, err = program.output(said)
    assert said.returncode == 2
    assert "was not recorded by hfsuite" in err
    assert "Traceback" not in err


def test_a_run_that_goes_on_is_refused_with_what_to_do() -> None:
    directory, _ = made.sweep(provenance={"packages": {"torch": "2"}})
    made.trial(directory, 0, [], state=TrialState.RUNNING)
    from hfsuite.tracking.recorder import Recorder

    client = store.open_store()
    recorder = Recorder(client, directory)
    for record in directory.read_trials():
        recorder.settle_trial(directory.read_sweep(), record)
    with pytest.raises(NotRecorded, match=r"is still running; if its driver has died, hfsuite sync made closes it"):
        records.read(client, records.find(client, "made:0"))


def test_any_two_runs_can_be_compared(own_directory: Path) -> None:
    import json

    directory, _ = made.sweep(provenance={"packages": {"torch": "2"}}, state="completed", ended_at=made.now())
    made.trial(directory, 0, [made.report(1, 10, 0.5)])
    sync(directory)
    client = store.open_store()
    theirs = client.create_run(client.create_experiment("theirs"), run_name="a run")
    client.log_param(theirs.info.run_id, "x", 0.7)
    client.log_metric(theirs.info.run_id, "loss", 0.4, step=10)
    said = program.hfsuite("diff", "made:0", theirs.info.run_id, "--json")
    out, err = program.output(said)
    assert said.returncode == 0, err
    found = json.loads(out)
    assert found["missing"][0] == []
    assert len(found["missing"][1]) == 3
    different = {each["subject"]: (each["recorded"], each["here"]) for each in found["differences"]}
    assert different["x"] == ("0.5", "0.7")
    (loss,) = [each for each in found["metrics"] if each["name"] == "loss"]
    assert (loss["one"], loss["other"], loss["apart_from"]) == (0.5, 0.4, 10)
    assert found["best"] == [{"metric": "loss", "step": 10, "value": 0.5}, None]
