"""The runs of a sweep in MLflow: one parent for the sweep, one child for each trial. Driver."""

from __future__ import annotations

import math
import posixpath
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from ray.train import Checkpoint

from hfsuite.tracking.state import TrialState

if TYPE_CHECKING:  # see `store`
    import mlflow

    from hfsuite.tracking.writer import Writer

NAME_LIMIT, PARAM_LIMIT, TAG_LIMIT = 250, 6_000, 8_000  # characters; MLflow cuts what is longer
PARAMS_A_BATCH, METRICS_A_BATCH = 100, 1_000
CHECKPOINT = "checkpoint"  # the artifact folder of a run's last checkpoint

TAG = "hfsuite"
KIND, SWEEP, TRIAL, TRIAL_ID, STATE = (f"{TAG}.{name}" for name in ("kind", "sweep", "trial", "trial_id", "state"))
METRIC, MODE, BEST_RUN, BEST_VALUE = (f"{TAG}.{name}" for name in ("metric", "mode", "best_run", "best_value"))
MODULE, PATH, CHECKPOINT_PATH = (f"{TAG}.{name}" for name in ("module", "path", "checkpoint"))


class Run:
    """One MLflow run: parameters once, metrics at their optimizer step, a state at the end.

    All is written in the background, in order, so that no trial waits for MLflow: the writer tells when it has
    arrived, and whether it has.
    """

    def __init__(self, writer: Writer, started: Future[str]) -> None:
        self.writer, self._started = writer, started

    @property
    def run_id(self) -> str:
        """MLflow's name for it. Waits until it has been made."""
        return self._started.result()

    @property
    def recorded_id(self) -> str | None:
        """The same, without waiting: None if it has not been made."""
        is_made = self._started.done() and self._started.exception() is None
        return self._started.result() if is_made else None

    @classmethod
    def start(
        cls,
        writer: Writer,
        experiment_id: str,
        *,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        parent: Run | None = None,
    ) -> Run:
        """Opens a run.

        Args:
            writer: of the tracking store.
            experiment_id: the MLflow experiment.
            name: what the run is called in the UI.
            tags: short texts to filter by.
            params: nested dicts become names with dots; `None` is recorded as text.
            parent: the sweep, for a trial.
        """
        entries = [(key, str(value)[:PARAM_LIMIT]) for key, value in flatten(params)]
        now = int(time.time() * 1000)

        def create() -> str:
            known = {**tags, "mlflow.parentRunId": parent.run_id} if parent else tags
            short = {key: str(value)[:TAG_LIMIT] for key, value in known.items()}
            run = writer.client.create_run(experiment_id, start_time=now, run_name=name, tags=short)
            for start in range(0, len(entries), PARAMS_A_BATCH):
                _log(writer.client, run.info.run_id, params=entries[start : start + PARAMS_A_BATCH])
            return str(run.info.run_id)

        return cls(writer, writer.submit(create))

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Records the numbers of one report at an optimizer step."""
        now = int(time.time() * 1000)
        numbers = [(key, _finite(value), now, step) for key, value in flatten(metrics) if _is_number(value)]
        for start in range(0, len(numbers), METRICS_A_BATCH):
            batch = numbers[start : start + METRICS_A_BATCH]
            self.writer.submit(partial(self._log, metrics=batch))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Adds or changes tags."""
        self.writer.submit(partial(self._log, tags=[(key, str(value)[:TAG_LIMIT]) for key, value in tags.items()]))

    def log_checkpoint(self, checkpoint: Checkpoint, path: str) -> None:
        """Copies a checkpoint to the run's artifacts, into the folder `checkpoint`; `path` says where it is itself."""
        self.set_tags({CHECKPOINT_PATH: path})

        def copy() -> None:
            with checkpoint.as_directory() as directory:
                self.writer.client.log_artifacts(self.run_id, directory, CHECKPOINT)

        self.writer.submit(copy)

    def log_text(self, text: str, file: str) -> None:
        """Stores a text as an artifact."""
        self.writer.submit(lambda: self.writer.client.log_text(self.run_id, text, file))

    def end(self, state: TrialState) -> None:
        """Closes the run; MLflow's status follows from the state."""
        now = int(time.time() * 1000)
        self.set_tags({STATE: state})
        self.writer.submit(
            lambda: self.writer.client.set_terminated(self.run_id, status=state.mlflow_status, end_time=now)
        )

    def _log(self, **entries: Sequence[tuple[Any, ...]]) -> None:
        _log(self.writer.client, self.run_id, **entries)


def _log(client: mlflow.MlflowClient, run_id: str, **entries: Sequence[tuple[Any, ...]]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    kinds = {"metrics": Metric, "params": Param, "tags": RunTag}
    client.log_batch(run_id, **{name: [kinds[name](*entry) for entry in each] for name, each in entries.items()})


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested dicts as pairs of a name with dots, as MLflow takes names, and a value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield _name(f"{prefix}{name}"), value


def _name(name: str) -> str:
    """A name as MLflow takes it: `recall@5` becomes `recall_5`. It refuses whole reports for one name."""
    name = re.sub(r"[^\w\-. :/]", "_", name)[:NAME_LIMIT]
    is_path = posixpath.normpath(name) == name and not name.startswith(("/", ".."))
    return name if is_path else name.replace("/", "_").strip(".") or "_"


def find_sweep(client: mlflow.MlflowClient, sweep: str | None) -> mlflow.entities.Run | None:
    """The parent run of a sweep: by name, by run id or the start of one, or the newest of all if `sweep` is None."""
    experiments = [each.experiment_id for each in client.search_experiments()]
    filters = f"tags.`{KIND}` = 'sweep'"
    if sweep is not None:
        named = _search(client, experiments, f"{filters} and tags.`{SWEEP}` = '{sweep.replace(chr(39), '')}'")
        if found := next(named, None):
            return found
        return next((run for run in _search(client, experiments, filters) if run.info.run_id.startswith(sweep)), None)
    return next(_search(client, experiments, filters), None)


def sweep_names(client: mlflow.MlflowClient) -> list[str]:
    """The names of all recorded sweeps, newest first."""
    experiments = [each.experiment_id for each in client.search_experiments()]
    return [
        run.data.tags.get(SWEEP, run.info.run_id) for run in _search(client, experiments, f"tags.`{KIND}` = 'sweep'")
    ]


def children(client: mlflow.MlflowClient, parent: mlflow.entities.Run) -> list[mlflow.entities.Run]:
    """The trials of a sweep, in the order of their numbers."""
    found = _search(client, [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    return sorted(found, key=lambda run: int(run.data.tags.get(TRIAL, 0)))


def _search(client: mlflow.MlflowClient, experiments: Iterable[str], filters: str) -> Iterator[mlflow.entities.Run]:
    token = None
    while True:
        page = client.search_runs(list(experiments), filters, order_by=["attributes.start_time DESC"], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: float) -> float:
    """MLflow turns infinities into 1.8e308, which wrecks charts and orders; NaN it keeps."""
    return math.nan if math.isinf(value) else float(value)
