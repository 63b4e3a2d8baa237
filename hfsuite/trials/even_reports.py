"""Whether all ranks of a trial report equally often. In the trial's actor.

A rank waits in a report until all ranks have made it and Tune has answered. One that never makes it would keep its
peers waiting for ever.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from hfsuite.errors import TrialFailed


class EvenReports:
    """Counts the reports of one attempt.

    Args:
        timeout_s: how many seconds a rank may make its peers wait.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._made: Counter[int] = Counter()
        self._returned: set[int] = set()  # without a report that others made, as of the last look
        self._waiting_since: float | None = None

    def faults(self, statuses: Mapping[int, Any]) -> dict[int, TrialFailed]:
        """Takes note of a poll; what is wrong, by rank.

        Args:
            statuses: of all ranks, as Ray Train polls them: `training_report`, if there is a new one, and `running`.
        """
        self._made.update(rank for rank, status in statuses.items() if status.training_report is not None)
        most = max(self._made[rank] for rank in statuses)
        behind = [rank for rank in statuses if self._made[rank] < most]
        if not behind:
            self._waiting_since, self._returned = None, set()
            return {}
        self._waiting_since = self._waiting_since or time.monotonic()
        returned = {rank for rank in behind if not statuses[rank].running}
        certain = returned & self._returned  # a rank that raises has returned a moment before it says so
        self._returned = returned
        if time.monotonic() - self._waiting_since >= self._timeout_s:
            certain |= set(behind)
        return {rank: self._fault(rank, most, rank in returned) for rank in certain}

    def _fault(self, rank: int, report: int, has_returned: bool) -> TrialFailed:
        how = (
            f"has returned after {self._made[rank]} report{'s' if self._made[rank] != 1 else ''}"
            if has_returned
            else f"has not come to it within {self._timeout_s:g} s (TorchConfig(timeout_s=...))"
        )
        return TrialFailed(
            f"rank {rank} {how}, while its peers wait in report {report}: every rank must call ray.train.report() "
            "equally often. Of the metrics rank 0's count; the others may report {}.",
            rank,
        )
