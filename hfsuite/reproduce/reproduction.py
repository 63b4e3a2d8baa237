"""Runs a recorded trial again and judges it. The main path: plan, rerun, compare. Driver."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfsuite.errors import ConfigurationError, NotRecorded, did_you_mean
from hfsuite.reproduce import recorded as records
from hfsuite.reproduce import report, surroundings, weights
from hfsuite.reproduce.code import Code, code_for
from hfsuite.reproduce.export import pinned
from hfsuite.reproduce.plan import Difference, Weight, differences, of_interruptions
from hfsuite.reproduce.recorded import RecordedRun
from hfsuite.reproduce.rerun import facts_here, rerun
from hfsuite.reproduce.verdict import Judgement, Tolerance, Verdict, default_tolerance, judge
from hfsuite.search.values import parse_value
from hfsuite.tracking.recipe import is_hidden

if TYPE_CHECKING:
    import mlflow


Tell = Callable[[RecordedRun, Code, Sequence[Difference]], None]


@dataclass(frozen=True, repr=False)
class Reproduction:
    """A repetition, judged.

    Args:
        run_id: the run that was repeated.
        repeated_by: the run of the repetition.
        title: what the first is called.
        plan: what was different.
        judgement: the verdict, with its reasons.
        ended_at: the last optimizer step of the repetition.
        reached: the best value of the metric in it.
    """

    run_id: str
    repeated_by: str
    title: str
    plan: Sequence[Difference]
    judgement: Judgement
    ended_at: int
    reached: float | None

    def __repr__(self) -> str:
        lines = [f"  {each}" for each in report.reasons(self.judgement)]
        return "\n".join([f"Reproduction of {self.title}: {self.verdict}", *lines, f"  MLflow run {self.repeated_by}"])

    @property
    def verdict(self) -> Verdict:
        """The verdict."""
        return self.judgement.verdict

    def as_json(self) -> dict[str, Any]:
        """Plain values: what `--json` prints."""
        found = report.as_json(self.run_id, self.repeated_by, self.title, self.plan, self.judgement)
        return {**found, "ended_at": self.ended_at, "reached": self.reached}


@contextmanager
def planned(
    client: mlflow.MlflowClient, name: str, *, workers: int | None = None, restore_code: bool = False,
    changes: Mapping[str, Any] | None = None, storage: str = "results", ask_facts: bool,
) -> Iterator[tuple[RecordedRun, Code, list[Difference]]]:  # fmt: skip
    """A recorded run, the code that its repetition runs, and what is different here; as long as this is open.

    Args:
        client: of the tracking store.
        name: of the run; see `recorded.find`.
        workers: of the repetition; None for as many as the run had.
        restore_code: whether the recorded code is run.
        changes: settings that shall be others; a text is read as the type of the recorded value.
        storage: where the training is begun, if it is.
        ask_facts: whether the training is begun, to learn what it is given.

    Raises:
        UnknownName, NotRecorded: there is no such run, or it lacks what it takes.
        ConfigurationError: it cannot be repeated, and why.
    """
    run = records.read(client, records.find(client, name))
    changes = read_changes(run, changes or {})
    check_repeatable(run, changes)
    count = workers or run.recipe["workers"]
    with code_for(run, restore=restore_code) as code:
        facts: Mapping[str, Any] = {}
        if ask_facts:
            facts = facts_here(
                run, code, tracking_uri=str(client.tracking_uri), workers=count, storage=_absolute(storage),
                changes=changes,
            )  # fmt: skip
        there = surroundings.here(run, folder=code.folder, text=code.text, workers=count, facts=facts, changes=changes)
        found = [*of_interruptions(run), *differences(surroundings.recorded(run), there)]
        found.sort(key=lambda each: -each.weight)
        if fault := weights.fault_of(client, run):
            found.append(
                Difference(
                    "kept checkpoint",
                    "as recorded",
                    fault,
                    Weight.NOTHING,
                    "weights are compared by their digest alone",
                )
            )
        yield run, code, found


def reproduce(
    client: mlflow.MlflowClient, name: str, *, workers: int | None = None, restore_code: bool = False,
    to_end: bool = False, tolerance: float | None = None, storage: str = "results",
    changes: Mapping[str, Any] | None = None, tell: Tell | None = None,
) -> Reproduction:  # fmt: skip
    """Runs a recorded trial again in new processes, and judges what comes out; the verdict is recorded in both runs.

    Args:
        client: of the tracking store.
        name: of the run; see `recorded.find`.
        workers: as for `planned`, and `restore_code` and `changes` too.
        restore_code: whether the recorded code is run.
        to_end: whether a trial that was stopped early is run to its own end.
        tolerance: how far numbers may be apart, relative to the larger; None for what rounding can do.
        storage: for the repetition's checkpoints.
        changes: settings that shall be others.
        tell: is given the plan before the repetition starts.

    Raises:
        UnknownName, NotRecorded, ConfigurationError: as for `planned`.
        TrialFailed: the repetition did not come to its end.
    """
    with planned(
        client, name, workers=workers, restore_code=restore_code, changes=changes, ask_facts=False
    ) as (run, code, plan):  # fmt: skip
        if tell is not None:
            tell(run, code, plan)
        changes, count = read_changes(run, changes or {}), workers or run.recipe["workers"]
        new_id = rerun(
            run, code, tracking_uri=str(client.tracking_uri), workers=count,
            reports=None if to_end else run.recipe["reports"], changes=changes,
            storage=_absolute(storage),
        )  # fmt: skip
        again = records.read(client, client.get_run(new_id))
        here = surroundings.recorded(again)
        of_checkpoint = [each for each in plan if each.subject == "kept checkpoint"]
        plan = [*of_interruptions(run), *differences(surroundings.recorded(run), here), *of_checkpoint]
        plan.sort(key=lambda each: -each.weight)
        allowed = (
            Tolerance(tolerance, "given", absolute=0.0, statistical=count != run.recipe["workers"])
            if tolerance is not None
            else default_tolerance(run, workers=count)
        )
        judgement = judge(run, again, plan, allowed, weights.distance(client, run, again))
    best = again.recipe["best"]
    reached = best["metrics"].get(again.recipe["metric"]) if best is not None else None
    done = Reproduction(run.run_id, new_id, run.title, plan, judgement, again.recipe["last_step"], reached)
    as_recorded = not changes and tolerance is None and count == run.recipe["workers"]
    report.record(client, run, again, done.as_json(), judgement, as_recorded=as_recorded)
    return done


def _absolute(storage: str) -> str:
    """As it is meant from here: the repetition may run elsewhere."""
    return storage if "://" in storage else os.path.abspath(storage)


def lock(client: mlflow.MlflowClient, name: str) -> str:
    """The packages of a recorded run, as pip takes them: a requirements file."""
    run = records.read(client, records.find(client, name))
    lines = pinned((package, version) for package, version in run.packages.items() if package != "hfsuite")
    python = run.environment.get("python")
    return "\n".join([f"# of the MLflow run {run.run_id} ({run.title}), with Python {python}", *lines, ""])


def read_changes(run: RecordedRun, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changed settings, as values of the types that were recorded.

    Raises:
        ConfigurationError: there is no such setting, or its value cannot be of that type; all are named.
    """
    config, found, faults = run.recipe["config"], dict(changes), list[str]()
    for name, value in changes.items():
        if name not in config:
            faults.append(f"{run.title} has no setting {name!r}. {did_you_mean(name, config)}")
        elif isinstance(value, str) and not is_hidden(config[name]):
            found[name], fault = parse_value(name, value, config[name])
            faults += [fault] if fault else []
    if faults:
        raise ConfigurationError(faults)
    return found


def check_repeatable(run: RecordedRun, changes: Mapping[str, Any]) -> None:
    """Refuses a run that cannot be trained again on its own.

    Args:
        run: the run.
        changes: settings that shall be others.

    Raises:
        NotRecorded: there is nothing to compare with.
        ConfigurationError: its settings are not known, or were not always the same.
    """
    recipe = run.recipe
    if not recipe["reports"] or not run.curves:
        raise NotRecorded(f"{run.title} has reported no number ({recipe['state']}): there is nothing to compare with.")
    if run.changed_settings:
        names = ", ".join(run.changed_settings)
        raise ConfigurationError(
            f"{run.title} did not train with one set of values: its trial scheduler changed {names} on the way, from "
            "another trial's checkpoint. Such a trial cannot be run again on its own."
        )
    hidden = [name for name, value in recipe["config"].items() if is_hidden(value) and name not in changes]
    if hidden:
        given = " ".join(f"--set {name}=..." for name in hidden)
        raise ConfigurationError(
            f"{run.title} had secrets among its settings, which are not recorded: give them, {given}"
        )
