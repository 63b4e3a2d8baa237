"""Stores that fail: servers with errors, resets, hangs, without an answer; a disk that is full."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import mlflow
import pytest
import requests

from hfsuite.errors import TrackingError
from hfsuite.tracking import runs, store, writer
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.recorder import Recorder
from hfsuite.tracking.state import TrialState
from hfsuite.tracking.sync import sync
from hfsuite.tracking.writer import Writer
from tests import program
from tests.tracking import made
from tests.tracking.faulty_proxy import Faults, faulty
from tests.tracking.stores import server

pytestmark = pytest.mark.slow
TRIALS, REPORTS = 4, 5


@pytest.fixture
def direct(own_directory: Path) -> Iterator[mlflow.MlflowClient]:
    """A client that asks the server itself."""
    with server(own_directory):
        yield store.open_store()


@pytest.fixture
def faults(direct: mlflow.MlflowClient) -> Iterator[Faults]:
    """What befalls everybody else, none of it yet."""
    befall = Faults()
    with (
        faulty(str(direct.tracking_uri), befall) as address,
        mock.patch.dict(os.environ, MLFLOW_TRACKING_URI=address, MLFLOW_HTTP_REQUEST_TIMEOUT="1"),
    ):
        yield befall


def swept() -> tuple[Any, Any]:
    directory, sweep = made.sweep(arguments={"keep": f"best:{TRIALS}"})
    for number in range(TRIALS):
        record = made.trial(directory, number, [made.report(n, 10 * n, 1 / n) for n in range(1, REPORTS + 1)])
        made.keep(
            directory, record, replace(made.checkpoint(directory, record, "checkpoint_one"), metrics={"loss": 1.0})
        )
    return directory, sweep


@contextmanager
def told_while_it_is_away(faults: Faults) -> Iterator[tuple[Writer, SweepDirectory]]:
    """The writer of a sweep whose server goes away before it hears of any trial."""
    directory, sweep = swept()
    with closing(Writer(Recorder(store.open_store(), directory), sweep)) as told:
        told.begin()
        faults.is_down = True
        for record in directory.read_trials():
            told.touch(record)
        yield told, directory


def check(client: mlflow.MlflowClient) -> None:
    parent = runs.find_sweep(client, "made")
    assert parent is not None
    experiment = parent.info.experiment_id
    assert len(client.search_runs([experiment])) == 1 + TRIALS
    trials = runs.children(client, parent)
    assert [run.data.tags[runs.STATE] for run in trials] == ["completed"] * TRIALS
    for run in trials:
        steps = Counter(point.step for point in client.get_metric_history(run.info.run_id, "loss"))
        assert steps == {10 * n: 1 for n in range(1, REPORTS + 1)}
    models = client.search_logged_models([experiment])
    assert sorted(model.source_run_id for model in models) == sorted(run.info.run_id for run in trials)
    assert {str(model.status) for model in models} == {"READY"}


def test_a_sixth_of_all_answers_are_errors_resets_or_late(direct: mlflow.MlflowClient, faults: Faults) -> None:
    directory, _ = swept()
    store.open_store()
    faults.errors, faults.resets, faults.hangs = 0.08, 0.08, 0.01
    assert sync(directory).faults == []
    assert faults.befell, "this has shown nothing"
    check(direct)
    assert sync(directory).faults == []
    check(direct)


def test_a_server_that_was_away_has_everything(
    direct: mlflow.MlflowClient, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LONGEST_WAIT_S", 1.0)
    with told_while_it_is_away(faults) as (told, _):
        while faults.befell < 3:
            time.sleep(0.1)
        faults.is_down = False
        assert told.finish() is None
    check(direct)


def test_a_server_that_never_comes_back_costs_a_line(direct: mlflow.MlflowClient, faults: Faults) -> None:
    with told_while_it_is_away(faults) as (told, directory):
        said = told.finish(patience_s=3)
    assert said is not None
    assert "MLflow has not recorded everything: it does not answer" in said
    with pytest.raises(TrackingError, match="does not answer"):
        sync(directory)
    faults.is_down = False
    sync(directory)
    check(direct)


def test_nobody_waits_for_a_slow_server(direct: mlflow.MlflowClient, faults: Faults) -> None:
    directory, sweep = swept()
    with closing(Writer(Recorder(store.open_store(), directory), sweep)) as told:
        told.begin()
        faults.answers.clear()
        for record in directory.read_trials():
            told.touch(record)  # returns, though nothing is answered
        faults.answers.set()
        assert told.finish() is None
    check(direct)


def test_an_upload_that_was_cut_in_the_middle_leaves_no_half_model(
    own_directory: Path, direct: mlflow.MlflowClient, faults: Faults
) -> None:
    directory, sweep = swept()
    sync(directory)  # the runs, so that the model is what is written next
    (experiment,) = [each for each in direct.search_experiments() if each.name == sweep.mlflow_experiment]
    whole = directory.read_trials()[0]
    whole.ended_at = made.now()
    made.keep(
        directory, whole, replace(made.checkpoint(directory, whole, "checkpoint_two", step=20), metrics={"loss": 0.5})
    )

    def half() -> list[Any]:
        models = direct.search_logged_models([experiment.experiment_id])
        return [model for model in models if str(model.status) != "READY"]

    faults.delay_s = 0.3
    syncing = program.hfsuite("sync", "made", MLFLOW_HTTP_REQUEST_TIMEOUT="60")
    program.wait_for(half, syncing)
    syncing.kill()
    syncing.communicate()
    assert half(), "it was killed too late to show anything"
    faults.delay_s = 0.0
    for _ in range(2):
        assert sync(directory).faults == []
        check(direct)
    kept_by_server = [path.parent.parent.name for path in own_directory.glob("kept by the server/**/MLmodel")]
    models = direct.search_logged_models([experiment.experiment_id])
    assert sorted(kept_by_server) == sorted(str(model.model_id) for model in models)
    for model in models:
        uri = f"{direct.tracking_uri}/api/2.0/mlflow-artifacts/artifacts"
        assert requests.get(f"{uri}/{experiment.experiment_id}/models/{model.model_id}/artifacts/checkpoint/state.json",
                            timeout=30).json() == {"step": int(model.tags["step"])}  # fmt: skip


FULL = """
import os, resource, sys
from contextlib import closing
from dataclasses import replace
from hfsuite.tracking import store, writer
from hfsuite.tracking.recorder import Recorder
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.writer import Writer
writer.LONGEST_WAIT_S = 1.0
directory = SweepDirectory.at("results", "made")
with closing(Writer(Recorder(store.open_store(), directory), directory.read_sweep())) as told:
    told.begin()
    own = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat("mlflow.db").st_size + 4096, own[1]))
    for record in directory.read_trials():
        told.touch(record)
    print(told.finish(patience_s=4))
    resource.setrlimit(resource.RLIMIT_FSIZE, own)
    print(told.finish())
"""


def test_a_full_disk_under_sqlite_loses_nothing(own_directory: Path) -> None:
    directory, _ = made.sweep()
    long = {f"metric_{n}": 0.5 for n in range(300)}
    for number in range(TRIALS):
        made.trial(directory, number, [made.report(n, 10 * n, 1 / n, **long) for n in range(1, REPORTS + 1)])
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert "MLflow has not recorded everything: it does not answer" in first, done.stderr
    assert last == "None"
    client = store.open_store()
    for run in runs.children(client, runs.find_sweep(client, "made")):  # type: ignore[arg-type]
        assert run.data.tags[runs.STATE] == TrialState.COMPLETED
        assert len(client.get_metric_history(run.info.run_id, "metric_299")) == REPORTS
