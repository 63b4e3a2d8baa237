"""Runs in MLflow are found again, and a sweep by what people call it."""

from __future__ import annotations

import time
from pathlib import Path

import mlflow
import pytest

from hfsuite.errors import TrackingError
from hfsuite.tracking import describe, runs, store
from hfsuite.tracking.secrets import without_credentials
from hfsuite.tracking.state import TrialState
from tests import program


@pytest.fixture
def client() -> mlflow.MlflowClient:
    return store.open_store()


def sweep_run(client: mlflow.MlflowClient, name: str, started_at: int = 1) -> runs.Run:
    experiment = store.experiment_id(client, "things")
    tags = {runs.SWEEP: name, runs.KIND: "sweep"}
    return runs.find_or_create(client, experiment, {runs.SWEEP_ID: name}, name=name, started_at=started_at, tags=tags)


def test_a_store_of_its_own_is_made_in_the_working_directory(client: mlflow.MlflowClient, own_directory: Path) -> None:
    run = sweep_run(client, "one")
    client.log_text(run.run_id, "hello", "note.txt")
    assert (own_directory / "mlflow.db").is_file()
    assert list((own_directory / "mlartifacts" / "things").rglob("note.txt"))


def test_a_run_is_made_once_and_found_again(client: mlflow.MlflowClient) -> None:
    first = sweep_run(client, "one")
    first.write_params({"lr": 0.1})
    first.write_points([("loss", 0.5, 1_000, 10)])
    again = sweep_run(client, "one")
    assert again.run_id == first.run_id
    assert again.params == {"lr": "0.1"}
    assert again.known_points() == {("loss", 10): {"0.5"}}
    assert sweep_run(client, "two").run_id != first.run_id


def test_a_store_that_does_not_answer_gets_its_points_later(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = sweep_run(client, "one")

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("refused")

    with monkeypatch.context() as patch:
        patch.setattr(client, "log_batch", refuse)
        with pytest.raises(ConnectionError):
            run.write_points([("loss", 0.5, 1_000, 10)])
    run.write_points([("loss", 0.4, 2_000, 20)])
    assert [each.value for each in client.get_metric_history(run.run_id, "loss")] == [0.5, 0.4]


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (TrialState.COMPLETED, "FINISHED"),
        (TrialState.PRUNED, "KILLED"),
        (TrialState.FAILED, "FAILED"),
        (TrialState.STOPPED, "KILLED"),
        (TrialState.LOST, "KILLED"),
        (TrialState.PAUSED, "RUNNING"),
    ],
)
def test_mlflows_status_follows_from_the_state(client: mlflow.MlflowClient, state: TrialState, status: str) -> None:
    run = sweep_run(client, "one")
    run.write_status(state.mlflow_status, 5_000 if state.is_over else None)
    ended = client.get_run(run.run_id)
    assert (ended.info.status, ended.info.end_time) == (status, 5_000 if state.is_over else None)


def test_a_sweep_is_found_by_name_by_run_id_and_as_the_newest(client: mlflow.MlflowClient) -> None:
    first, second = sweep_run(client, "first", 1), sweep_run(client, "second", 2)
    for wanted, expected in (("first", first), (first.run_id[:8], first), (None, second)):
        found = runs.find_sweep(client, wanted)
        assert found is not None
        assert found.info.run_id == expected.run_id
    assert runs.find_sweep(client, "third") is None
    assert runs.sweep_names(client) == ["second", "first"]


def test_the_experiment_name_of_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team")
    assert store.experiment_name("things") == "team"


def test_a_deleted_experiment_is_named(client: mlflow.MlflowClient) -> None:
    client.delete_experiment(store.experiment_id(client, "things"))
    with pytest.raises(TrackingError, match="'things' is deleted"):
        store.experiment_id(client, "things")


def test_a_store_that_cannot_be_opened_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    with pytest.raises(TrackingError, match=r"sqlite:////proc/nowhere/mlflow\.db cannot be used"):
        store.open_store()


def test_credentials_are_never_shown() -> None:
    assert without_credentials("postgresql://user:secret@host/db") == "postgresql://host/db"
    assert without_credentials("sqlite:///mlflow.db") == "sqlite:///mlflow.db"


def test_a_database_may_lie_where_a_path_has_an_at_sign() -> None:
    uri = "sqlite:////home/ann@example.org/mlflow.db"
    assert without_credentials(uri) == uri


def test_a_path_below_a_storage_with_a_query() -> None:
    assert store.below("/data/results", "one") == "/data/results/one"
    assert store.below("s3://bucket/sweeps?region=eu-west-1", "one") == "s3://bucket/sweeps/one?region=eu-west-1"


@pytest.mark.slow
def test_thirty_processes_may_open_a_new_store_at_once_and_be_killed(own_directory: Path) -> None:
    code = "from hfsuite.tracking import store; print(len(store.open_store().search_experiments()))"
    opening = [program.start("-c", code) for _ in range(30)]
    for process in opening[:10]:
        time.sleep(0.5)
        process.kill()
    assert [program.output(process, 240)[0] for process in opening[10:]] == ["1\n"] * 20
    for process in opening[:10]:
        process.communicate()
    assert not list(own_directory.glob(".mlflow.db.*.new"))


def test_a_run_is_found_by_the_id_that_was_written_down_if_it_is_the_one(own_directory: Path) -> None:
    client = store.open_store()
    experiment = store.experiment_id(client, "things")

    def find(trial: str, remembered: str | None = None) -> str:
        identity = {runs.SWEEP_ID: "one", runs.TRIAL_ID: trial}
        return runs.find_or_create(
            client, experiment, identity, name=trial, started_at=1, tags={}, remembered=remembered
        ).run_id

    first, second = find("a"), find("b")
    assert find("a", first) == first
    assert find("a", second) == first, "written down wrongly"
    assert find("a", "no such run") == first, "of another store"
    client.delete_run(first)
    assert find("a", first) not in (first, second)


def test_names_of_settings_with_equal_initials_are_written_out() -> None:
    space = ["learning_rate", "lora_rank", "weight_decay"]
    names = [describe.abbreviated(name, space) for name in space]
    assert names == ["learning_rate", "lora_rank", "wd"]


def test_a_sweep_without_trials_is_nothing_to_look_at(client: mlflow.MlflowClient) -> None:
    assert runs.newest_with_trials(client) is None
    seen, _ = sweep_run(client, "seen", started_at=1), sweep_run(client, "interrupted", started_at=2)
    client.create_run(store.experiment_id(client, "things"), tags={"mlflow.parentRunId": seen.run_id})
    found = runs.newest_with_trials(client)
    assert found is not None
    assert found.info.run_id == seen.run_id
    newest = runs.find_sweep(client, None)
    assert newest is not None
    assert newest.info.run_name == "interrupted"
