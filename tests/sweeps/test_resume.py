"""A sweep that was interrupted, in whatever way and at whatever moment, is taken up again and loses nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import BasicVariantGenerator

from hfsuite.errors import ConfigurationError, UnknownName
from hfsuite.sweeps import tune_state
from hfsuite.sweeps.job import Job
from hfsuite.sweeps.request import Request
from hfsuite.tracking import runs, store
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.sync import sync
from hfsuite.tracking.writer import Writer
from tests import program, toy

REPORTS, TRIALS = 40, 4


def start(name: str = "cut", reports: int = REPORTS, **environment: str) -> Any:
    return program.hfsuite(
        "sweep", "tests.toy", "--trials", str(TRIALS), "--trial-scheduler", "fifo", "--searcher", "random",
        "--workers", "1", "--name", name, "--set", f"reports={reports}", "--set", f"diary={Path('diary').absolute()}",
        **environment,
    )  # fmt: skip


def logged(number: int, name: str = "cut") -> dict[int, float]:
    """The losses that Ray Tune has of a trial, by their steps: of a step that was trained again the last."""
    lines = Path("results", name, f"trial_{number:03d}", "result.json").read_text().splitlines()
    return {report["step"]: report["loss"] for report in map(json.loads, lines)}


def check_records(name: str = "cut") -> None:
    """Runs equal trials, every point is there once, every state is right, every kept checkpoint is there."""
    client = store.open_store()
    parent = runs.find_sweep(client, name)
    assert parent is not None
    experiment = parent.info.experiment_id
    trials = runs.children(client, parent)
    assert len(client.search_runs([experiment], f"tags.`{runs.SWEEP}` = '{name}'")) == 1 + TRIALS
    assert (parent.info.status, parent.data.tags[runs.STATE]) == ("FINISHED", "completed")
    assert [run.data.tags[runs.STATE] for run in trials] == ["completed"] * TRIALS
    for number, run in enumerate(trials):
        history = client.get_metric_history(run.info.run_id, "loss")
        assert max(Counter(point.step for point in history).values()) == 1, run.info.run_name
        assert {point.step: point.value for point in history} == logged(number, name)
        assert sorted(logged(number, name)) == [10 * step for step in range(1, REPORTS + 1)]
    records = SweepDirectory.at("results", name).read_trials()
    kept = {f"{each.directory}/{one.directory}" for each in records for one in each.kept}
    there = {str(path.relative_to(Path("results", name))) for path in Path("results", name).glob("trial_*/check*_0*")}
    assert len(kept) == 3
    assert there == kept
    models = client.search_logged_models([experiment])
    assert {f"trial_{int(model.tags[runs.TRIAL]):03d}/{model.tags['hfsuite.directory']}" for model in models} == kept
    assert {str(model.status) for model in models} == {"READY"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_goes_on_where_it_was_interrupted(own_directory: Path, number: signal.Signals) -> None:
    sweep = start()
    program.wait_for(lambda: program.has_lines(own_directory / "diary", 30), sweep)
    sweep.send_signal(number)
    _, err = program.output(sweep)
    if number == signal.SIGTERM:
        assert "Take the sweep up again: hfsuite resume cut" in err
    program.wait_for_free_cpus()
    for path in Path("results", "cut").glob("experiment_state-*.json"):
        os.truncate(path, 1_000)  # Ray Tune copies its state over the one before: a kill can leave half of it
    before = len(toy.read(own_directory / "diary"))

    result = toy.experiment.resume()
    assert [trial.iterations for trial in result.trials] == [REPORTS] * TRIALS
    assert result.exit_code == 0
    assert result.tracking_fault is None
    resumed = [entry for entry in toy.read(own_directory / "diary")[before:] if entry["resumed_from"]]
    assert resumed, "what had run goes on from its checkpoint"
    check_records()
    with pytest.raises(UnknownName, match=r"no sweep that was interrupted in .*results\. Known: cut\."):
        toy.experiment.resume()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "damaged", "of another kind"])
def test_a_state_that_cannot_be_read_is_not_taken_for_an_empty_one(own_directory: Path, damage: str) -> None:
    toy.experiment.sweep(
        trials=2, searcher="random", trial_scheduler="fifo", workers=1, name="whole", set={"reports": 2}
    )
    state = Path("results", "whole", tune_state.STATE_FILE)
    if damage == "missing":
        state.unlink()
    elif damage == "damaged":
        os.truncate(state, 100)
    else:
        with zipfile.ZipFile(state, "w") as archive:
            archive.writestr("experiment_state-9.json", "{}")
    with pytest.raises(ConfigurationError, match=rf"{damage}|cannot take the sweep up again.*\bKeyError"):
        toy.experiment.resume("whole")
    assert len(list(Path("results", "whole").glob("trial_*"))) == 2
    assert str(SweepDirectory.at("results", "whole").read_sweep().state) == "completed", "as it was"
    run = runs.find_sweep(store.open_store(), "whole")
    assert run is not None
    assert (run.info.status, run.data.tags[runs.STATE]) == ("FINISHED", "completed")


@pytest.mark.slow
def test_trials_that_had_not_begun_keep_their_names(own_directory: Path) -> None:
    asked = [
        "sweep", "tests.toy", "--trials", "6", "--trial-scheduler", "fifo", "--searcher", "random", "--workers", "2",
        "--name", "early", "--set", "reports=3",
    ]  # fmt: skip
    sweep = program.hfsuite(*asked)
    program.wait_for(Path("results/early", tune_state.STATE_FILE).exists, sweep)
    sweep.kill()
    sweep.communicate()
    program.wait_for_free_cpus()
    result = toy.experiment.resume("early")
    assert [trial.number for trial in result.trials] == list(range(6))
    for record in SweepDirectory.at("results", "early").read_trials():
        lines = Path("results/early", record.directory, "result.json").read_text().splitlines()
        assert {json.loads(line)["trial_id"] for line in lines} == {record.trial_id}


def test_another_experiments_sweep_is_not_taken_up(own_directory: Path) -> None:
    from tests.tracking import made

    made.sweep("theirs", experiment="digits")
    with pytest.raises(ConfigurationError, match=r"'theirs' is of the experiment digits, not"):
        toy.experiment.resume("theirs")


def test_whoever_does_not_wait_for_mlflow_has_the_sweep(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "finish", interrupted)
    result = toy.experiment.sweep(trials=1, workers=1, searcher="random", set={"reports": 1}, name="impatient")
    assert result.exit_code == 0
    assert "it was not waited for. Fill it in later: hfsuite sync impatient" in (result.tracking_fault or "")
    assert str(SweepDirectory.at("results", "impatient").read_sweep().state) == "completed"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_driver_killed_at_any_moment_loses_nothing(own_directory: Path) -> None:
    chance = random.Random(7)
    sweep, hits = start(), 0
    for _ in range(10):
        time.sleep(chance.uniform(2, 14))
        hits += sweep.poll() is None
        sweep.kill()
        sweep.communicate()
        program.wait_for_free_cpus()
        if chance.random() < 0.5 and SweepDirectory.at("results", "cut").exists:
            sync(SweepDirectory.at("results", "cut"))
        started = SweepDirectory.at("results", "cut").exists
        sweep = program.hfsuite("resume") if started else start()
    assert hits >= 5, "a kill of what has ended shows nothing"
    out, err = program.output(sweep, timeout_s=300)
    if "no sweep that was interrupted" not in err:
        assert sweep.returncode == 0, (out, err)
    program.wait_for_free_cpus()
    for _ in range(3):
        sync(SweepDirectory.at("results", "cut"))
        check_records()


@pytest.mark.slow
def test_a_sweep_that_is_run_is_not_run_twice(own_directory: Path) -> None:
    sweep = start(reports=100_000)
    program.wait_for(lambda: program.has_lines(own_directory / "diary", 5), sweep)
    for command in ("resume", "sync"):
        second = program.hfsuite(command, "cut")
        _, err = program.output(second)
        assert second.returncode == 2, err
        assert f"is being run by process {sweep.pid}" in err
        assert "Traceback" not in err
    sweep.send_signal(signal.SIGINT)
    program.output(sweep)
    assert sweep.returncode == 130


@pytest.mark.slow
def test_failed_trials_stay_failed_unless_they_shall_be_tried_again(own_directory: Path) -> None:
    marker = own_directory / "failed"
    options = {"reports": 3, "fails_at": 2, "fails_once": str(marker)}
    first = toy.experiment.sweep(trials=1, workers=1, searcher="random", set=options, name="failing")
    assert [str(trial.state) for trial in first.trials] == ["failed"]
    again = toy.experiment.resume("failing")
    assert [str(trial.state) for trial in again.trials] == ["failed"]
    assert "asked to fail" in (again.trials[0].failure or "")
    tried = toy.experiment.resume("failing", retry_failed=True)
    assert [(str(trial.state), trial.iterations) for trial in tried.trials] == [("completed", 3)]
    assert tried.trials[0].run_id == first.trials[0].run_id


def test_what_could_not_be_written_down_must_be_given_again(own_directory: Path) -> None:
    directory = SweepDirectory.at("results", "objects")
    from tests.tracking import made

    asked = Job(toy.experiment, Request(searcher=BasicVariantGenerator())).arguments
    made.sweep("objects", experiment="toy", arguments=asked, params={"searcher": "HyperOptSearch"})
    with pytest.raises(ConfigurationError, match=r"a searcher of its own, HyperOptSearch, .*resume\(searcher=\.\.\.\)"):
        toy.experiment.resume("objects")
    with pytest.raises(UnknownName, match=r"There is no sweep 'object'.*Did you mean 'objects'"):
        toy.experiment.resume("object")
    assert directory.exists
