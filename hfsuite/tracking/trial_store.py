"""MLflow as a training function sees it in a trial: what it logs lands in the trial's run, which stays the sweep's.

A plugin of MLflow's (its entry point is in `pyproject.toml`). MLflow asks for a `TrialStore` where the address of its
store begins with `hfsuite:`, which it does in the ranks of a trial. MLflow imports this file whenever it is imported
itself, so this file imports nothing. Runs in ranks.
"""

from __future__ import annotations

import functools
import inspect
import os
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, Run, RunInfo, RunTag

    from hfsuite.tracking.logged import Logged

SCHEME = "hfsuite"  # of an address: hfsuite:?experiment=...&sweep_id=...&trial_id=...&rank=0
ADDRESS = "HFSUITE_MLFLOW_ADDRESS"  # in the environment: of the sweep's store
RUN_WITHIN_S, PARAMS_WITHIN_S, LOOK_EVERY_S = 60.0, 10.0, 0.2
PARENT, SOURCE = "mlflow.parentRunId", "mlflow.source.name"  # the latter is not in the tags of a client's own run
NOTE = "mlflow.note.content"  # a run's description
OF_RANK_ZERO = {  # what others do not write; each is there as `..._async` too
    "log_metric", "log_param", "log_batch", "set_tag", "delete_tag", "log_inputs", "log_outputs", "record_logged_model",
}  # fmt: skip

opened: list[TrialStore] = []  # in this process
reported: set[str] = set()  # names in MLflow of what the training function has reported


class TrialStore:
    """The sweep's store, in which a training function can add to its trial's run, and can neither end nor rename it.

    `mlflow.start_run()` gives that run, as does what MLflow does by itself at the first value that is logged. What is
    started within it is a run of its own below it. See `Logged` for names that mean something to the sweep.

    Args:
        store_uri: its address; see `rank_logs.logged_to`.
        artifact_uri: MLflow gives it to every store; not used.
    """

    def __init__(self, store_uri: str, artifact_uri: str | None = None) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(store_uri).query).items()}
        self._experiment, self._identity = asked["experiment"], (asked["sweep_id"], asked["trial_id"])
        self._rank = int(asked["rank"])
        self._told: set[str] = set()
        opened.append(self)

    def close(self) -> None:
        """Waits for what was logged asynchronously."""
        if "_store" in vars(self):
            self._store.shut_down_async_logging()

    def logged_before(self, names: set[str]) -> set[str]:
        """Which of these the training function has logged before it reported them."""
        return self._logged.plain & names if "_logged" in vars(self) else set()

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
        """The trial's run, for `mlflow.start_run()`, and for all that ranks above 0 ask for: nothing of theirs is kept.

        A new one below it, for a nested run, and for a client that makes runs of its own.
        """
        from mlflow.entities import RunTag

        given = {tag.key: tag.value for tag in tags}
        is_below = PARENT in given or SOURCE not in given or _is_nested()
        if self._rank == 0 and is_below:
            above = [] if PARENT in given else [RunTag(PARENT, self._run.info.run_id)]
            within = self._run.info.experiment_id
            made: Run = self._store.create_run(within, user_id, start_time, [*tags, *above], run_name)
            return self._at_hand(made)
        own = [RunTag(tag.key, tag.value) for tag in tags if tag.key == NOTE or not tag.key.startswith("mlflow.")]
        if own:
            self.log_batch(self._run.info.run_id, [], [], own)
        return self.get_run(self._run.info.run_id)

    def create_experiment(self, name: str, *_: Any, **__: Any) -> str:
        """The sweep's: `mlflow.set_experiment` makes one, which would stay empty."""
        self._tell(f"there is no MLflow experiment {name!r}, and none is made: runs are in {self._experiment!r}")
        return str(self._run.info.experiment_id)

    def create_logged_model(self, *args: Any, **kwargs: Any) -> Any:
        """A model, of rank 0.

        Raises:
            MlflowException: in another rank, which would log the same model again.
        """
        from mlflow.exceptions import MlflowException

        if self._rank > 0:
            raise MlflowException(
                f"Rank {self._rank} cannot log a model, which rank 0 logs too: "
                "do so where ray.train.get_context().get_world_rank() is 0."
            )
        return self._store.create_logged_model(*args, **kwargs)

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
        from hfsuite.tracking.logged import is_sweeps

        if self._is_trials(run_id) and is_sweeps(key):
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
    def _logged(self) -> Logged:
        from hfsuite.tracking.logged import Logged

        return Logged(self._run, reported, self._tell)

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

    def _own(self, run_id: str, *values: Any) -> tuple[list[Metric], list[Param], list[RunTag]]:
        """What may be added to a run, of metrics, parameters and tags: all of it, but for the trial's run."""
        return self._logged.admitted(*values) if self._is_trials(run_id) else values

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


def _is_nested() -> bool:
    """Whether `mlflow.start_run(nested=True)` asks: where no run is open, it tells a store nothing of it."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "start_run" and frame.f_globals.get("__name__") == "mlflow.tracking.fluent":
            return bool(frame.f_locals.get("nested"))
        frame = frame.f_back
    return False
