"""`register` makes the best checkpoint the champion, and no worse one in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlflow
import pytest

from hfsuite.errors import ConfigurationError
from hfsuite.tracking import runs, store
from hfsuite.tracking.registry import register_best
from hfsuite.tracking.state import TrialState
from hfsuite.tracking.sync import sync
from tests.tracking import made


def swept(name: str, loss: float, **changes: Any) -> Any:
    """A completed sweep whose best trial has kept its checkpoint."""
    directory, sweep = made.sweep(name, state=TrialState.COMPLETED, ended_at=made.now(), best=0, **changes)
    record = made.trial(directory, 0, [made.report(1, 10, loss)])
    kept = made.checkpoint(directory, record, "checkpoint_one")
    if sweep.arguments["keep"] != "none":
        made.keep(directory, record, kept)
    sync(directory)
    return runs.find_sweep(store.open_store(), name)


@pytest.fixture
def client() -> mlflow.MlflowClient:
    return store.open_store()


def test_the_better_one_is_champion(client: mlflow.MlflowClient) -> None:
    first = register_best(client, swept("first", 0.5), "mine", worse=False)
    assert (first.version, first.value, first.was) == ("1", 0.5, None)
    again = register_best(client, runs.find_sweep(client, "first"), "mine", worse=False)
    assert again.version == "1", "the same one again changes nothing"
    better = register_best(client, swept("second", 0.25), "mine", worse=False)
    assert (better.version, better.was) == ("2", 0.5)
    with pytest.raises(ConfigurationError, match=r"version 2, has loss 0\.25, which is better than 0\.4 of 'third'"):
        register_best(client, swept("third", 0.4), "mine", worse=False)
    champion = client.get_model_version_by_alias("mine", "champion")
    assert str(champion.version) == "2"
    assert champion.run_id == better.run_id
    assert client.get_logged_model(better.model_id).source_run_id == better.run_id
    worse = register_best(client, runs.find_sweep(client, "third"), "mine", worse=True)
    assert str(client.get_model_version_by_alias("mine", "champion").version) == worse.version == "3"


def test_what_cannot_be_compared_is_not_replaced(client: mlflow.MlflowClient) -> None:
    register_best(client, swept("first", 0.5), "mine", worse=False)
    other = swept("second", 0.5)
    client.set_tag(other.info.run_id, runs.METRIC, "accuracy")
    with pytest.raises(ConfigurationError, match="was not rated by 'accuracy'"):
        register_best(client, runs.find_sweep(client, "second"), "mine", worse=False)


def test_without_a_checkpoint_there_is_nothing_to_register(client: mlflow.MlflowClient) -> None:
    with pytest.raises(ConfigurationError, match=r"No checkpoint of the best trial of 'bare' is in MLflow"):
        register_best(client, swept("bare", 0.5, arguments={"keep": "none"}), "mine", worse=False)
    with pytest.raises(ConfigurationError, match="MLflow does not take 'a/b:c' as the name"):
        register_best(client, swept("named", 0.5), "a/b:c", worse=False)


def test_of_several_checkpoints_the_best_is_registered(client: mlflow.MlflowClient) -> None:
    directory, _ = made.sweep("all", state=TrialState.COMPLETED, ended_at=made.now(), best=0, arguments={"keep": "all"})
    record = made.trial(directory, 0, [made.report(1, 10, 0.1), made.report(2, 20, 0.9)])
    best, last = (
        made.checkpoint(directory, record, name, step) for name, step in (("checkpoint_a", 10), ("checkpoint_b", 20))
    )
    assert record.best is not None
    best.metrics = record.best.metrics
    directory.write_trial(replace(record, saved=[best, last], kept=[best, last], best=best))
    sync(directory)
    registered = register_best(client, runs.find_sweep(client, "all"), "mine", worse=False)
    assert client.get_logged_model(registered.model_id).tags["step"] == "10"
    assert registered.value == 0.1


def test_an_error_of_the_store_is_no_sign_that_there_is_no_champion(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_best(client, swept("first", 0.1), "mine", worse=False)
    worse = swept("second", 0.9)

    def away(*_: Any) -> None:
        raise mlflow.exceptions.MlflowException("away")

    monkeypatch.setattr(client, "get_model_version_by_alias", away)
    with pytest.raises(mlflow.exceptions.MlflowException, match="away"):
        register_best(client, worse, "mine", worse=False)
