"""The reports of trials that count: as they are recorded, and which of two is better. Driver."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hfsuite.sweeps.trial_settings import TrialSettings
from hfsuite.tracking.points import changed, milliseconds_of, numbers, rating, step_of
from hfsuite.tracking.record import Snapshot, TrialRecord


@dataclass(frozen=True)
class Snapshots:
    """How reports are recorded and compared.

    Args:
        metric: what is optimised.
        mode: "min" or "max".
        settings: how a trial's settings are read.
    """

    metric: str
    mode: str
    settings: TrialSettings

    def of(self, record: TrialRecord, directory: str | None, result: Mapping[str, Any]) -> Snapshot:
        """A report of a trial, and the directory of the checkpoint that came with it."""
        values = self.settings.of(record.number, result["config"])
        return Snapshot(
            directory=directory,
            step=step_of(result),
            metrics=numbers(result, self.metric),
            timestamp=milliseconds_of(result),
            changed=changed(record.config, values),
        )

    def is_better(self, new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
        """Whether one report is better than another; any number is better than none."""
        ours, theirs = (rating(each, self.metric) for each in (new, old))
        if math.isnan(ours) or math.isnan(theirs):
            return not math.isnan(ours) or not old
        return ours > theirs if self.mode == "max" else ours < theirs
