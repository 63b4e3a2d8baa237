"""A report that not every rank makes ends the attempt, and says who did not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from hfsuite.trials.even_reports import EvenReports


@dataclass
class Status:
    training_report: Any = None
    running: bool = True


REPORTS, TRAINS, RETURNED = Status("a report"), Status(), Status(running=False)


def test_ranks_that_report_equally_often_are_left_alone() -> None:
    reports = EvenReports(timeout_s=60)
    for polled in ((REPORTS, REPORTS), (REPORTS, TRAINS), (TRAINS, REPORTS), (TRAINS, RETURNED), (RETURNED, RETURNED)):
        assert reports.faults(dict(enumerate(polled))) == {}


def test_a_rank_that_returned_without_a_report_is_named() -> None:
    reports = EvenReports(timeout_s=60)
    assert reports.faults({0: REPORTS, 1: REPORTS}) == {}
    assert reports.faults({0: REPORTS, 1: RETURNED}) == {}, "one that raises returns a moment before it says so"
    faults = reports.faults({0: TRAINS, 1: RETURNED})
    assert list(faults) == [1]
    assert "rank 1 has returned after 1 report, while its peers wait in report 2" in str(faults[1])


def test_ranks_that_never_come_are_named_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("hfsuite.trials.even_reports.time.monotonic", lambda: clock[0])
    reports = EvenReports(timeout_s=60)
    assert reports.faults({0: REPORTS, 1: TRAINS, 2: TRAINS}) == {}
    clock[0] += 59
    assert reports.faults({0: TRAINS, 1: TRAINS, 2: REPORTS}) == {}
    clock[0] += 2
    faults = reports.faults({0: TRAINS, 1: TRAINS, 2: TRAINS})
    assert list(faults) == [1]
    assert "rank 1 has not come to it within 60 s" in str(faults[1])
