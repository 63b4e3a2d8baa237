"""Finds a sweep's directory by the sweep's name. Driver."""

from __future__ import annotations

import os
import posixpath
from contextlib import suppress

import pyarrow.fs

from hfsuite.errors import ConfigurationError, UnknownName, did_you_mean
from hfsuite.sweeps.storage import absolute
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.lock import DriverLock
from hfsuite.tracking.record import SweepRecord
from hfsuite.tracking.secrets import without_credentials
from hfsuite.tracking.state import TrialState


def find_directory(
    sweep: str | None, storage: str, *, experiment: str | None = None, unfinished: bool = True
) -> tuple[SweepDirectory, str]:
    """A sweep's directory, and the folder or URI that it is in.

    Args:
        sweep: its name, or the path of its directory; None for the newest.
        storage: where sweeps are.
        experiment: only sweeps of this experiment.
        unfinished: whether the newest is the newest of those that have not completed, that nobody runs, and
            that are no confirmations, which begin anew.

    Raises:
        UnknownName: there is none, with the nearest names.
    """
    storage = absolute(storage)
    if sweep is not None and os.path.isdir(sweep) and SweepDirectory.at(*os.path.split(os.path.abspath(sweep))).exists:
        storage, sweep = os.path.split(os.path.abspath(sweep))
    if sweep is not None and (directory := SweepDirectory.at(storage, sweep)).exists:
        return directory, storage
    found = {record.name: record for record in _sweeps_in(storage) if experiment in (None, record.experiment)}
    shown = without_credentials(storage)
    if sweep is not None:
        raise UnknownName(
            f"There is no sweep {sweep!r} in {shown}. {did_you_mean(sweep, found)} Name its storage with --storage."
        )
    wanted = [
        record
        for record in found.values()
        if record.kind == "sweep"
        and not (unfinished and (record.state is TrialState.COMPLETED or record.confirms is not None))
    ]
    if not wanted:
        sweeps = sorted(name for name, record in found.items() if record.kind == "sweep")
        known = f" Known: {', '.join(sweeps)}." if sweeps else ""
        what = "no sweep that was interrupted" if unfinished else "no sweep"
        raise UnknownName(f"There is {what} in {shown}.{known} Name its storage with --storage.")
    if unfinished:  # where somebody runs each of them, the newest says who
        idle = [each for each in wanted if not DriverLock(SweepDirectory.at(storage, each.name)).is_held]
        wanted = idle or wanted
    newest = max(wanted, key=lambda record: record.created_at)
    return SweepDirectory.at(storage, newest.name), storage


def _sweeps_in(storage: str) -> list[SweepRecord]:
    directory = SweepDirectory.at(storage, "")
    selector = pyarrow.fs.FileSelector(directory.path, allow_not_found=True)
    found = []
    for entry in directory.filesystem.get_file_info(selector):
        candidate = SweepDirectory(directory.filesystem, posixpath.join(directory.path, entry.base_name))
        if entry.type == pyarrow.fs.FileType.Directory and candidate.exists:
            with suppress(ConfigurationError):  # whoever names that one is told what is wrong with it
                found.append(candidate.read_sweep())
    return found
