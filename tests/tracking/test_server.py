"""A sweep that records on an MLflow server instead of SQLite."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hfsuite.tracking import runs, store
from tests import program, toy

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its artifacts are its own: clients send them there."""
    folder, port = tmp_path_factory.mktemp("server"), program.free_port()
    process = program.start(
        "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "kept"),
    )  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    program.wait_for(lambda: program.answers(port), process)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the team")
    yield uri
    os.killpg(process.pid, signal.SIGTERM)
    program.output(process)


def test_a_sweep_is_recorded_on_the_server(server: str, own_directory: Path) -> None:
    result = toy.experiment.sweep(trials=2, workers=1, trial_scheduler="fifo", name="remote")
    assert result.tracking_uri == server
    assert not Path("mlflow.db").exists()
    assert not Path("mlartifacts").exists()
    client = store.open_store()
    parent = client.get_run(result.run_id)
    assert client.get_experiment(parent.info.experiment_id).name == "of the team"
    trials = runs.children(client, parent)
    assert [run.info.run_id for run in trials] == [trial.run_id for trial in result.trials]
    assert [run.info.status for run in trials] == ["FINISHED"] * 2
    models = client.search_logged_models([parent.info.experiment_id])
    assert {model.source_run_id for model in models} == {run.info.run_id for run in trials}
    for model in models:
        files = [each.path for each in client.list_logged_model_artifacts(model.model_id, "checkpoint")]
        assert "checkpoint/state.json" in files
