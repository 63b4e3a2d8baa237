"""A sweep whose trials do not report what it optimises ends at the first report. Driver."""

from __future__ import annotations

from typing import Any

from ray.tune import Stopper

from hfsuite.errors import MetricNotReported, did_you_mean
from hfsuite.tracking.points import reported


class MetricIsReported(Stopper):
    """Ends a sweep at its first report if that lacks the metric to optimise; later reports may leave it out.

    Args:
        metric: what is optimised.
        reports: after how many reports a trial ends, whatever it still would do; None for no such end.
    """

    def __init__(self, metric: str, reports: int | None = None) -> None:
        self.metric, self.reports = metric, reports
        self.fault: MetricNotReported | None = None
        self.seen = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Tune asks on the driver, before searcher and trial scheduler see the report."""
        metrics = reported(result)
        self.seen = self.seen or self.metric in metrics
        if not self.seen:
            self.fault = MetricNotReported(
                f"The metric {self.metric!r} is not in the trial's report. {did_you_mean(self.metric, metrics)} "
                f"Reported: {', '.join(sorted(metrics))}."
            )
        is_at_end = self.reports is not None and result["training_iteration"] >= self.reports
        return self.fault is not None or is_at_end

    def stop_all(self) -> bool:
        """Whether the sweep ends here."""
        return self.fault is not None
