"""A run as MLflow remembers it: all that is needed to run it again and to judge what came out. Driver."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsuite.errors import NO_SWEEP, NotRecorded, UnknownName, did_you_mean
from hfsuite.report import FACTS_FILE, FAILURE_FILE
from hfsuite.tracking import provenance, runs, secrets, settings
from hfsuite.tracking.declared import Program
from hfsuite.tracking.names import mlflow_name
from hfsuite.tracking.points import CHANGED, INFINITE, OF_SPEED, TESTED, current
from hfsuite.tracking.recipe import RECIPE_FILE

if TYPE_CHECKING:
    import mlflow

ENVIRONMENT, SOURCE, DIFF, PACKAGES, RESUMED = (
    f"{provenance.FOLDER}/{name}"
    for name in ("environment.json", "source.py", "uncommitted.diff", "requirements.txt", "resumed.json")
)
NOT_COMPARED = ("system/", f"{CHANGED}.", f"{TESTED}.")  # of the machine; settings that a population changes
SHORTEST = 4  # letters of an id that name a run
Curves = dict[str, dict[int, float]]  # by metric and optimizer step


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """What MLflow has of a trial, or of a single training.

    Args:
        run_id: MLflow's.
        title: what people call it: sweep and trial number.
        tags: of the run.
        recipe: settings, seeds, end, digests; see `hfsuite.tracking.recipe`.
        facts: what it was given and where it ran, as its rank 0 saw it; empty if it never came to that.
        environment: where its sweep came from; see `hfsuite.tracking.provenance`.
        packages: versions by name.
        source: of the experiment's module, without secrets.
        diff: what was not committed.
        curves: the numbers that it reported.
        changed_settings: those that its trial scheduler changed while it ran.
        missing: what would be needed to run it again, and was not recorded.
        resumed: what was different when its sweep was taken up again, once for each time.
        experiment_name: MLflow's.
    """

    run_id: str
    title: str
    tags: Mapping[str, str]
    recipe: Mapping[str, Any]
    facts: Mapping[str, Any]
    environment: Mapping[str, Any]
    packages: Mapping[str, str] = field(repr=False)
    source: str | None = field(repr=False)
    diff: str | None = field(repr=False)
    curves: Curves = field(repr=False)
    changed_settings: tuple[str, ...]
    resumed: tuple[Mapping[str, Any], ...] = field(repr=False)
    experiment_name: str
    missing: tuple[str, ...] = ()

    def whole_source(self) -> str:
        """The source of the experiment's module.

        Raises:
            NotRecorded: there is none, or not all of it.
        """
        module = self.recipe["module"]
        if self.source is None:
            raise NotRecorded(f"The source of {module} was not recorded with {self.title}.")
        if provenance.digest(self.source) != self.environment.get("source_digest"):
            lines = [place for place, line in enumerate(self.source.splitlines(), start=1) if secrets.HIDDEN in line]
            raise NotRecorded(
                f"The source of {module} was not recorded whole with {self.title}: it is too long, or secrets were "
                f"left out of it (lines {', '.join(map(str, lines)) or 'unknown'})."
            )
        return self.source

    @property
    def config_at_best(self) -> dict[str, Any]:
        """The settings at its best report: a population changes them."""
        return {**self.recipe["config"], **(self.recipe.get("best") or {}).get("changed", {})}

    @property
    def idle(self) -> list[str]:
        """The settings that do not count where the others have these values."""
        return list(self.recipe.get("idle", []))

    @property
    def loss_bits(self) -> dict[int, str]:
        """The digest of the loss by optimizer step."""
        return {int(step): digest for step, digest in self.recipe["loss_bits"].items()}

    @property
    def weights(self) -> dict[int, str]:
        """The digests of the weights that are known, by the steps of their checkpoints."""
        found = (self.recipe["best"], self.recipe["last"])
        return {each["step"]: each["weights"] for each in found if each and each["weights"]}


def find(client: mlflow.MlflowClient, text: str) -> mlflow.entities.Run:
    """The run that `text` names: its id or the start of one, the name of a single training, `SWEEP:best`, or `SWEEP:3`.

    Raises:
        UnknownName: there is none, or more than one.
    """
    sweep, separator, trial = text.rpartition(":")
    if separator:
        return _of_sweep(client, sweep, trial)
    experiments = [each.experiment_id for each in client.search_experiments()]
    is_prefix = text.isalnum() and len(text) >= SHORTEST
    found = client.search_runs(experiments, f"attributes.run_id LIKE '{text}%'", max_results=3) if is_prefix else []
    if len(found) == 1:
        if found[0].data.tags.get(runs.KIND) == "sweep":
            raise UnknownName(
                f"The run {text} is a sweep: name a trial of it, {found[0].info.run_name}:best for example."
            )
        return found[0]
    if found:
        raise UnknownName(f"More than one run begins with {text!r}: give more of its id.")
    named = f"tags.`{runs.SWEEP}` = '{text.replace(chr(39), '')}' and tags.`{runs.KIND}` = 'train'"
    if found := client.search_runs(experiments, named, max_results=1):
        return found[0]
    names = runs.sweep_names(client)
    if text in names:
        raise UnknownName(f"{text} is a sweep: name a trial of it, {text}:best or {text}:0.")
    if len(text) < SHORTEST:
        raise UnknownName(f"{text!r} is too short: give at least {SHORTEST} letters of a run's id, or SWEEP:best.")
    raise UnknownName(
        f"MLflow has no run {text!r}. Give a run's id, or the first letters of it, or a sweep's trial: "
        + (f"{names[0]}:best." if names else "SWEEP:best.")
    )


def _of_sweep(client: mlflow.MlflowClient, sweep: str, trial: str) -> mlflow.entities.Run:
    parent = runs.find_sweep(client, sweep)
    if parent is None:
        raise UnknownName(f"MLflow has no sweep {sweep!r}. {did_you_mean(sweep, runs.sweep_names(client), NO_SWEEP)}")
    if trial == "best":
        if not (best := parent.data.tags.get(runs.BEST_RUN)):
            raise UnknownName(f"The sweep {sweep!r} has no best trial: it is {parent.data.tags.get(runs.STATE)}.")
        return client.get_run(best)
    trials = {run.data.tags[runs.TRIAL]: run for run in runs.children(client, parent)}
    number = trial.lstrip("0") or "0"
    if number not in trials:
        raise UnknownName(f"The sweep {sweep!r} has no trial {trial!r}: it has {len(trials)}, from 0, and `best`.")
    return trials[number]


def read(client: mlflow.MlflowClient, run: mlflow.entities.Run, *, whole: bool = True) -> RecordedRun:
    """All that MLflow has of a run.

    Args:
        client: of the tracking store.
        run: the run.
        whole: whether it must be enough to run it again. Of one that need not be, whatever anybody recorded is read:
            parameters as texts, and what is not known is left empty; `missing` says what that is.

    Raises:
        NotRecorded: it was not recorded by hfsuite, or not to its end; what is missing is listed.
    """
    tags = run.data.tags
    parent = tags.get("mlflow.parentRunId")
    origin = parent if parent and tags.get(runs.KIND) == "trial" else run.info.run_id
    own, shared = _artifacts(client, run.info.run_id), _artifacts(client, origin, provenance.FOLDER)
    missing = [
        f"{what} ({name})"
        for what, name, there in (
            ("its settings, seed and end", RECIPE_FILE, own),
            ("where it came from", ENVIRONMENT, shared),
            ("the versions of its packages", PACKAGES, shared),
        )
        if name not in there
    ]
    if missing and whole:
        raise NotRecorded(
            f"The run {run.info.run_id} {_why_incomplete(tags)} Missing: {', '.join(missing)}. Without these it cannot "
            "be run again, exported or compared."
        )
    recipe = json.loads(_text(client, run.info.run_id, RECIPE_FILE)) if RECIPE_FILE in own else _from_parameters(run)
    lines = _text(client, origin, PACKAGES).splitlines() if PACKAGES in shared else []
    packages = dict(line.split("==", 1) for line in lines if "==" in line)
    return RecordedRun(
        run_id=run.info.run_id,
        missing=tuple(missing),
        title=recipe["sweep"] if tags.get(runs.KIND) != "trial" else f"{recipe['sweep']}, trial {recipe['number']:03d}",
        tags=tags,
        recipe=recipe,
        facts=json.loads(_text(client, run.info.run_id, FACTS_FILE)) if FACTS_FILE in own else {},
        environment=json.loads(_text(client, origin, ENVIRONMENT)) if ENVIRONMENT in shared else {},
        packages=packages,
        source=_text(client, origin, SOURCE) if SOURCE in shared else None,
        diff=_text(client, origin, DIFF) if DIFF in shared else None,
        curves=_curves(client, run, recipe),
        changed_settings=tuple(
            sorted(
                name.removeprefix(f"{CHANGED}.")
                for name in {*run.data.metrics, *tags}
                if name.startswith(f"{CHANGED}.")
            )
        ),
        resumed=tuple(json.loads(_text(client, origin, RESUMED))) if RESUMED in shared else (),
        experiment_name=client.get_experiment(run.info.experiment_id).name,
    )


def failure(client: mlflow.MlflowClient, run: mlflow.entities.Run) -> str | None:
    """What went wrong, with the rank's traceback; None if nothing did."""
    return _text(client, run.info.run_id, FAILURE_FILE) if FAILURE_FILE in _artifacts(client, run.info.run_id) else None


def declaration(client: mlflow.MlflowClient, sweep: mlflow.entities.Run) -> Program | None:
    """What is recorded of the program that declared a sweep's experiment; None if nothing is."""
    shared = _artifacts(client, sweep.info.run_id, provenance.FOLDER)
    if ENVIRONMENT not in shared:
        return None
    found = json.loads(_text(client, sweep.info.run_id, ENVIRONMENT))
    source = _text(client, sweep.info.run_id, SOURCE) if SOURCE in shared else None
    experiment = client.get_experiment(sweep.info.experiment_id).name
    return provenance.declaration(sweep.data.tags.get(runs.EXPERIMENT, experiment), {**found, "source": source})


def _why_incomplete(tags: Mapping[str, str]) -> str:
    if runs.KIND not in tags:
        return "was not recorded by hfsuite."
    if tags.get(runs.STATE) in ("running", "pending", "paused"):
        return f"is still running; if its driver has died, hfsuite sync {tags.get(runs.SWEEP)} closes it."
    return f"was not recorded to its end: bring it up to date with hfsuite sync {tags.get(runs.SWEEP)}."


def _from_parameters(run: mlflow.entities.Run) -> dict[str, Any]:
    """What stands for a recipe where there is none."""
    tags, params = run.data.tags, settings.read(run)
    return {
        "sweep": tags.get(runs.SWEEP) or run.info.run_name or run.info.run_id,
        "number": int(tags.get(runs.TRIAL, 0)),
        "metric": tags.get(runs.METRIC, ""),
        "module": tags.get(runs.MODULE),
        "workers": int(params.pop("num_workers", 0)) or None,
        "config": params,
        "seed": None,
        "deterministic": None,
        "last_step": math.inf,
        "loss_bits": {},
    }


def _curves(client: mlflow.MlflowClient, run: mlflow.entities.Run, recipe: Mapping[str, Any]) -> Curves:
    """The numbers that a run reported, but for those that say how fast it went, and the best, which is one of them."""
    best, last_step = mlflow_name(f"best_{recipe['metric']}"), recipe["last_step"]
    names = [
        name
        for name in run.data.metrics
        if name != best and not name.startswith(NOT_COMPARED) and not OF_SPEED.fullmatch(name)
    ]
    found: Curves = {}
    for name in sorted(names):
        points = current(client.get_metric_history(run.info.run_id, name), last_step)
        infinite = _infinite(run.data.tags.get(f"{INFINITE}.{name}", ""))
        found[name] = {point.step: infinite.get(point.step, point.value) for point in points}
    return found


def same_number(one: float, other: float) -> bool:
    """Whether two are equal to the last bit; whatever is no number is the same."""
    return struct.pack("<d", one) == struct.pack("<d", other) or (math.isnan(one) and math.isnan(other))


def _infinite(tag: str) -> dict[int, float]:
    """MLflow has NaN where infinity was reported, and a tag: "+inf at step 10, -inf at step 20"."""
    places = [each.split(" at step ") for each in tag.split(", ") if " at step " in each]
    return {int(step): math.inf if sign == "+inf" else -math.inf for sign, step in places}


def _artifacts(client: mlflow.MlflowClient, run_id: str, folder: str | None = None) -> set[str]:
    return {each.path for each in client.list_artifacts(run_id, folder)}


def _text(client: mlflow.MlflowClient, run_id: str, path: str) -> str:
    return Path(client.download_artifacts(run_id, path)).read_text(encoding="utf-8")
