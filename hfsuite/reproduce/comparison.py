"""What two runs have reported, side by side: at the best value of each, and last. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hfsuite.reproduce.recorded import RecordedRun, same_number
from hfsuite.tracking.names import mlflow_name


@dataclass(frozen=True)
class Best:
    """The value that a run is judged by.

    Args:
        metric: what it optimises.
        step: the optimizer step of its best report.
        value: of the metric there; None if that was not recorded.
    """

    metric: str
    step: int
    value: float | None


@dataclass(frozen=True)
class MetricPair:
    """One reported number in two runs.

    Args:
        name: of the metric.
        one: its value in the first run's best report, or its last where nobody knows which that is; None if there is
            none.
        other: likewise in the second.
        last_one: its last value in the first run.
        last_other: likewise in the second.
        apart_from: the first optimizer step that both have and at which they differ; None if there is none.
        common: how many steps both have.
    """

    name: str
    one: float | None
    other: float | None
    last_one: float | None
    last_other: float | None
    apart_from: int | None
    common: int

    @property
    def ends_elsewhere(self) -> bool:
        """Whether a last value is another than that of the best report."""
        pairs = ((self.one, self.last_one), (self.other, self.last_other))
        return any(last is not None and (best is None or not same_number(best, last)) for best, last in pairs)


def best_of(run: RecordedRun) -> Best | None:
    """The best report of a run; None if it optimises nothing, or has reported nothing."""
    metric, mode = run.recipe.get("metric"), run.recipe.get("mode")
    points = run.curves.get(mlflow_name(metric), {}) if metric else {}
    if recorded := run.recipe.get("best"):
        step: int = recorded["step"]
        return Best(str(metric), step, points.get(step, recorded["metrics"].get(metric)))
    finite = {step: value for step, value in points.items() if math.isfinite(value)}
    if not finite or mode not in ("min", "max"):
        return None
    step = (max if mode == "max" else min)(finite, key=lambda each: finite[each])
    return Best(str(metric), step, finite[step])


def side_by_side(one: RecordedRun, other: RecordedRun) -> list[MetricPair]:
    """Every metric of either run: what they optimise first, then by name."""
    bests = best_of(one), best_of(other)
    first = [mlflow_name(each.metric) for each in bests if each is not None]
    names = sorted({*one.curves, *other.curves}, key=lambda name: (name not in first, name))
    return [_pair(name, one, other, *bests) for name in names]


def _pair(
    name: str, one: RecordedRun, other: RecordedRun, our_best: Best | None, their_best: Best | None
) -> MetricPair:
    ours, theirs = one.curves.get(name, {}), other.curves.get(name, {})
    common = sorted(set(ours) & set(theirs))
    apart = next((step for step in common if not same_number(ours[step], theirs[step])), None)
    return MetricPair(
        name, _at(our_best, ours), _at(their_best, theirs), _last(ours), _last(theirs), apart, len(common)
    )  # fmt: skip


def _at(best: Best | None, points: dict[int, float]) -> float | None:
    return _last(points) if best is None else points.get(best.step)


def _last(points: dict[int, float]) -> float | None:
    return points[max(points)] if points else None
