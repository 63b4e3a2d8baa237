"""Fills a tracking store from a sweep's directory, any number of times, to the same end. Driver."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from hfsuite.errors import TrackingError
from hfsuite.tracking import keeping, store
from hfsuite.tracking.describe import ranked
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.lock import DriverLock
from hfsuite.tracking.record import SweepRecord, TrialRecord
from hfsuite.tracking.recorder import Recorder
from hfsuite.tracking.saved import adopt
from hfsuite.tracking.secrets import without_credentials
from hfsuite.tracking.state import TrialState

DRIVER_DIED = "its driver died"
WAITS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Synced:
    """What a sync has found.

    Args:
        name: of the sweep.
        trials: that it has.
        lost: those that were still recorded as running.
        run_id: the sweep's run.
        tracking_uri: of the store, without credentials.
        faults: what the store has refused.
    """

    name: str
    trials: int
    lost: int
    run_id: str | None
    tracking_uri: str
    faults: list[str]


def sync(directory: SweepDirectory) -> Synced:
    """Writes to MLflow whatever it lacks of a sweep, and closes as lost what a dead driver has left running.

    Raises:
        ConfigurationError: the sweep is being run, or its record cannot be read.
        TrackingError: the store cannot be reached.
    """
    with DriverLock(directory):
        sweep, trials = directory.read_sweep(), directory.read_trials()
        lost = mark_lost(directory, sweep, trials)
        _settle_checkpoints(directory, sweep, trials)
        client = store.open_store(sweep.tracking_uri)
        recorder = Recorder(client, directory)
        _patiently(lambda: recorder.settle_sweep(sweep))
        _settle_trials(recorder, sweep, trials)
        _patiently(lambda: recorder.settle_sweep(sweep))
    uri = without_credentials(str(client.tracking_uri))
    return Synced(sweep.name, len(trials), lost, recorder.parent_id, uri, recorder.take_faults())


def _settle_checkpoints(directory: SweepDirectory, sweep: SweepRecord, trials: list[TrialRecord]) -> None:
    """Decides which checkpoints stay, and removes what a driver that died had not yet."""
    for record in keeping.decide(sweep, trials, sweep.arguments.get("keep", "best")):
        directory.write_trial(record)
    if sweep.decides_at_end and sweep.state.is_unfinished:
        return  # a population may still exploit finished trials, when the sweep is taken up again
    for record in trials:
        if record.state.has_result:
            keeping.remove_others(directory, record)
            directory.write_trial(record)


def _settle_trials(recorder: Recorder, sweep: SweepRecord, trials: list[TrialRecord]) -> None:
    """One that the store does not take costs none of the others; two in a row say that it is away."""
    failed: list[TrackingError] = []
    was_silent = False
    for record in trials:
        try:
            _patiently(partial(recorder.settle_trial, sweep, record))
            was_silent = False
        except TrackingError as error:
            failed.append(error)
            if was_silent:
                break
            was_silent = True
    if failed:
        raise failed[0]


def _patiently(write: Callable[[], None]) -> None:
    """Again after growing waits, where the store does not answer."""
    for wait_s in WAITS_S:
        try:
            return write()
        except Exception as error:
            if store.is_refusal(error):
                raise
            time.sleep(wait_s)
    try:
        return write()
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise TrackingError(
            f"The MLflow store does not answer ({type(error).__name__}: {said}). What it has taken it has: sync again."
        ) from error


def mark_lost(directory: SweepDirectory, sweep: SweepRecord, trials: list[TrialRecord]) -> int:
    """Of a sweep that nobody runs, what seems to run is lost. The caller holds its lock.

    Returns:
        How many trials that are.
    """
    now = int(time.time() * 1_000)
    lost = [record for record in trials if not record.state.is_over]
    for record in lost:
        record.state, record.why, record.ended_at = TrialState.LOST, DRIVER_DIED, now
        adopt(directory, record, sweep.metric)
        directory.write_trial(record)
    if not sweep.state.is_over:
        sweep.state, sweep.ended_at = TrialState.LOST, now
        sweep.best = next((record.number for record in ranked(sweep, trials)), None)
        directory.write_sweep(sweep)
    return len(lost)
