"""Which checkpoints stay, on storage and in MLflow alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hfsuite.errors import ConfigurationError
from hfsuite.tracking import keeping, runs, store
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.record import TrialRecord
from hfsuite.tracking.state import TrialState
from hfsuite.tracking.sync import sync
from tests import toy
from tests.tracking import made


def trials(states: list[TrialState]) -> tuple[Any, Any, list[TrialRecord]]:
    """Trial 0 is the worst, each further one better; each has two checkpoints, of which the first is its best."""
    directory, sweep = made.sweep()
    records = []
    for number, state in enumerate(states):
        record = made.trial(directory, number, [made.report(1, 10, 1 / (number + 1))], state)
        first, last = (made.checkpoint(directory, record, f"checkpoint_{name}") for name in ("best", "last"))
        assert record.best is not None
        record = replace(record, best=replace(record.best, directory=first.directory), saved=[first, last])
        directory.write_trial(record)
        records.append(record)
    return directory, sweep, records


def kept(records: list[TrialRecord]) -> list[list[str | None]]:
    return [[each.directory for each in record.kept] for record in records]


COMPLETED, PRUNED, FAILED, RUNNING = TrialState.COMPLETED, TrialState.PRUNED, TrialState.FAILED, TrialState.RUNNING
BEST, BOTH = ["checkpoint_best"], ["checkpoint_best", "checkpoint_last"]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("best", [[], BEST, BEST, BEST, BOTH, []]),
        ("best:1", [[], [], [], BEST, BOTH, []]),
        ("reference:2", [[], [], BEST, BEST, BOTH, []]),
        ("all", [BOTH] * 6),
        ("none", [[]] * 6),
    ],
)
def test_each_policy(keep: str, expected: list[list[str]]) -> None:
    directory, sweep, records = trials([COMPLETED, PRUNED, COMPLETED, COMPLETED, FAILED, RUNNING])
    keeping.decide(sweep, records, keep)
    assert kept(records) == expected
    for record, names in zip(records, expected, strict=True):
        keeping.remove_others(directory, record)
        there = directory.folders(record.directory)
        assert there == set(names if record.state.is_over else BOTH), "of a running trial nothing is removed"


def test_a_policy_that_does_not_exist_is_named() -> None:
    for wrong in ("bets", "best:0", "none:3", ""):
        with pytest.raises(ConfigurationError, match="keep cannot be"):
            keeping.parse_keep(wrong)
    with pytest.raises(ConfigurationError, match="Did you mean 'best'"):
        keeping.parse_keep("bets")


@pytest.mark.slow
@pytest.mark.parametrize(("keep", "count"), [("all", 9), ("none", 0), ("best:1", 1)])
def test_a_sweep_keeps_in_both_places_what_it_was_told(own_directory: Path, keep: str, count: int) -> None:
    result = toy.experiment.sweep(trials=3, workers=1, trial_scheduler="fifo", keep=keep, name="kept")
    there = list(Path("results/kept").glob("trial_*/checkpoint_*_0*"))
    client = store.open_store()
    models = client.search_logged_models([client.get_run(result.run_id).info.experiment_id])
    assert (len(there), len(models)) == (count, count)
    assert {model.tags[runs.CHECKPOINT_PATH] for model in models} == {str(path.absolute()) for path in there}
    assert (result.best.checkpoint is None) is (count == 0)
    assert SweepDirectory.at("results", "kept").read_sweep().best == result.best.number


@pytest.mark.parametrize("decides_at_end", [True, False])
def test_sync_removes_only_what_has_been_decided(decides_at_end: bool) -> None:
    directory, sweep, _ = trials([COMPLETED] * 4)
    sweep.decides_at_end = decides_at_end  # the driver of a population died: it may exploit any of them yet
    directory.write_sweep(sweep)
    sync(directory)
    assert directory.read_sweep().state is TrialState.LOST
    there = [sorted(directory.folders(f"trial_{number:03d}")) for number in range(4)]
    assert there == ([BOTH] * 4 if decides_at_end else [[], BEST, BEST, BEST])


def test_with_all_nothing_of_a_lost_trial_drops_out() -> None:
    directory, sweep, _ = trials([RUNNING])
    sweep.arguments["keep"] = "all"
    directory.write_sweep(sweep)
    sync(directory)
    (record,) = directory.read_trials()
    assert kept([record]) == [BOTH]
