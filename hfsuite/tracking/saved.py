"""What an interrupted trial has saved, whether Ray Tune had taken it over or not. Driver."""

from __future__ import annotations

import posixpath

from hfsuite.checkpoints.reported import newest_reported
from hfsuite.seeds import SETTING
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.points import changed, milliseconds_of, numbers, settings_of, step_of
from hfsuite.tracking.record import Snapshot, TrialRecord


def adopt(directory: SweepDirectory, record: TrialRecord, metric: str) -> None:
    """Makes the checkpoint from which a trial would go on the last of its saved ones; forgets those that are gone.

    Args:
        directory: the sweep's.
        record: the trial's, which is changed.
        metric: what is optimised.
    """
    there = directory.folders(record.directory)
    record.saved = [each for each in record.saved if each.directory in there]
    newest = newest_reported(directory.filesystem, f"{directory.path}/{record.directory}")
    if newest is None:
        return
    checkpoint, report = newest
    name = posixpath.basename(checkpoint.path)
    values = {key: value for key, value in settings_of(report.get("config", {})).items() if key != SETTING}
    last = Snapshot(
        directory=name, step=step_of(report), metrics=numbers(report, metric), timestamp=milliseconds_of(report),
        changed=changed(record.config, values),
    )  # fmt: skip
    record.saved = [*(each for each in record.saved if each.directory != name), last]
    record.reports = max(record.reports, int(report["training_iteration"]))
