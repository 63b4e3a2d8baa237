"""`hfsuite ui`: MLflow's pages on this machine alone, and a server that ends with the command."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
import requests

from hfsuite.tracking import runs, store
from tests import program


@pytest.mark.slow
def test_it_serves_the_runs_and_ends_with_its_server(own_directory: Path) -> None:
    client = store.open_store()
    experiment = store.experiment_id(client, "toy")
    tags = {runs.KIND: "sweep", runs.SWEEP: "shown"}
    sweep = runs.find_or_create(client, experiment, {runs.SWEEP_ID: "shown"}, name="shown", started_at=1, tags=tags)
    port = program.free_port()
    ui = program.hfsuite("ui", "--port", str(port))
    program.wait_for(lambda: program.answers(port), ui)
    found = requests.post(
        f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/search", json={"experiment_ids": [experiment]}, timeout=30
    ).json()
    assert [run["info"]["run_name"] for run in found["runs"]] == ["shown"]
    assert program.answers(port, "")
    out = program.said_until(ui, "Ctrl-C")
    ui.send_signal(signal.SIGTERM)
    _, err = program.output(ui)
    assert ui.returncode == 0
    assert f"http://127.0.0.1:{port}/#/experiments/{experiment}/runs?workflowType=machine_learning" in out
    assert sweep.run_id in out
    assert err == "", "what the server says to itself is not for the user"
    assert not program.answers(port)


def test_a_port_in_use_is_named(own_directory: Path) -> None:
    store.open_store()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ui = program.hfsuite("ui", "--port", str(port))
        _, err = program.output(ui)
    assert (ui.returncode, "Traceback" in err) == (2, False)
    assert f"Port {port} of this machine is in use" in err
    assert "--port" in err


def test_where_nothing_is_recorded_nothing_is_served(own_directory: Path) -> None:
    ui = program.hfsuite("ui")
    _, err = program.output(ui)
    assert ui.returncode == 2
    assert "Nothing is recorded in sqlite:///" in err
    assert not list(own_directory.iterdir()), "looking leaves nothing behind"
