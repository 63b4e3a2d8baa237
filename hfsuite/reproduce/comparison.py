"""What two runs have reported, side by side. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from hfsuite.reproduce.recorded import RecordedRun, same_number


@dataclass(frozen=True)
class MetricPair:
    """One reported number in two runs.

    Args:
        name: of the metric.
        one: its last value in the first run; None if that did not report it.
        other: likewise in the second.
        apart_from: the first optimizer step that both have and at which they differ; None if there is none.
        common: how many steps both have.
    """

    name: str
    one: float | None
    other: float | None
    apart_from: int | None
    common: int


def side_by_side(one: RecordedRun, other: RecordedRun) -> list[MetricPair]:
    """Every metric of either run, by name."""
    return [_pair(name, one, other) for name in sorted({*one.curves, *other.curves})]


def _pair(name: str, one: RecordedRun, other: RecordedRun) -> MetricPair:
    ours, theirs = one.curves.get(name, {}), other.curves.get(name, {})
    common = sorted(set(ours) & set(theirs))
    apart = next((step for step in common if not same_number(ours[step], theirs[step])), None)
    return MetricPair(name, _last(ours), _last(theirs), apart, len(common))


def _last(points: dict[int, float]) -> float | None:
    return points[max(points)] if points else None
