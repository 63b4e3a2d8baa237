"""Whoever waits for news of a rank sleeps until there are some."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import pytest

from hfsuite.ranks.decision_box import DecisionBox

MUCH_LATER_S = 600.0


def returns_after(box: DecisionBox, are_there: Callable[[], bool], happens: Callable[[], object]) -> bool:
    """Whether a wait that has begun returns when something happens, long before its time is over."""
    waiter = threading.Thread(target=box.wait_for_news, args=(are_there, MUCH_LATER_S), daemon=True)
    waiter.start()
    time.sleep(0.2)
    assert waiter.is_alive(), "it returned before anything had happened"
    happens()
    waiter.join(30)
    return not waiter.is_alive()


@pytest.mark.parametrize("ending", ["returned", "raised"])
def test_the_end_of_a_function_is_news(ending: str) -> None:
    box = DecisionBox()
    assert returns_after(box, lambda: box.ending == ending, lambda: box.note_end(ending))  # type: ignore[arg-type]


def test_a_report_is_news_whichever_thread_makes_it() -> None:
    """An asynchronous upload reports from a thread of its own, long after the training function went on."""
    box = DecisionBox()
    reports = box.queue_of_reports()
    upload = threading.Thread(target=reports.put, args=("a report",))
    assert returns_after(box, lambda: not reports.empty(), upload.start)


def test_it_looks_only_when_there_are_news() -> None:
    """Each time it does, the thread that trains has to stop."""
    box, looks = DecisionBox(), itertools.count()
    box.wait_for_news(lambda: next(looks) < 0, within_s=0.5)
    assert next(looks) <= 2
