"""MLflow as a training function sees it in a trial: what it logs lands in the trial's run, which stays the sweep's.

A plugin of MLflow's (its entry point is in `pyproject.toml`). MLflow asks for a `TrialStore` where the address of its
store begins with `hfsuite:`, which it does in the ranks of a trial. MLflow imports this file whenever it is imported
itself, so this file imports nothing. Runs in ranks.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock
from urllib.parse import parse_qs, urlencode, urlsplit

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, Run, RunInfo, RunTag

SCHEME = "hfsuite"  # of an address: hfsuite:?experiment=...&sweep_id=...&trial_id=...&rank=0
URI, REGISTRY_URI, ADDRESS = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "HFSUITE_MLFLOW_ADDRESS"
RUN_WITHIN_S, PARAMS_WITHIN_S, LOOK_EVERY_S = 60.0, 10.0, 0.2
KEPT_TAGS = ("hfsuite.", "mlflow.runName", "mlflow.parentRunId", "mlflow.source.", "mlflow.user")
NOTE = "mlflow.note.content"  # a run's description
LOGGED = "hfsuite.logged_names"  # a tag of the trial's: names with a mark, and what was logged by them
OF_RANK_ZERO = {  # what others do not write; each is there as `..._async` too
    "log_metric", "log_param", "log_batch", "set_tag", "delete_tag", "log_inputs", "log_outputs", "record_logged_model",
}  # fmt: skip


@contextmanager
def logged_to(rank: int, *, address: str, experiment: str, sweep_id: str, trial_id: str) -> Iterator[None]:
    """What is logged with MLflow meanwhile goes to the trial's run. Runs in a rank, around the training function.

    Args:
        rank: world rank. What others than 0 log is dropped, or a trial would have each value once a rank.
        address: of the sweep's store, without credentials: a rank that needs some has them in its environment.
        experiment: the name of MLflow's.
        sweep_id: the sweep's.
        trial_id: Ray Tune's.
    """
    from hfsuite.tracking.provenance import without_credentials

    own = os.environ.get(URI, "")
    whole = own if without_credentials(own) == address else address
    asked = urlencode({"experiment": experiment, "sweep_id": sweep_id, "trial_id": trial_id, "rank": rank})
    variables = {
        URI: f"{SCHEME}:?{asked}",
        ADDRESS: whole,
        REGISTRY_URI: os.environ.get(REGISTRY_URI) or whole,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",  # a training function need not end where a server starts anew
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    }
    with mock.patch.dict(os.environ, variables):
        try:
            yield
        finally:
            for store in opened:
                store.close()
            opened.clear()


opened: list[TrialStore] = []  # in this process


class TrialStore:
    """The sweep's store, in which a training function can add to its trial's run, and can neither end nor rename it.

    `mlflow.start_run()` gives that run, as does what MLflow does by itself at the first value that is logged. What is
    started within it is a run of its own below it. A name that stands for something of the sweep's gets a mark: a
    setting, or the metric to optimise.

    Args:
        store_uri: its address; see `logged_to`.
        artifact_uri: MLflow gives it to every store; not used.
    """

    def __init__(self, store_uri: str, artifact_uri: str | None = None) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(store_uri).query).items()}
        self._experiment, self._identity = asked["experiment"], (asked["sweep_id"], asked["trial_id"])
        self._rank = int(asked["rank"])
        self._told: set[str] = set()
        self._marked: dict[str, str] = {}
        opened.append(self)

    def close(self) -> None:
        """Waits for what was logged asynchronously."""
        if "_store" in vars(self):
            self._store.shut_down_async_logging()

    def __getattr__(self, name: str) -> Any:
        """Whatever is not changed here is the store's own."""
        if name.startswith("__"):
            raise AttributeError(name)
        if self._rank > 0 and name.removesuffix("_async") in OF_RANK_ZERO:
            return functools.partial(self._drop, name)
        return getattr(self._store, name)

    # ---- the trial's run

    def create_run(
        self, experiment_id: str, user_id: str, start_time: int, tags: list[RunTag], run_name: str | None
    ) -> Run:
        """The trial's run; a new one if it is to have a parent, but for ranks above 0: nothing of theirs is kept."""
        from mlflow.entities import RunTag

        if self._rank == 0 and any(tag.key == "mlflow.parentRunId" for tag in tags):
            made: Run = self._store.create_run(self._run.info.experiment_id, user_id, start_time, tags, run_name)
            return self._at_hand(made)
        own = [RunTag(tag.key, tag.value) for tag in tags if tag.key == NOTE or not tag.key.startswith("mlflow.")]
        if own:
            self.log_batch(self._run.info.run_id, [], [], own)
        return self.get_run(self._run.info.run_id)

    def get_run(self, run_id: str) -> Run:
        """A run, with the place of its artifacts as a rank reaches it."""
        return self._at_hand(self._store.get_run(run_id))

    def update_run_info(self, run_id: str, run_status: Any, end_time: int | None, run_name: str | None) -> RunInfo:
        """Changes a run, unless it is the trial's: how that ends, and when, and what it is called, the sweep says."""
        if self._is_trials(run_id):
            return self.get_run(run_id).info
        return self._store.update_run_info(run_id, run_status, end_time, run_name)

    def delete_run(self, run_id: str) -> None:
        """Deletes a run.

        Raises:
            MlflowException: it is the trial's.
        """
        from mlflow.exceptions import MlflowException

        if self._is_trials(run_id):
            raise MlflowException("The run is the trial's, which a training function cannot delete.")
        self._store.delete_run(run_id)

    # ---- what is logged

    def log_batch(self, run_id: str, metrics: list[Metric], params: list[Param], tags: list[RunTag]) -> None:
        """Adds values to a run."""
        self._write("log_batch", run_id, *self._own(run_id, metrics, params, tags))

    def log_batch_async(self, run_id: str, metrics: list[Metric], params: list[Param], tags: list[RunTag]) -> Any:
        """Adds values to a run, later."""
        return self._write("log_batch_async", run_id, *self._own(run_id, metrics, params, tags))

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """Adds a value to a run."""
        self.log_batch(run_id, [metric], [], [])

    def log_metric_async(self, run_id: str, metric: Metric) -> Any:
        """Adds a value to a run, later."""
        return self.log_batch_async(run_id, [metric], [], [])

    def log_param(self, run_id: str, param: Param) -> None:
        """Adds a parameter to a run."""
        self.log_batch(run_id, [], [param], [])

    def log_param_async(self, run_id: str, param: Param) -> Any:
        """Adds a parameter to a run, later."""
        return self.log_batch_async(run_id, [], [param], [])

    def set_tag(self, run_id: str, tag: RunTag) -> None:
        """Sets a tag of a run."""
        self.log_batch(run_id, [], [], [tag])

    def set_tag_async(self, run_id: str, tag: RunTag) -> Any:
        """Sets a tag of a run, later."""
        return self.log_batch_async(run_id, [], [], [tag])

    def delete_tag(self, run_id: str, key: str) -> None:
        """Removes a tag of a run, unless it is one of the sweep's."""
        if self._is_trials(run_id) and key.startswith(KEPT_TAGS):
            self._tell(f"the tag {key!r} is the sweep's, and stays")
        else:
            self._write("delete_tag", run_id, key)

    # ---- inside

    @cached_property
    def _store(self) -> Any:
        """The sweep's own: made when it is first asked, since MLflow makes one store at a time."""
        from mlflow.exceptions import MlflowException
        from mlflow.tracking._tracking_service.utils import _get_store

        from hfsuite.tracking import store

        address = os.environ[ADDRESS]
        if not store.has_been_made(address):
            raise MlflowException(
                f"The sweep records into {address}, a file that this machine does not have. Ranks on other machines "
                "than the driver need an MLflow server: set MLFLOW_TRACKING_URI where the sweep is started."
            )
        return store.patient(_get_store(address))

    @cached_property
    def _run(self) -> Run:
        """The trial's, once it is there with its parameters.

        Raises:
            MlflowException: it is not there within a minute.
        """
        from mlflow.entities import ViewType
        from mlflow.exceptions import MlflowException

        from hfsuite.tracking import runs

        began, seen = time.monotonic(), None
        sweep_id, trial_id = self._identity
        filters = f"tags.`{runs.SWEEP_ID}` = '{sweep_id}' and tags.`{runs.TRIAL_ID}` = '{trial_id}'"
        while (waited := time.monotonic() - began) < RUN_WITHIN_S:
            if (experiment := self._store.get_experiment_by_name(self._experiment)) is not None:
                found = list(self._store.search_runs([experiment.experiment_id], filters, ViewType.ACTIVE_ONLY, 1))
                seen = found[0] if found else seen
                if seen is not None and (set(runs.OWN_PARAMS) <= set(seen.data.params) or waited > PARAMS_WITHIN_S):
                    return seen
            time.sleep(LOOK_EVERY_S)
        raise MlflowException(
            f"MLflow has no run of the trial {self._identity[1]} after {RUN_WITHIN_S:g} s: its driver has not made it."
        )

    def _is_trials(self, run_id: str) -> bool:
        return bool(run_id == self._run.info.run_id)

    def _write(self, what: str, *arguments: Any) -> Any:
        return self._drop(what) if self._rank > 0 else getattr(self._store, what)(*arguments)

    def _drop(self, what: str, *_: Any, **__: Any) -> Any:
        from mlflow.utils.async_logging.run_operations import RunOperations

        self._tell(f"what rank {self._rank} logs to MLflow is dropped: rank 0's is recorded")
        return RunOperations([]) if what.endswith("_async") else None

    def _own(
        self, run_id: str, metrics: Iterable[Metric], params: Iterable[Param], tags: Iterable[RunTag]
    ) -> tuple[list[Metric], list[Param], list[RunTag]]:
        """What may be added to a run: all of it, but for the trial's run."""
        from mlflow.entities import Metric, Param, RunTag

        from hfsuite.tracking.inputs import AS_PARAMS
        from hfsuite.tracking.names import mlflow_name, told
        from hfsuite.tracking.provenance import as_parameter, without_secrets

        if not self._is_trials(run_id):
            return list(metrics), list(params), list(tags)
        about, marked = self._run.data, len(self._marked)
        objective = about.tags.get("hfsuite.metric", "")
        best = {mlflow_name(objective), mlflow_name(f"best_{objective}")}
        own_metrics = [
            Metric(
                self._marked_name(each.key) if each.key in best else each.key, each.value, each.timestamp, each.step,
                model_id=each.model_id, dataset_name=each.dataset_name, dataset_digest=each.dataset_digest,
                run_id=run_id,
            )
            for each in metrics
        ]  # fmt: skip
        settings = {**dict.fromkeys(AS_PARAMS), **about.params}
        own_params = [
            Param(self._marked_name(key) if key in settings else key, value)
            for key, value in ((each.key, as_parameter(each.key, str(each.value))) for each in params)
            if key not in settings or settings[key] != value
        ]
        own_tags = [
            RunTag(each.key, without_secrets(str(each.value))) for each in tags if not each.key.startswith(KEPT_TAGS)
        ]
        for each in tags:
            if each.key.startswith(KEPT_TAGS):
                self._tell(f"the tag {each.key!r} is the sweep's, and stays as it is")
        if len(self._marked) > marked:
            own_tags.append(RunTag(LOGGED, told(self._marked)))
        return own_metrics, own_params, own_tags

    def _marked_name(self, name: str) -> str:
        from hfsuite.tracking.names import with_mark

        marked = with_mark(name, ("mlflow", name))
        self._marked[marked] = f"{name} as the training function logged it"
        self._tell(f"{name!r} is the sweep's own name: what the training function logs is {marked!r}")
        return marked

    def _at_hand(self, run: Run) -> Run:
        """A run whose artifacts this rank can write; those of others than rank 0 go with its working directory."""
        from mlflow.entities import Run, RunInfo
        from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

        place = str(run.info.artifact_uri)
        if self._rank > 0:
            place = Path(f"mlflow_artifacts_{self._rank}").absolute().as_uri()
        elif place.startswith("mlflow-artifacts:"):
            place = MlflowArtifactsRepository.resolve_uri(place, os.environ[ADDRESS])
        about = run.info
        info = RunInfo(
            about.run_id, about.experiment_id, about.user_id, about.status, about.start_time, about.end_time,
            about.lifecycle_stage, artifact_uri=place, run_name=about.run_name,
        )  # fmt: skip
        return Run(info, run.data, run.inputs, run.outputs)

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            print(f"hfsuite: {what}.", flush=True)  # in the rank's own file
