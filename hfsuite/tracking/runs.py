"""The runs of a sweep in MLflow: one parent for the sweep, one child for each trial, made once and found again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hfsuite.tracking import store
from hfsuite.tracking.names import names_of, paths
from hfsuite.tracking.points import Known, Point, as_text
from hfsuite.tracking.secrets import as_parameter, without_secrets

if TYPE_CHECKING:  # see `store`
    import mlflow
    from mlflow.entities import LoggedModel

PARAM_LIMIT, TAG_LIMIT = 6_000, 8_000  # characters; MLflow cuts what is longer
PARAMS_A_BATCH, METRICS_A_BATCH, TAGS_A_BATCH = 100, 1_000, 100
OWN_PARAMS = ("num_workers",)  # of a trial, beside its settings
LONG_VALUES = "long_values"  # the artifact folder of parameters that were cut

TAG = "hfsuite"
KIND, SWEEP, TRIAL, TRIAL_ID, STATE = (f"{TAG}.{name}" for name in ("kind", "sweep", "trial", "trial_id", "state"))
METRIC, MODE, BEST_RUN, BEST_VALUE = (f"{TAG}.{name}" for name in ("metric", "mode", "best_run", "best_value"))
MODULE, EXPERIMENT, PATH, CHECKPOINT_PATH = (f"{TAG}.{name}" for name in ("module", "experiment", "path", "checkpoint"))
SWEEP_ID, WHY, SETTLED, LAST_STEP = (f"{TAG}.{name}" for name in ("sweep_id", "why", "settled", "last_step"))
REPRODUCES, REPEATED_BY, VERDICT = (f"{TAG}.{name}" for name in ("reproduces", "repeated_by", "verdict"))
CONFIRMED, CONFIRMED_RUN, CONFIRMS = (f"{TAG}.{name}" for name in ("confirmed", "confirmed_run", "confirms"))
WARM_START, VALUE, MARKED = (f"{TAG}.{name}" for name in ("warm_start", "value", "marked_names"))
PLANNED, OVER, FAILED, HOURS = (f"{TAG}.trials.{name}" for name in ("planned", "over", "failed", "worker_hours"))
GPU_SHARE, GPUS, WORKERS = f"{TAG}.gpu_share", f"{TAG}.gpus", f"{TAG}.workers"


class Run:
    """A run in MLflow, and what is known to be there: only what is missing is written. In the writer's thread.

    Args:
        client: of the tracking store.
        found: as MLflow returned it.
    """

    def __init__(self, client: mlflow.MlflowClient, found: mlflow.entities.Run) -> None:
        self.client, self.run_id = client, str(found.info.run_id)
        self.experiment_id = str(found.info.experiment_id)
        self.tags: dict[str, str] = dict(found.data.tags)
        self.params: dict[str, str] = dict(found.data.params)
        self.metrics: list[str] = list(found.data.metrics)
        self.status, self.end_time = str(found.info.status), found.info.end_time
        self.unwritten: list[Point] = []
        self.marked: dict[str, str] = {}  # names of parameters that have a mark, and what they stand for
        self.datasets: dict[str, tuple[str, str]] = {}  # name and digest, by what they are for
        self.models: dict[str, LoggedModel] | None = None  # by the directory of the checkpoint; None: not asked yet

    def known_points(self) -> Known:
        """What MLflow has of this run's curves."""
        known: Known = {}
        for name in self.metrics:
            for point in self.client.get_metric_history(self.run_id, name):
                known.setdefault((name, point.step), set()).add(repr(float(point.value)))
        return known

    def write_points(self, points: Iterable[Point]) -> None:
        """Adds points; if the store does not answer, those that it has not taken are written at the next call.

        Raises:
            Exception: the store does not answer; or it has refused some point, after all others have been written.
        """
        from mlflow.entities import Metric

        self.unwritten += points
        size, refusal = METRICS_A_BATCH, None
        while self.unwritten:
            batch = self.unwritten[:size]
            try:
                self.client.log_batch(self.run_id, metrics=[Metric(*point) for point in batch])
            except Exception as error:
                if not store.is_refusal(error):
                    raise
                refusal = error
                if len(batch) > 1:
                    size = (len(batch) + 1) // 2
                    continue
            del self.unwritten[: len(batch)]
            size = METRICS_A_BATCH
        if refusal is not None:
            raise refusal

    def write_params(
        self, values: Mapping[str, Any], own: Mapping[str, Any] | None = None, without: Collection[str] = ()
    ) -> None:
        """Adds the parameters that are not there, nested ones with dots; a long one is an artifact too.

        Args:
            values: from names to values.
            own: likewise, those of hfsuite's, which none of the others can hide.
            without: names of values that have names in MLflow, and are not written.
        """
        from mlflow.entities import Param

        names = names_of(values, own or {})
        self.marked |= names.marked
        written = {names.of(path): value for path, value in paths(values) if path[0] not in without}
        named = {**written, **(own or {})}
        texts = {name: as_parameter(name, as_text(value)) for name, value in named.items()}
        missing = {name: text for name, text in texts.items() if name not in self.params}
        for name, text in missing.items():
            if len(text) > PARAM_LIMIT:
                self.client.log_text(self.run_id, text, f"{LONG_VALUES}/{name.replace('/', '_')}.txt")
        for batch in _batches(list(missing.items()), PARAMS_A_BATCH):
            self.client.log_batch(self.run_id, params=[Param(name, text[:PARAM_LIMIT]) for name, text in batch])
            self.params |= dict(batch)

    def write_tags(self, values: Mapping[str, Any]) -> None:
        """Adds or changes tags."""
        from mlflow.entities import RunTag

        texts = {name: without_secrets(as_text(value))[:TAG_LIMIT] for name, value in values.items()}
        changed = [(name, text) for name, text in texts.items() if self.tags.get(name) != text]
        for batch in _batches(changed, TAGS_A_BATCH):
            self.client.log_batch(self.run_id, tags=[RunTag(*tag) for tag in batch])
            self.tags |= dict(batch)

    def write_status(self, status: str, ended_at: int | None) -> None:
        """MLflow's own status, and when the run ended."""
        if status == "RUNNING":
            if self.status != status:
                self.client.update_run(self.run_id, status=status)
        elif (status, ended_at) != (self.status, self.end_time):
            self.client.set_terminated(self.run_id, status=status, end_time=ended_at)
        self.status, self.end_time = status, ended_at


def find_or_create(
    client: mlflow.MlflowClient, experiment_id: str, identity: Mapping[str, str], *, name: str, started_at: int,
    tags: Mapping[str, str], remembered: str | None = None,
) -> Run:  # fmt: skip
    """The run that has these tags; made if there is none. Two calls at once would make two: one thread calls.

    Args:
        client: of the tracking store.
        experiment_id: MLflow's.
        identity: the tags by which it is found again.
        name: of a new run.
        started_at: of a new run, in milliseconds since 1970.
        tags: of a new run, besides.
        remembered: its id, if that has been written down: a search takes the longer, the more runs there are.
    """
    if remembered is not None and (run := _if_it_is(client, remembered, identity)) is not None:
        return Run(client, run)
    filters = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in identity.items())

    def find() -> list[mlflow.entities.Run]:
        return list(client.search_runs([experiment_id], filters, order_by=["attributes.start_time ASC"]))

    if not (found := find()):
        short = {tag: without_secrets(text)[:TAG_LIMIT] for tag, text in {**tags, **identity}.items()}
        client.create_run(experiment_id, start_time=started_at, run_name=without_secrets(name), tags=short)
        found = find()
    for twin in found[1:]:  # a server that was asked twice since its first answer was lost
        client.delete_run(twin.info.run_id)
    return Run(client, found[0])


def _if_it_is(client: mlflow.MlflowClient, run_id: str, identity: Mapping[str, str]) -> mlflow.entities.Run | None:
    """The run of this id, if this store has it and it is the one."""
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if not store.is_refusal(error):
            raise
        return None
    is_it = run.info.lifecycle_stage == "active" and identity.items() <= run.data.tags.items()
    return run if is_it else None


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


def newest_with_trials(client: mlflow.MlflowClient) -> mlflow.entities.Run | None:
    """The parent run of the newest sweep that has begun a trial."""
    experiments = [each.experiment_id for each in client.search_experiments()]
    found = _search(client, experiments, f"tags.`{KIND}` = 'sweep'")
    return next((each for each in found if children(client, each)), None)


def sweeps(client: mlflow.MlflowClient) -> Iterator[mlflow.entities.Run]:
    """The runs of all sweeps, newest first."""
    experiments = [each.experiment_id for each in client.search_experiments()]
    return _search(client, experiments, f"tags.`{KIND}` = 'sweep'")


def sweep_names(client: mlflow.MlflowClient) -> list[str]:
    """The names of all recorded sweeps, newest first."""
    return [run.data.tags.get(SWEEP, run.info.run_id) for run in sweeps(client)]


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


def _batches(values: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
