"""A sweep that is removed leaves nothing: its name is free, its runs, models and files are gone."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from hfsuite.cli import app
from hfsuite.cli.outcome import USER_ERROR, run_command
from hfsuite.errors import ConfigurationError
from hfsuite.tracking import runs, store
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.lock import DriverLock
from hfsuite.tracking.removal import remove, runs_of
from tests.tracking.test_models import saved_model


def test_a_sweep_and_all_that_belongs_to_it_goes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder, logged = saved_model()
    client = store.open_store()
    (trial,) = [run for run in runs_of(client, "id-of-made") if run.data.tags[runs.KIND] == "trial"]
    nested = client.create_run(trial.info.experiment_id, tags={"mlflow.parentRunId": trial.info.run_id})
    other = client.create_run(trial.info.experiment_id)
    for _ in range(100):  # MLflow tells of so many at once
        client.create_logged_model(trial.info.experiment_id, source_run_id=trial.info.run_id)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert run_command(app, ["clean", "made"]) == USER_ERROR
    assert "Nothing was removed, since nobody answered" in capsys.readouterr().err
    assert run_command(app, ["clean", "made", "--yes"]) == 0
    assert "made is gone, with 3 runs of MLflow's." in capsys.readouterr().out
    assert not folder.parents[1].exists()
    assert not list(Path(logged.artifact_location.removeprefix("file://")).rglob("*.safetensors"))
    left = client.search_runs([trial.info.experiment_id])
    assert [run.info.run_id for run in left] == [other.info.run_id]
    assert client.get_run(nested.info.run_id).info.lifecycle_stage == "deleted"
    assert client.search_logged_models([trial.info.experiment_id]) == []
    assert run_command(app, ["clean", "made", "--yes"]) == USER_ERROR


def test_what_is_registered_or_runs_stays(capsys: pytest.CaptureFixture[str]) -> None:
    _, folder, logged = saved_model()
    client = store.open_store()
    client.create_registered_model("reviews")
    client.create_model_version("reviews", logged.artifact_location, run_id=logged.source_run_id)
    assert run_command(app, ["clean", "made", "--yes"]) == USER_ERROR
    assert "is version 1 of the registered model reviews" in capsys.readouterr().err.replace("\n", " ")
    assert folder.is_dir()
    directory = SweepDirectory.at("results", "made")
    with DriverLock(directory), pytest.raises(ConfigurationError, match="is being run by process"):
        remove(directory, client, [])
    assert folder.is_dir()
