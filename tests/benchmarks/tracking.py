"""What it costs to record a sweep: the same events, given to this project's tracking and to Ray's callback."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pyarrow.fs

from hfsuite.tracking.state import TrialState
from tests.tracking import made, stores
from tests.tracking.faulty_proxy import Faults, faulty

AT_ONCE = 4  # trials
METRICS = 20
CONFIG = {"train_loop_config": {"lr": 1e-4, "kind": "plain"}}


@contextmanager
def store(kind: str, folder: Path) -> Iterator[None]:
    """SQLite in the working directory, or a real MLflow server on PostgreSQL."""
    os.chdir(folder)
    with stores.postgresql(folder) if kind == "server" else nullcontext():
        yield


def events(trials: int, reports: int) -> Iterator[tuple[str, int, int]]:
    """What happens, to which trial, at which report: some trials at once."""
    for start in range(0, trials, AT_ONCE):
        group = range(start, min(start + AT_ONCE, trials))
        yield from (("start", number, 0) for number in group)
        yield from (("report", number, place) for place in range(1, reports + 1) for number in group)
        yield from (("end", number, reports) for number in group)


def report(number: int, place: int) -> dict[str, Any]:
    """A report of 20 metrics, as Ray Tune hands it to callbacks."""
    more = {f"metric_{index}": 1 / (place + index + number / 1_000) for index in range(METRICS - 3)}
    return made.report(place, 10 * place, 1 / place, trial_id=f"t{number}", **more) | {"config": CONFIG}


class Trial:
    """A trial of Ray Tune, as far as callbacks look at it."""

    def __init__(self, number: int, folder: Path) -> None:
        path = folder / f"trial_{number:03d}"
        self.trial_id, self.custom_trial_name, self.status, self.config = f"t{number}", path.name, "RUNNING", CONFIG
        self.last_result: dict[str, Any] = {}
        self.local_path = str(path)
        self.storage = SimpleNamespace(storage_filesystem=pyarrow.fs.LocalFileSystem(), trial_fs_path=str(path))

    def init_local_path(self) -> None:
        Path(self.local_path).mkdir(parents=True, exist_ok=True)


def ours(folder: Path, trials: int, reports: int, kind: str) -> dict[str, Any]:
    """This project's callbacks and writer; the time of the callbacks is the driver's own."""
    from hfsuite.search.trial_schedulers import Budget
    from hfsuite.seeds import SeedRule
    from hfsuite.sweeps.display import Display
    from hfsuite.sweeps.observer import SweepObserver
    from hfsuite.sweeps.report_log import ReportLog
    from hfsuite.sweeps.result import TrialResult
    from hfsuite.sweeps.trial_settings import TrialSettings
    from hfsuite.tracking import store as tracking_store
    from hfsuite.tracking.recorder import Recorder
    from hfsuite.tracking.writer import Writer

    with store(kind, folder):
        directory, record = made.sweep(planned=trials)
        record.params["trial_scheduler"], record.arguments["keep"] = "fifo", "none"
        writer = Writer(Recorder(tracking_store.open_store(), directory), record)
        display = Display(title="bench", metric="loss", mode="min", progress=[], total=trials)
        observer = SweepObserver(
            sweep=record, directory=directory, writer=writer, display=display, budget=Budget.of("fifo"), known={},
            new_trial=lambda number, each: TrialResult(number, each.trial_id, {}, {}, path=each.local_path),
            settings=TrialSettings(
                argument="train_loop_config", space={}, conditions={}, constants={},
                seeds=SeedRule(0, per_trial=True, fills_setting=False),
            ),
        )  # fmt: skip
        log, known, spent, costs = ReportLog(), {}, 0.0, []
        writer.begin()
        began = time.perf_counter()
        for what, number, place in events(trials, reports):
            each = known.setdefault(number, Trial(number, Path(directory.path)))
            result = report(number, place) if what == "report" else {}
            started = time.perf_counter()
            if what == "start":
                log.log_trial_start(each)
                observer.on_trial_start(0, [], each)
            elif what == "report":
                each.last_result = result
                observer.on_trial_result(0, [], each, result)
                log.log_trial_result(0, each, result)
            else:
                each.last_result |= {"done": True}
                log.log_trial_end(each)
                observer.on_trial_complete(0, [], each)
            observer.on_step_end(0, [])
            costs.append((what, time.perf_counter() - started))
        callbacks = time.perf_counter() - began
        record.state, record.ended_at = TrialState.COMPLETED, made.now()
        writer.touch()
        fault = writer.finish()
        wall = time.perf_counter() - began
        assert fault is None, fault
        spent = sum(seconds for _, seconds in costs)
        return {
            "wall_s": wall, "callbacks_wall_s": callbacks, "driver_s": spent,
            "report_s": [seconds for what, seconds in costs if what == "report"],
            "points": _points(tracking_store.open_store()),
        }  # fmt: skip


def rays(folder: Path, trials: int, reports: int, kind: str) -> dict[str, Any]:
    """Ray's `MLflowLoggerCallback`, in the same store."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    with store(kind, folder):
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder}/mlflow.db"
        callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name="rays")
        callback.setup()
        known: dict[int, Any] = {}
        began = time.perf_counter()
        for what, number, place in events(trials, reports):
            each = known.setdefault(number, Trial(number, folder))
            if what == "start":
                callback.log_trial_start(each)
            elif what == "report":
                callback.log_trial_result(0, each, report(number, place))
            else:
                callback.log_trial_end(each)
        wall = time.perf_counter() - began
        import mlflow

        return {"wall_s": wall, "points": _points(mlflow.MlflowClient(uri))}


@contextmanager
def sweeps_tracked(how: str, folder: Path) -> Iterator[None]:
    """Sweeps without tracking ("off"), with it ("on"), and with a server whose every answer takes a second ("slow")."""
    from hfsuite.tracking.writer import Writer

    with ExitStack() as stack:
        if how == "off":
            for name in ("begin", "touch", "close"):
                stack.enter_context(mock.patch.object(Writer, name))
        if how == "slow":
            address = stack.enter_context(stores.server(folder))
            slow = stack.enter_context(faulty(address, Faults(delay_s=1.0)))
            stack.enter_context(mock.patch.dict(os.environ, MLFLOW_TRACKING_URI=slow))
        yield


def lookups(folder: Path, trials: int, count: int) -> dict[str, Any]:
    """How long it takes to find a trial's run again, in a sweep of so many: by the id that is in its directory."""
    from mlflow.entities import RunTag

    from hfsuite.tracking import runs
    from hfsuite.tracking import store as tracking_store

    with store("sqlite", folder):
        client = tracking_store.open_store()
        experiment = tracking_store.experiment_id(client, "many")
        ids = []
        for number in range(trials):
            tags = {runs.SWEEP_ID: "many", runs.TRIAL_ID: f"t{number}", runs.KIND: "trial"}
            run = client.create_run(experiment, tags=tags, run_name=f"trial {number}")
            ids.append(run.info.run_id)
            client.log_batch(run.info.run_id, tags=[RunTag(f"hfsuite.{index}", "text") for index in range(20)])
        took = []
        for place in range(count):
            number = place * trials // count
            identity = {runs.SWEEP_ID: "many", runs.TRIAL_ID: f"t{number}"}
            began = time.perf_counter()
            found = runs.find_or_create(
                client, experiment, identity, name="", started_at=0, tags={}, remembered=ids[number]
            )
            assert found.run_id == ids[number]
            took.append(time.perf_counter() - began)
        return {"s": took}


def _points(client: Any) -> int:
    """How many points of the curve "loss" are in the store, over all trials."""
    experiments = [each.experiment_id for each in client.search_experiments()]
    found = list(client.search_runs(experiments, max_results=1_000))
    trials = [run for run in found if "system/cpu_utilization_percentage" not in run.data.metrics]
    trials = [run for run in trials if run.data.tags.get("hfsuite.kind") != "sweep"]
    return sum(len(client.get_metric_history(run.info.run_id, "loss")) for run in trials)
