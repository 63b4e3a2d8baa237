"""What happens to writes that are refused, and to those that nobody answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import requests

from hfsuite.errors import TrackingError
from hfsuite.tracking import store, writer
from hfsuite.tracking.writer import Writer


@pytest.fixture
def opened() -> Iterator[Writer]:
    with closing(Writer(store.open_store())) as each:
        yield each


def refuse() -> None:
    raise ValueError("no such run\nand more")


def test_a_refused_write_costs_none_of_the_others(opened: Writer) -> None:
    written: list[int] = []
    opened.submit(lambda: written.append(1))
    opened.submit(refuse)
    opened.submit(lambda: written.append(2))
    with pytest.raises(TrackingError, match=r"Failed writes: 1; the first with ValueError: no such run$"):
        opened.await_written()
    assert written == [1, 2]
    opened.await_written()  # it is told once


def test_a_silent_store_is_not_waited_for_and_not_asked_again(opened: Writer) -> None:
    answers, asked = threading.Event(), threading.Event()
    opened.submit(lambda: answers.wait(60))
    with pytest.raises(TrackingError, match=r"the store has not answered for 0\.2 s"):
        opened.await_written(within_s=0.2)
    later = opened.submit(asked.set)
    answers.set()
    assert isinstance(later.exception(timeout=10), TrackingError)
    assert not asked.is_set()


def test_after_a_write_that_failed_by_silence_nothing_is_tried(opened: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "GONE_AFTER_S", 0.1)
    asked = threading.Event()

    def slowly(error: Exception) -> None:
        time.sleep(0.2)
        raise RuntimeError("MLflow's own") from error

    opened.submit(lambda: slowly(ValueError("the disk is full")))
    opened.submit(asked.set)
    with pytest.raises(TrackingError, match="Failed writes: 1"):
        opened.await_written()
    assert asked.is_set(), "slow as it was, it was refused"
    asked.clear()
    opened.submit(lambda: slowly(requests.ConnectionError("refused")))
    opened.submit(asked.set)
    with pytest.raises(TrackingError, match="Failed writes: 2; the first with RuntimeError"):
        opened.await_written()
    assert not asked.is_set()


def test_a_long_queue_is_no_silence(opened: Writer) -> None:
    for _ in range(5):
        opened.submit(lambda: time.sleep(0.2))
    opened.await_written(within_s=0.6)


def test_two_sweeps_do_not_tell_of_each_others_faults(opened: Writer) -> None:
    with closing(Writer(opened.client)) as other:
        other.submit(refuse)
        opened.await_written()
        with pytest.raises(TrackingError):
            other.await_written()
