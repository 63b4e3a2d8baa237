"""Nobody waits for MLflow: what it does not take now, it is told later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from hfsuite.errors import TrackingError
from hfsuite.tracking import runs, store, writer
from hfsuite.tracking.recorder import Recorder
from hfsuite.tracking.state import TrialState
from hfsuite.tracking.sync import sync
from hfsuite.tracking.writer import Writer
from tests.tracking import made
from tests.tracking.test_recorder import recorded


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    monkeypatch.setattr(writer, "FIRST_WAIT_S", 0.05)
    directory, sweep = made.sweep()
    with closing(Writer(Recorder(store.open_store(), directory), sweep)) as each:
        each.begin()
        yield each


def trial(begun: Writer, number: int = 0, **changes: Any) -> None:
    begun.touch(made.trial(begun.recorder.directory, number, [made.report(1, 10, 0.5)], **changes))


def fail(times: int, error: BaseException, own: Callable[..., Any]) -> Callable[..., Any]:
    """Fails so many times, then is itself."""
    left = [times]

    def call(*arguments: Any, **named: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise error
        return own(*arguments, **named)

    return call


def test_nobody_waits_for_a_slow_store(begun: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, client = threading.Event(), begun.recorder.client
    own = client.log_batch
    monkeypatch.setattr(client, "log_batch", lambda *a, **k: answers.wait() and own(*a, **k))
    trial(begun)  # returns, though the store does not
    answers.set()
    assert begun.finish() is None
    (run,) = recorded(client)[1]
    assert (run.info.status, run.data.metrics["loss"]) == ("FINISHED", 0.5)


def test_a_store_that_comes_back_has_everything(begun: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    client = begun.recorder.client
    for name in ("create_run", "log_batch", "set_terminated", "search_runs"):
        monkeypatch.setattr(client, name, fail(2, ConnectionError("refused"), getattr(client, name)))
    for number in range(3):
        trial(begun, number)
    assert begun.finish() is None
    _, trials = recorded(client)
    assert [(run.info.status, run.data.metrics["loss"]) for run in trials] == [("FINISHED", 0.5)] * 3


def test_a_store_that_never_comes_back_is_not_waited_for(begun: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    client = begun.recorder.client
    monkeypatch.setattr(client, "log_batch", fail(10**9, ConnectionError("refused"), client.log_batch))
    trial(begun)
    monkeypatch.setattr(writer, "UNTOLD_S", 0.1)
    told: list[bool] = []
    said = begun.finish(patience_s=0.5, tell=lambda: told.append(True))
    assert told == [True], "whoever waits is told so, once"
    assert said == "MLflow has not recorded everything: it does not answer (ConnectionError: refused)."


def test_a_refused_write_costs_none_of_the_others(begun: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    client = begun.recorder.client
    monkeypatch.setattr(client, "log_text", fail(1, ValueError("no such artifact\nand more"), client.log_text))
    trial(begun, state=TrialState.FAILED)
    trial(begun, 1)
    assert begun.finish() == "MLflow has refused 1 writes; the first with ValueError: no such artifact"
    assert [run.info.status for run in recorded(client)[1]] == ["FAILED", "FINISHED"]
    assert begun.finish() is None, "it is told once"


def test_the_newest_word_about_a_trial_counts(begun: Writer) -> None:
    record = made.trial(begun.recorder.directory, 0, [], TrialState.RUNNING)
    begun.touch(record)
    begun.touch(replace(record, state=TrialState.PRUNED, why="asha at step 10", ended_at=made.now()))
    assert begun.finish() is None
    (run,) = recorded(begun.recorder.client)[1]
    assert run.data.tags["hfsuite.why"] == "asha at step 10"


def test_a_store_that_takes_no_sweep_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    directory, sweep = made.sweep()
    client = store.open_store()
    monkeypatch.setattr(client, "create_run", fail(1, PermissionError("read-only database"), client.create_run))
    with pytest.raises(TrackingError, match=r"cannot record the sweep: PermissionError: read-only database"):
        Writer(Recorder(client, directory), sweep).begin()


@pytest.mark.slow
def test_what_was_lost_with_the_connection_is_written_later(begun: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    client = begun.recorder.client
    monkeypatch.setattr(client, "log_batch", fail(20, ConnectionError("refused"), client.log_batch))
    trial(begun)
    assert begun.finish() is None
    parent, (run,) = recorded(client)
    assert (run.data.params["x"], run.data.metrics["loss"], parent.data.params["searcher"]) == ("0.5", 0.5, "tpe")


def test_a_trial_that_cannot_be_recorded_costs_none_of_the_others(
    begun: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = begun.recorder.client
    own = client.create_run

    def create_run(*arguments: Any, **named: Any) -> Any:
        if named["tags"][runs.TRIAL] == "0":
            raise OSError("no space for this one")
        return own(*arguments, **named)

    monkeypatch.setattr(client, "create_run", create_run)
    for number in range(4):
        trial(begun, number)
    said = begun.finish(patience_s=2)
    assert said is not None
    assert "no space for this one" in said
    assert [run.data.tags[runs.TRIAL] for run in recorded(client)[1]] == ["1", "2", "3"]


def test_a_refused_point_costs_none_of_the_others_and_is_not_forgotten(
    begun: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    client = begun.recorder.client
    own = client.log_batch

    def log_batch(run_id: str, metrics: Any = (), **named: Any) -> None:
        if any(each.key == "bad" for each in metrics):
            raise MlflowException("no such number", error_code=INVALID_PARAMETER_VALUE)
        own(run_id, metrics=metrics, **named)

    monkeypatch.setattr(client, "log_batch", log_batch)
    reports = [made.report(1, 10, 0.5, bad=1.0, good=2.0), made.report(2, 20, 0.4, bad=1.0, good=2.0)]
    begun.touch(made.trial(begun.recorder.directory, 0, reports))
    assert "no such number" in (begun.finish() or "")
    (run,) = recorded(client)[1]
    assert [point.step for point in client.get_metric_history(run.info.run_id, "good")] == [10, 20]
    monkeypatch.setattr(client, "log_batch", own)
    begun.close()
    assert sync(begun.recorder.directory).faults == []
    assert [point.step for point in client.get_metric_history(run.info.run_id, "bad")] == [10, 20]
