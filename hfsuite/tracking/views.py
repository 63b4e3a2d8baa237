"""How a sweep opens in MLflow's interface: its trials, the best first, the columns that matter, and charts to compare.

MLflow remembers such a view as a tag of the experiment, and offers it in the menu of saved views (3.16 and later). What
its own "Save view" writes is written here. In the writer's thread, or in `hfsuite sync`.
"""

from __future__ import annotations

import base64
import json
import uuid
import zlib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from hfsuite.tracking import runs
from hfsuite.tracking.names import mlflow_name
from hfsuite.tracking.record import SweepRecord, TrialRecord

if TYPE_CHECKING:  # see `store`
    import mlflow

PREFIX, OURS = "mlflow.sharedViewState.", "hfsuite-"
IN_URL = "viewStateShareKey"
KEPT = 20  # views of the newest sweeps of an experiment; each costs every visitor of it a kilobyte
LIMIT = 5_000  # characters of an experiment's tag
COLUMNS, AXES = 8, 6  # settings that have a column, and an axis among parallel coordinates: their names take room
COMPARED = 100  # trials in a chart


def write_view(
    client: mlflow.MlflowClient, sweep_run: runs.Run, sweep: SweepRecord, searched: Sequence[str],
    partly: Collection[str] = (),
) -> None:  # fmt: skip
    """Makes or renews the view of a sweep; those of old sweeps of the experiment go.

    Args:
        client: of the tracking store.
        sweep_run: the sweep's run.
        sweep: its record.
        searched: the names of the settings that it varies.
        partly: those of them that do not count in some trials: a chart leaves out whatever lacks one of its axes.
    """
    tags = client.get_experiment(sweep_run.experiment_id).tags
    name = PREFIX + view_id(sweep.name)
    value = _saved(sweep, _state(sweep_run.run_id, sweep, searched, partly))
    if tags.get(name) != value and len(value) <= LIMIT:
        client.set_experiment_tag(sweep_run.experiment_id, name, value)
    ours = {each: _made_at(text) for each, text in tags.items() if each.startswith(PREFIX + OURS) and each != name}
    for old in sorted(ours, key=lambda each: ours[each])[: max(0, len(ours) + 1 - KEPT)]:
        client.delete_experiment_tag(sweep_run.experiment_id, old)


def view_id(sweep: str) -> str:
    """The name of a sweep's view in links."""
    return OURS + mlflow_name(sweep)


def searched_by(trials: Sequence[TrialRecord]) -> list[str]:
    """The settings that trials vary, in the order in which they are declared."""
    return list(dict.fromkeys(name for record in trials for name in record.searched))


def link(address: str, run: mlflow.entities.Run, tags: dict[str, str]) -> str:
    """The page of MLflow that shows the trials of a sweep side by side, with charts.

    An experiment opens on another page, and folds children under their parent, unless the link says otherwise.

    Args:
        address: of the server.
        run: the sweep's.
        tags: of its experiment.
    """
    name = view_id(str(run.data.tags.get(runs.SWEEP)))
    metric = mlflow_name(f"best_{run.data.tags.get(runs.METRIC)}")
    query = {"workflowType": "machine_learning", "compareRunsMode": "CHART"}
    if PREFIX + name in tags:
        query |= {IN_URL: name}
    else:  # an older sweep's, that went, or the store's MLflow is too old for views
        query |= {
            "searchFilter": _only_trials(run.info.run_id),
            "orderByKey": f"metrics.`{metric}`",
            "orderByAsc": str(run.data.tags.get(runs.MODE) == "min").lower(),
        }
    return f"{address}/#/experiments/{run.info.experiment_id}/runs?{urlencode(query, quote_via=quote)}"


def comparison_link(address: str, sweep: mlflow.entities.Run, trials: Sequence[mlflow.entities.Run]) -> str:
    """The page of MLflow that compares runs in every detail, parallel coordinates first."""
    query = {
        "runs": json.dumps([run.info.run_id for run in trials[:COMPARED]]),
        "experiments": json.dumps([sweep.info.experiment_id]),
    }
    return f"{address}/#/compare-runs?{urlencode(query, quote_via=quote)}"


# ---- inside


def _only_trials(parent: str) -> str:
    return f'tags."mlflow.parentRunId" = "{parent}"'


def _state(parent: str, sweep: SweepRecord, searched: Sequence[str], partly: Collection[str]) -> dict[str, Any]:
    """As MLflow's page keeps it."""
    best, metric = mlflow_name(f"best_{sweep.metric}"), mlflow_name(sweep.metric)
    params = [mlflow_name(name) for name in searched][:COLUMNS]
    axes = [mlflow_name(name) for name in searched if name not in partly][:AXES]
    section, generated = (str(uuid.uuid5(uuid.NAMESPACE_URL, f"{sweep.sweep_id} {name}")) for name in ("ours", "other"))
    columns = [
        f"metrics.`{best}`", *(f"params.`{name}`" for name in params), f"tags.`{runs.STATE}`",
        "attributes.`Duration`", "attributes.`Models`",
    ]  # fmt: skip

    def chart(kind: str, **more: Any) -> dict[str, Any]:
        own = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{sweep.sweep_id} {kind} {more}"))
        common = {"metricSectionId": section, "deleted": False, "isGenerated": False, "runsCountToCompare": COMPARED}
        return {"type": kind, "uuid": own, **common, **more}

    return {
        "searchFilter": _only_trials(parent),
        "orderByKey": f"metrics.`{best}`",
        "orderByAsc": sweep.mode == "min",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "compareRunSections": [
            {"uuid": section, "name": sweep.experiment, "display": True, "isReordered": False, "deleted": False,
             "isGenerated": False, "columns": 1, "cardHeight": 420},
            {"uuid": generated, "name": "Model metrics", "display": True, "isReordered": False, "deleted": False,
             "isGenerated": True},
        ],
        "compareRunCharts": [
            chart("PARALLEL", selectedParams=axes, selectedMetrics=[best], showAllRuns=False),
            chart("LINE", metricKey=metric, selectedMetricKeys=[metric], lineSmoothness=0, scaleType="linear",
                  xAxisKey="step", xAxisScaleType="linear", selectedXAxisMetricKey="", yAxisKey="metric",
                  yAxisExpressions=[], ignoreOutliers=False, useGlobalXaxisKey=True, useGlobalLineSmoothing=True),
        ],
    }  # fmt: skip


def _saved(sweep: SweepRecord, state: dict[str, Any]) -> str:
    """The page's state in the envelope of a saved view, compressed as MLflow does it."""
    packed = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps(
        {"name": sweep.name, "createdAt": sweep.created_at, "updatedAt": sweep.created_at, "state": packed}
    )


def _made_at(saved: str) -> int:
    try:
        return int(json.loads(saved)["createdAt"])
    except (ValueError, KeyError, TypeError):
        return 0
