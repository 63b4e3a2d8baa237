"""What a report may say about what is optimised, before searcher and trial scheduler see it. Driver."""

from __future__ import annotations

import math
from typing import Any

from ray.tune import Stopper

from hfsuite.errors import MetricNotReported, TrialFailed, nearest
from hfsuite.ranks.examination import value_at
from hfsuite.report import TRAINING_FINISHED, UNEVALUATED
from hfsuite.tracking.points import UNUSABLE, is_number, reported

EVALUATED = "eval_"  # how Transformers' metrics of evaluations begin
NEVER_NUMBERS = (str, bytes, list, tuple, dict, set)
SHOWN = 80  # characters of a value in a message


class MetricIsReported(Stopper):
    """Ends a sweep at its first report if that lacks the metric to optimise; later reports may leave it out.

    NaN and None are not missing yet: the next report, or another trial, may have a number. Nor is one missing
    that comes with an evaluation, in a report that was due without: unless the training ends with it.

    Args:
        metric: what is optimised.
        reports: after how many reports a trial ends, whatever it still would do; None for no such end.
        mode: "min" or "max".
        seen: whether a trial has reported it before: of a sweep that is taken up again.
    """

    def __init__(self, metric: str, reports: int | None = None, *, mode: str = "min", seen: bool = False) -> None:
        self.metric, self.reports, self.mode, self.seen = metric, reports, mode, seen
        self.hopeless: TrialFailed | None = None  # why no trial can do better than one that has failed
        self.fault: MetricNotReported | None = None
        self.unusable: MetricNotReported | None = None  # what there was instead, until there is a number

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Tune asks on the driver, before searcher and trial scheduler see the report."""
        set_aside(result, self.metric, self.mode)
        self.seen = self.seen or self.metric in result
        if self.seen:
            self.unusable = None
        elif self.metric in (instead := result.get(UNUSABLE, {})):
            value = instead[self.metric]
            told = self._missing(f"Its value was {_shown(value)}, not a number.", result)
            if isinstance(value, NEVER_NUMBERS):
                self.fault = told
            else:
                self.unusable = told
        elif self.unusable is None and (result.get(TRAINING_FINISHED) or not result.get(UNEVALUATED)):
            near = nearest(self.metric, reported(result))
            why = f"Did you mean {' or '.join(map(repr, near))}?" if near else ""
            if self.metric.startswith(EVALUATED) and not any(each.startswith(EVALUATED) for each in reported(result)):
                why = (
                    "No evaluation was made: give TrainingArguments an `eval_strategy`, the same as `logging_strategy`."
                )
            self.fault = self._missing(why, result)
        is_at_end = self.reports is not None and result["training_iteration"] >= self.reports
        return self.fault is not None or is_at_end

    def at_end(self) -> None:
        """The sweep has ended.

        Raises:
            MetricNotReported: no trial has reported a number.
        """
        if (fault := self.fault or self.unusable) is not None:
            raise fault

    def _missing(self, why: str, result: dict[str, Any]) -> MetricNotReported:
        others = sorted(set(reported(result)) - {self.metric})
        told = f"Reported: {', '.join(others)}." if others else "Nothing was reported."
        return MetricNotReported(
            " ".join(filter(None, [f"The metric {self.metric!r} is not in the trial's report.", why, told]))
        )

    def stop_all(self) -> bool:
        """Whether the sweep ends here."""
        return (self.fault or self.hopeless) is not None


def set_aside(result: dict[str, Any], metric: str, mode: str) -> None:
    """Takes what nothing can be compared by out of a report: it stays there under another name, for the record.

    A value that is no number is as if there were none. NaN stays, since the training says that it has diverged; the
    infinity that would be better than any number is NaN, or searchers would look for more of it.

    Args:
        result: Ray Tune's, which is changed.
        metric: what is optimised.
        mode: "min" or "max".
    """
    if metric not in result and (inside := value_at(result, metric)) is not None:
        result[metric] = inside  # of a group
    if metric not in result:
        return
    value = result[metric]
    if not is_number(value):
        result[UNUSABLE] = {metric: result.pop(metric)}
    elif value == (math.inf if mode == "max" else -math.inf):
        result[UNUSABLE], result[metric] = {metric: value}, math.nan


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
