"""Which sweep is meant where none is named."""

from __future__ import annotations

import pytest

from hfsuite.errors import UnknownName
from hfsuite.sweeps.finding import find_directory
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.lock import DriverLock
from hfsuite.tracking.state import TrialState
from tests.tracking import made


def sweep(name: str, created_at: int, state: TrialState, **changes: object) -> SweepDirectory:
    directory, record = made.sweep(name=name, created_at=created_at, **changes)
    record.state = state
    directory.write_sweep(record)
    return directory


def test_the_newest_that_can_be_taken_up_is_found() -> None:
    sweep("interrupted", 1, TrialState.STOPPED)
    running = sweep("running", 2, TrialState.RUNNING)
    sweep("confirmation", 3, TrialState.STOPPED, confirms="0" * 32, confirms_sweep="interrupted")
    sweep("done", 4, TrialState.COMPLETED)
    storage = running.path.rpartition("/")[0]
    with DriverLock(running):
        assert find_directory(None, storage)[0].path.endswith("/interrupted")
    assert find_directory(None, storage)[0].path.endswith("/running"), "its driver has died"
    assert find_directory(None, storage, unfinished=False)[0].path.endswith("/done")


def test_where_nothing_was_interrupted_the_others_are_named() -> None:
    directory = sweep("done", 1, TrialState.COMPLETED)
    with pytest.raises(UnknownName, match=r"no sweep that was interrupted in .* Known: done"):
        find_directory(None, directory.path.rpartition("/")[0])
