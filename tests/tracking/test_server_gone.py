"""An MLflow server that is killed in the middle of a sweep costs records, and nothing else."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler

from hfsuite.tracking.state import TrialState
from tests import program, toy

pytestmark = pytest.mark.slow


class KillAtFirstReport(FIFOScheduler):
    def __init__(self, server: Any) -> None:
        super().__init__()
        self.server = server

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"server": None}  # Ray Tune saves its trial scheduler

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        kill(self.server)
        return str(super().on_trial_result(tune_controller, trial, result))


@pytest.fixture
def server(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    port = program.free_port()
    store = ["--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", "artifacts"]
    process = program.start("-m", "mlflow", "server", "--port", str(port), "--workers", "1", *store)
    program.wait_for(lambda: program.answers(port), process)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # seven, minutes, are the default
    yield process
    kill(process)


def kill(server: Any) -> None:
    """The server, and the process that it answers from."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.communicate()


def test_the_sweep_ends_with_its_results_and_says_what_is_missing(server: Any) -> None:
    result = toy.experiment.sweep(trials=4, searcher="random", trial_scheduler=KillAtFirstReport(server))
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETED] * 4
    assert result.best.checkpoint is not None
    assert result.tracking_fault is not None
    assert "MLflow has not recorded everything" in result.tracking_fault
    assert result.run_id is not None
    assert None in [trial.run_id for trial in result.trials], "no run is named that MLflow never made"
