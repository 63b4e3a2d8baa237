"""Runs in MLflow: parameters, metrics, states, and finding a sweep again."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from hfsuite.errors import TrackingError
from hfsuite.tracking import runs, store
from hfsuite.tracking.state import TrialState
from hfsuite.tracking.writer import Writer


@pytest.fixture
def writer() -> Iterator[Writer]:
    with closing(Writer(store.open_store())) as opened:
        yield opened


@pytest.fixture
def client(writer: Writer) -> mlflow.MlflowClient:
    return writer.client


def start(writer: Writer, name: str = "run", **params: object) -> runs.Run:
    return runs.Run.start(
        writer, store.experiment_id(writer.client, "things"), name=name, tags={runs.KIND: "sweep"}, params=params
    )


def test_a_store_of_its_own_is_made_in_the_working_directory(
    writer: Writer, client: mlflow.MlflowClient, own_directory: Path
) -> None:
    run = start(writer)
    run.log_text("hello", "note.txt")
    writer.await_written()
    assert (own_directory / "mlflow.db").is_file()
    assert list((own_directory / "mlartifacts" / "things").rglob("note.txt"))


def test_nested_and_long_parameters_arrive(writer: Writer, client: mlflow.MlflowClient) -> None:
    run = start(writer, a={"b": 1, "c": {"d": "x"}}, long="y" * 10_000, **{f"p{n}": n for n in range(150)})
    writer.await_written()
    params = client.get_run(run.run_id).data.params
    assert (params["a.b"], params["a.c.d"], params["p149"]) == ("1", "x", "149")
    assert params["long"] == "y" * runs.PARAM_LIMIT


def test_only_numbers_become_metrics_and_none_wrecks_a_chart(writer: Writer, client: mlflow.MlflowClient) -> None:
    run = start(writer)
    run.log_metrics({"loss": 0.5, "text": "no", "flag": True, "nested": {"f1": 1}, "up": math.inf, "nan": math.nan}, 7)
    run.end(TrialState.COMPLETED)
    writer.await_written()
    metrics = client.get_run(run.run_id).data.metrics
    assert {"loss", "nested.f1", "up", "nan"} == set(metrics)
    assert math.isnan(metrics["up"])
    assert [(point.step, point.value) for point in client.get_metric_history(run.run_id, "loss")] == [(7, 0.5)]


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (TrialState.COMPLETED, "FINISHED"),
        (TrialState.PRUNED, "KILLED"),
        (TrialState.FAILED, "FAILED"),
        (TrialState.STOPPED, "KILLED"),
    ],
)
def test_mlflows_status_follows_from_the_state(
    writer: Writer, client: mlflow.MlflowClient, state: TrialState, status: str
) -> None:
    run = start(writer)
    run.end(state)
    writer.await_written()
    ended = client.get_run(run.run_id)
    assert (ended.info.status, ended.data.tags[runs.STATE]) == (status, state.value)


def test_a_sweep_is_found_by_name_by_run_id_and_as_the_newest(writer: Writer, client: mlflow.MlflowClient) -> None:
    first, second = start(writer, "first"), start(writer, "second")
    first.set_tags({runs.SWEEP: "first"})
    second.set_tags({runs.SWEEP: "second"})
    writer.await_written()
    for wanted, expected in (("first", first), (first.run_id[:8], first), (None, second)):
        found = runs.find_sweep(client, wanted)
        assert found is not None
        assert found.info.run_id == expected.run_id
    assert runs.find_sweep(client, "third") is None
    assert runs.sweep_names(client) == ["second", "first"]


def test_the_experiment_name_of_the_environment_wins(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team")
    assert client.get_experiment(store.experiment_id(client, "things")).name == "team"


def test_a_deleted_experiment_is_named(client: mlflow.MlflowClient) -> None:
    client.delete_experiment(store.experiment_id(client, "things"))
    with pytest.raises(TrackingError, match="'things' is deleted"):
        store.experiment_id(client, "things")


def test_a_store_that_cannot_be_opened_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    with pytest.raises(TrackingError, match=r"sqlite:////proc/nowhere/mlflow\.db cannot be used"):
        store.open_store()


def test_credentials_are_never_shown() -> None:
    assert store.without_credentials("postgresql://user:secret@host/db") == "postgresql://host/db"
    assert store.without_credentials("sqlite:///mlflow.db") == "sqlite:///mlflow.db"


def test_a_database_may_lie_where_a_path_has_an_at_sign() -> None:
    uri = "sqlite:////home/ann@example.org/mlflow.db"
    assert store.without_credentials(uri) == uri


def test_names_that_mlflow_refuses_are_recorded_under_near_ones(writer: Writer, client: mlflow.MlflowClient) -> None:
    run = runs.Run.start(writer, store.experiment_id(client, "names"), name="a", tags={}, params={"lr (max)": 1})
    run.log_metrics({"recall@5": 0.5, "f1%": 0.25, "../up": 1.0, "/top": 2.0, "a" * 300: 3.0, "fine/loss": 4.0}, step=1)
    run.end(TrialState.COMPLETED)
    writer.await_written()
    found = client.get_run(run.run_id).data
    assert found.params == {"lr _max_": "1"}
    assert found.metrics == {"recall_5": 0.5, "f1_": 0.25, "_up": 1.0, "_top": 2.0, "a" * 250: 3.0, "fine/loss": 4.0}


def test_nobody_waits_for_a_slow_store(
    writer: Writer, client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, own = threading.Event(), client.log_batch
    run = start(writer)
    writer.await_written()
    monkeypatch.setattr(client, "log_batch", lambda *a, **k: answers.wait(60) and own(*a, **k))
    run.log_metrics({"loss": 0.5}, 1)
    run.set_tags({"colour": "blue"})
    run.end(TrialState.COMPLETED)
    assert client.get_run(run.run_id).info.status == "RUNNING", "nothing has been written yet, and nobody waited"
    answers.set()
    writer.await_written()
    ended = client.get_run(run.run_id)
    assert (ended.info.status, ended.data.metrics, ended.data.tags["colour"]) == ("FINISHED", {"loss": 0.5}, "blue")


def test_what_could_not_be_written_is_told_once_and_the_rest_is_there(
    writer: Writer, client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("the server is gone")

    run = start(writer)
    writer.await_written()
    with monkeypatch.context() as patch:
        patch.setattr(client, "log_text", refuse)
        run.log_text("hello", "note.txt")
        run.end(TrialState.FAILED)
        with pytest.raises(TrackingError, match="Failed writes: 1; the first with ConnectionError: the server is gone"):
            writer.await_written()
    writer.await_written()
    assert client.get_run(run.run_id).info.status == "FAILED"
