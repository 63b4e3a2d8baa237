"""What a training function logs with MLflow itself, as it may stand in its trial's run. Runs in ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Set
from typing import TYPE_CHECKING

from mlflow.entities import Metric, Param, RunTag

from hfsuite.tracking import settings
from hfsuite.tracking.inputs import AS_PARAMS
from hfsuite.tracking.names import mlflow_name, told, with_mark
from hfsuite.tracking.secrets import as_parameter, without_secrets

if TYPE_CHECKING:
    from mlflow.entities import Run

KEPT_TAGS = ("hfsuite.", "mlflow.runName", "mlflow.parentRunId", "mlflow.source.", "mlflow.user")
LOGGED = "hfsuite.logged_names"  # a tag: names with a mark, and what was logged by them
INFINITE = "hfsuite.logged_infinite"  # a tag: where infinity was logged, which MLflow would make a number


def is_sweeps(tag: str) -> bool:
    """Whether a tag of a trial's run is the sweep's."""
    return tag.startswith(KEPT_TAGS)


class Logged:
    """Names that stand for something of the sweep's get a mark: a setting, what is optimised, what is reported.

    Args:
        run: the trial's.
        reported: names in MLflow of what has been reported so far; it grows.
        tell: called with what becomes of a value.
    """

    def __init__(self, run: Run, reported: Set[str], tell: Callable[[str], None]) -> None:
        self.run_id, self.reported, self.tell = run.info.run_id, reported, tell
        objective = run.data.tags.get("hfsuite.metric", "")
        self.optimised = {mlflow_name(objective), mlflow_name(f"best_{objective}")}
        self.settings = {**dict.fromkeys(AS_PARAMS), **settings.read_all(run)}
        self.plain: set[str] = set()  # names of metrics without a mark
        self._marked: dict[str, str] = {}
        self._infinite: dict[str, list[str]] = {}

    def admitted(
        self, metrics: Iterable[Metric], params: Iterable[Param], tags: Iterable[RunTag]
    ) -> tuple[list[Metric], list[Param], list[RunTag]]:
        """What may be added to the trial's run."""
        marked, infinite = len(self._marked), sum(map(len, self._infinite.values()))
        own_metrics = [self._metric(each) for each in metrics]
        own_params = [
            Param(self._with_mark(key) if key in self.settings else key, value)
            for key, value in ((each.key, as_parameter(each.key, str(each.value))) for each in params)
            if key not in self.settings or self.settings[key] != value
        ]
        own_tags = []
        for each in tags:
            if is_sweeps(each.key):
                self.tell(f"the tag {each.key!r} is the sweep's, and stays as it is")
            else:
                own_tags.append(RunTag(each.key, without_secrets(str(each.value))))
        if len(self._marked) > marked:
            own_tags.append(RunTag(LOGGED, told(self._marked)))
        if sum(map(len, self._infinite.values())) > infinite:
            where = "; ".join(f"{name}: {', '.join(each)}" for name, each in sorted(self._infinite.items()))
            own_tags.append(RunTag(INFINITE, where))
        return own_metrics, own_params, own_tags

    def _metric(self, metric: Metric) -> Metric:
        """By a name of its own; infinity as NaN, since MLflow would make it 1.8e308."""
        name, value = metric.key, metric.value
        if name in self.optimised or (name in self.reported and name not in self.plain):
            name = self._with_mark(name)
        else:
            self.plain.add(name)
        if math.isinf(value):
            self._infinite.setdefault(name, []).append(f"{value:+} at step {metric.step}")
            value = math.nan
        return Metric(
            name, value, metric.timestamp, metric.step, model_id=metric.model_id, dataset_name=metric.dataset_name,
            dataset_digest=metric.dataset_digest, run_id=self.run_id,
        )  # fmt: skip

    def _with_mark(self, name: str) -> str:
        marked = with_mark(name, ("mlflow", name))
        self._marked[marked] = f"{name} as the training function logged it"
        self.tell(f"{name!r} is the sweep's own name: what the training function logs is {marked!r}")
        return marked
