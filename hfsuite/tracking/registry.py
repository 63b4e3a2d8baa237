"""The model registry: the best checkpoint of a sweep as a version of a registered model. Driver."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfsuite.errors import ConfigurationError
from hfsuite.tracking import runs

if TYPE_CHECKING:  # see `store`
    import mlflow

CHAMPION = "champion"
MODEL_ID = f"{runs.TAG}.model_id"  # MLflow itself does not read it back


@dataclass(frozen=True)
class Registered:
    """A version of a registered model.

    Args:
        name: of the model.
        version: of it.
        sweep: that it is the best of.
        run_id: of the trial.
        model_id: of the LoggedModel.
        metric: what was optimised.
        value: that it reached.
        was: what the champion before had reached; None if there was none that can be compared.
    """

    name: str
    version: str
    sweep: str
    run_id: str
    model_id: str
    metric: str
    value: float
    was: float | None


def register_best(client: mlflow.MlflowClient, parent: mlflow.entities.Run, name: str, *, worse: bool) -> Registered:
    """Makes the best checkpoint of a sweep the champion of a registered model. The same one again changes nothing.

    Args:
        client: of the tracking store.
        parent: the sweep's run.
        name: of the registered model; made if it is not there.
        worse: whether it may replace a champion that was better.

    Raises:
        ConfigurationError: the sweep has no model that could be registered, or the champion is better.
    """
    tags = parent.data.tags
    sweep, metric, mode = tags[runs.SWEEP], tags[runs.METRIC], tags[runs.MODE]
    model, value = _best_model(client, parent), float(tags[runs.BEST_VALUE])
    champion = _champion(client, name)
    was = _value(champion, metric) if champion is not None else None
    if champion is not None and champion.tags.get(MODEL_ID) == str(model.model_id):
        return Registered(name, str(champion.version), sweep, model.source_run_id, model.model_id, metric, value, was)
    if champion is not None and not worse:
        if was is None:
            raise ConfigurationError(
                f"The champion of {name!r}, version {champion.version}, was not rated by {metric!r}, so nobody can "
                "tell which is better: replace it with --even-if-worse."
            )
        if (value < was) if mode == "max" else (value > was):
            raise ConfigurationError(
                f"The champion of {name!r}, version {champion.version}, has {metric} {was:g}, which is better than "
                f"{value:g} of {sweep!r}: replace it all the same with --even-if-worse."
            )
    about = {runs.SWEEP: sweep, runs.METRIC: metric, runs.MODE: mode, runs.VALUE: repr(value)}
    version = _new_version(client, name, model, about, f"The best of the sweep {sweep}: {metric} {value:g}.")
    return Registered(name, str(version.version), sweep, model.source_run_id, model.model_id, metric, value, was)


def _best_model(client: mlflow.MlflowClient, parent: mlflow.entities.Run) -> mlflow.entities.LoggedModel:
    """The best checkpoint of a sweep.

    Raises:
        ConfigurationError: it has none that could be registered.
    """
    tags = parent.data.tags
    if not tags.get(runs.BEST_RUN):
        state = tags.get(runs.STATE, "running")
        raise ConfigurationError(f"The sweep {tags[runs.SWEEP]!r} has no best trial: it is {state}.")
    models = client.search_logged_models(
        [parent.info.experiment_id], filter_string=f"source_run_id = '{tags[runs.BEST_RUN]}'"
    )
    best = tags.get(runs.CHECKPOINT_PATH)
    model = next((each for each in models if each.tags.get(runs.CHECKPOINT_PATH) == best), None)
    if model is None or str(model.status) != "READY":
        raise ConfigurationError(
            f"No checkpoint of the best trial of {tags[runs.SWEEP]!r} is in MLflow: it was swept with keep='none', or "
            "without checkpoints, or has to be filled in first (hfsuite sync)."
        )
    return model


def _champion(client: mlflow.MlflowClient, name: str) -> mlflow.entities.model_registry.ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no such model; or alias
            raise
        return None


def _new_version(
    client: mlflow.MlflowClient, name: str, model: mlflow.entities.LoggedModel, about: Mapping[str, str], told: str
) -> mlflow.entities.model_registry.ModelVersion:
    """The new champion."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise ConfigurationError(
                f"MLflow does not take {name!r} as the name of a model: {error.message}"
            ) from error
    # A server resolves the model's own address; without one MLflow would look for it in the process's default store.
    is_server = str(client.tracking_uri).startswith("http")
    version = client.create_model_version(
        name,
        source=f"models:/{model.model_id}" if is_server else model.artifact_location,
        run_id=model.source_run_id,
        model_id=model.model_id,
        tags={**about, MODEL_ID: str(model.model_id)},
        description=told,
    )
    client.set_registered_model_alias(name, CHAMPION, version.version)
    return version


def _value(version: mlflow.entities.model_registry.ModelVersion, metric: str) -> float | None:
    """What a version reached, if it was rated by the same metric."""
    if version.tags.get(runs.METRIC) != metric or runs.VALUE not in version.tags:
        return None
    value = float(version.tags[runs.VALUE])
    return None if math.isnan(value) else value
