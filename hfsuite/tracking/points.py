"""From a trial's reports to what MLflow holds of them: points of curves, and tags. Pure functions of the reports.

Numbers become metrics at their optimizer step; what else is reported becomes tags, and so do the values of settings
that change while a trial runs. The timestamps are those of the reports, so that whatever is written again lands on
itself.

MLflow keeps every point that it was ever told, and a trial may go back to its last checkpoint and report some steps
again. So what comes after a trial's last checkpoint waits for the next one, a minute at most, and is forgotten if the
trial goes back. Of what was written all the same, a value that comes out the same is not written twice, nor is one that
only says how fast it went; one that differs is written beside the old one, and a tag says which were superseded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from hfsuite.ranks import loss_bits
from hfsuite.report import EARLIER, FROM_HFSUITE, FROM_RAY_TUNE, SHOULD_CHECKPOINT
from hfsuite.tracking.names import OWN, NamePath, Names, flat, paths

KEPT_FROM_TUNE = {"training_iteration", "time_total_s"}
UNUSABLE = "unusable_metric"  # in a report: what stood for the metric to optimise and cannot be compared, by its name
FROM_TUNE = (FROM_RAY_TUNE | FROM_HFSUITE | {SHOULD_CHECKPOINT, UNUSABLE, "done", "experiment_tag"}) - KEPT_FROM_TUNE
OF_SPEED = re.compile(  # differs each time a step is trained
    r"time_total_s|(.*_)?(runtime|seconds|secs|elapsed|duration|time|wall_s)|.*_per_(second|sec|s|minute|hour)"
)
HELD_S = 60.0  # that a report without a checkpoint waits for one
SUPERSEDED, INFINITE, REPORTED, CHANGED, TESTED = "hfsuite.superseded", "infinite", "reported", "config", "test"

Point = tuple[str, float, int, int]  # name, value, milliseconds since 1970, optimizer step
Known = dict[tuple[str, int], set[str]]  # the values of a metric at a step, as `repr` writes them


def reported(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the training function reported, without what Ray Tune adds for itself."""
    return {name: value for name, value in result.items() if name not in FROM_TUNE}


def numbers(result: Mapping[str, Any], metric: str | None = None) -> dict[str, float]:
    """Of what was reported, the numbers; nested ones by names with dots.

    Args:
        result: a report.
        metric: what is optimised: nothing nested has this name.
    """
    return {name: float(value) for name, value in flat(reported(result), metric).items() if is_number(value)}


def rating(metrics: Mapping[str, Any], metric: str) -> float:
    """By what a report is better or worse than another: a finite number, or NaN, which is never better."""
    value = metrics.get(metric)
    return float(value) if is_number(value) and math.isfinite(value) else math.nan


def step_of(result: Mapping[str, Any]) -> int:
    """The optimizer step of a report; of one that does not name it, its number."""
    step = result.get("step", result["training_iteration"])
    return int(step) if is_number(step) and math.isfinite(step) else int(result["training_iteration"])


def milliseconds_of(result: Mapping[str, Any]) -> int:
    """When a report was made."""
    return int(result["timestamp"] * 1_000)


@dataclass
class Points:
    """What a trial's reports add to its run, one after another.

    Args:
        known: what is in MLflow already.
        metric: what is optimised, which has its plain name there; None if nothing is.
    """

    known: Known = field(default_factory=dict)
    metric: str | None = None
    names: Names = field(default_factory=Names)  # of metrics
    _tag_names: Names = field(default_factory=Names)
    tags: dict[str, str] = field(default_factory=dict)
    _steps: dict[int, int] = field(default_factory=dict)  # of each report
    _last: int = 0  # number of the last report
    _held: list[tuple[int, int, list[Point]]] = field(default_factory=list)  # number and time of a report, and points
    _settled_until: int = 0  # of those held
    _written: int = 0  # number of the last report whose points do not wait any more
    _superseded: list[dict[str, int]] = field(default_factory=list)
    loss_bits: dict[int, str] = field(default_factory=dict)  # by optimizer step
    restarts: list[int] = field(default_factory=list)  # the steps from which the trial went on, in new processes
    _first: dict[NamePath, Any] = field(default_factory=dict)  # the settings at the first report
    _changes: dict[NamePath, list[tuple[int, Any]]] = field(default_factory=dict)
    _infinite: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.metric is not None:
            self.names.reserve(self.metric, (self.metric,))
            self.names.reserve(f"best_{self.metric}", (OWN, "best"))

    @property
    def marked(self) -> dict[str, str]:
        """The names that have a mark, since another has the plain one, and what they stand for."""
        return {**self._tag_names.marked, **self.names.marked}

    def add(self, result: Mapping[str, Any]) -> None:
        """Takes a report. Its points are in what `settled` returns; its tags add up in `tags`.

        Args:
            result: a line of Ray Tune's `result.json`.
        """
        step, moment, number = step_of(result), milliseconds_of(result), int(result["training_iteration"])
        self._note_return(number, step, moment)
        before = max((each for n, each in self._steps.items() if n < number), default=0)
        self.loss_bits |= loss_bits.by_step(result, step, before)
        if number > 1 and result.get("iterations_since_restore") == 1:
            self.restarts.append(before)
        values = dict(paths(reported(result)))
        if (self.metric,) in values:  # it may stand in a group too
            values = {path: each for path, each in values.items() if len(path) == 1 or not self._is_metric(path)}
        texts = {(REPORTED, *path): value for path, value in values.items() if not is_number(value)}
        self._note_texts({path: value for path, value in texts.items() if value is not None})
        points = self._points(values, step, moment)
        for earlier in result.get(EARLIER, []):
            points += self._points(dict(paths(earlier)), earlier["step"], moment)
        self._note_unusable(result, step)
        points += self._changed_settings(result.get("config", {}), step, moment)
        self._held.append((number, moment, points))
        if result.get(SHOULD_CHECKPOINT):
            self._settled_until = len(self._held)

    def _is_metric(self, path: NamePath) -> bool:
        return self.metric in (".".join(path), "/".join(path))

    def _points(self, values: Mapping[NamePath, Any], step: int, moment: int) -> list[Point]:
        self.names.learn(path for path, value in values.items() if is_number(value))
        named = [(self.names.of(path), float(value)) for path, value in values.items() if is_number(value)]
        return [(name, self._finite(name, value, step), moment, step) for name, value in named]

    @property
    def is_holding(self) -> bool:
        """Whether there are reports that wait for a checkpoint."""
        return len(self._held) > self._settled_until

    def settled(self, before: float) -> list[Point]:
        """The points that are not there yet, of reports that a checkpoint has followed or that are old enough.

        Args:
            before: reports of an earlier time, in milliseconds since 1970, wait no longer.
        """
        while self.is_holding and self._held[self._settled_until][1] < before:
            self._settled_until += 1
        ready, self._held = self._held[: self._settled_until], self._held[self._settled_until :]
        self._settled_until = 0
        self._written = max([self._written, *(number for number, _, _ in ready)])
        return [point for _, _, points in ready for point in points if self._is_new(point)]

    def once(self, point: Point) -> list[Point]:
        """A point that is no part of a report, unless it is there."""
        return [point] if math.isfinite(point[1]) and self._is_new(point) else []

    def _is_known(self, points: list[Point]) -> bool:
        return any(repr(value) in self.known.get((name, step), ()) for name, value, _, step in points)

    def _is_new(self, point: Point) -> bool:
        name, value, _, step = point
        there = self.known.setdefault((name, step), set())
        if repr(value) in there or (there and OF_SPEED.fullmatch(name)):
            return False
        there.add(repr(value))
        return True

    def _note_return(self, number: int, step: int, moment: int) -> None:
        last_step = self._steps.get(self._last, 0)
        if number <= self._last or step < last_step:  # within one attempt of Tune's, Train may have made several
            first = min([number, *(n for n, each in self._steps.items() if each >= step)])
            gone = [each for each in self._held if each[0] >= first]
            self._held = [each for each in self._held if each[0] < first]
            self._settled_until = min(self._settled_until, len(self._held))
            written = [each for n, each in self._steps.items() if first <= n <= self._written]
            written += [points[0][3] for _, _, points in gone if self._is_known(points)]  # by another process
            if written:
                came_from = max((each for n, each in self._steps.items() if n < first), default=0)
                self._superseded.append({"after_step": came_from, "to_step": max(written), "before": moment})
                self.tags[SUPERSEDED] = json.dumps(self._superseded)
            self._written = min(self._written, first - 1)
            self._steps = {n: each for n, each in self._steps.items() if n < first}
        self._steps[number], self._last = step, number

    def _note_texts(self, values: Mapping[NamePath, Any]) -> None:
        self._tag_names.learn(values)
        self.tags |= {self._tag_names.of(path): as_text(value) for path, value in values.items()}

    def _note_unusable(self, result: Mapping[str, Any], step: int) -> None:
        """What a trial reported where a number should be; None too, which is no value anywhere else."""
        for name, value in result.get(UNUSABLE, {}).items():
            if is_number(value):
                self._finite(self.names.of((name,)), float(value), step)
            else:
                self._note_texts({(REPORTED, name): value})

    def _finite(self, name: str, value: float, step: int) -> float:
        """MLflow turns infinities into 1.8e308, which wrecks charts; NaN it keeps. A tag tells them apart."""
        if not math.isinf(value):
            return value
        where = self._infinite.setdefault(name, [])
        where.append(f"{'+' if value > 0 else '-'}inf at step {step}")
        self.tags[self._tag_names.of((INFINITE, name))] = ", ".join(where)
        return math.nan

    def _changed_settings(self, config: Mapping[str, Any], step: int, moment: int) -> list[Point]:
        """Parameters cannot change in MLflow: what a population changes is a metric, or a tag, over the steps."""
        values = dict(paths(settings_of(config)))
        self._first = self._first or values
        points = []
        for path, value in values.items():
            before = self._changes.get(path) or [(0, self._first.get(path))]
            if value == before[-1][1]:
                continue
            self._changes[path] = [*before, (step, value)]
            if is_number(value):
                known = [(0, before[0][1])] if len(before) == 1 and is_number(before[0][1]) else []
                name = self.names.of((CHANGED, *path))
                points += [(name, float(each), moment, at) for at, each in [*known, (step, value)]]
            else:
                told = " → ".join(f"{as_text(each)} (step {at})" for at, each in self._changes[path])
                self._note_texts({(CHANGED, *path): told})
        return points


def current(points: list[Any], last_step: int) -> list[Any]:
    """Of a metric's history in MLflow, the last word at each step, in the order of the steps.

    Args:
        points: MLflow's `Metric` objects.
        last_step: of the trial; what lies beyond was reported before it went back.
    """
    latest: dict[int, Any] = {}
    for point in sorted(points, key=lambda each: each.timestamp):
        latest[point.step] = point
    return [point for step, point in sorted(latest.items()) if step <= last_step]


def as_text(value: Any) -> str:
    """A value as a parameter or tag: texts as they are, lists and the like as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, default=str)
    return str(value)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that have another value than before; a tuple that was written down comes back as a list."""
    return {name: value for name, value in after.items() if as_text(value) != as_text(before.get(name, value))}


def settings_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The trial's own settings, below the one name that they have in Ray Tune's configuration."""
    inner = [value for value in config.values() if isinstance(value, Mapping)]
    return inner[0] if len(inner) == 1 else config


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number for MLflow, NaN and infinity among them: neither true nor false, nor a text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False
    return True
