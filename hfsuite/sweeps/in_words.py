"""What an experiment, a sweep, a trial and a confirmation say of themselves at a prompt: a few lines each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hfsuite.search.spaces import describe, is_searched
from hfsuite.tracking.describe import short
from hfsuite.tracking.points import rating

if TYPE_CHECKING:
    from hfsuite.sweeps.confirm import Confirmation
    from hfsuite.sweeps.experiment import Experiment
    from hfsuite.sweeps.result import SweepResult, TrialResult

SHOWN = 12  # settings
WIDTH = 100  # characters of a value


def of_experiment(experiment: Experiment) -> str:
    """What it optimises, and what it searches where."""
    searched = {name: domain for name, domain in experiment.space.items() if is_searched(domain)}
    lines = [
        f"  {name}: {_cut(describe(domain))}{_condition(experiment.only_where.get(name, {}))}"
        for name, domain in searched.items()
    ]
    head = f"Experiment {experiment.name!r} of {experiment.module}: {experiment.metric} ({experiment.mode})"
    return _listed(f"{head}, {len(experiment.defaults)} settings, {len(searched)} searched", lines)


def of_trial(trial: TrialResult) -> str:
    """How it stands, what it searched, and the report that counts."""
    why = trial.failure.splitlines()[0] if trial.failure else trial.why
    head = f"Trial {trial.number:03d}: {trial.state}{f' ({_cut(why)})' if why else ''}, {trial.iterations} reports"
    lines = []
    if numbers := [f"{name} {short(each)}" for name, each in trial.metrics.items() if isinstance(each, int | float)]:
        more = f", and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
        lines.append(f"  reported {', '.join(numbers[:SHOWN])}{more}")
    if trial.checkpoint is not None:
        lines.append(f"  checkpoint {trial.checkpoint_path}")
    settings = [f"  {name} = {_cut(repr(value))}" for name, value in trial.searched.items()]
    return "\n".join([_listed(head, settings), *lines])


def of_sweep(result: SweepResult, best: TrialResult | None) -> str:
    """How many trials ended how, and the best of them."""
    counts = Counter(str(trial.state) for trial in result.trials)
    told = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no trial"
    how = ", interrupted" if result.interrupted else ""
    head = f"Sweep {result.name!r} of {result.experiment}: {told} of {result.planned}{how}"
    if best is None:
        return f"{head}\n  no trial has a result for {result.metric} ({result.mode})"
    value = short(rating(best.metrics, result.metric))
    settings = [f"  {name} = {_cut(repr(each))}" for name, each in best.searched.items()]
    return _listed(f"{head}\n  best: trial {best.number:03d}, {result.metric} ({result.mode}) {value}", settings)


def of_confirmation(done: Confirmation) -> str:
    """The finalists, the best first, and whether that can be told from the others."""
    rivals = "it had no rival" if not done.against else "told apart" if done.is_settled else "not told apart"
    seeds = f"{len(done.winner.values)} of {done.planned_seeds} seeds"
    head = f"Confirmation of {done.sweep!r}: {done.metric} ({done.mode}) on the test part, {seeds}"
    lines = [
        f"  trial {each.number:03d}: {short(each.mean)}"
        + (f", deviation {short(each.deviation)}" if not math.isnan(each.deviation) else "")
        + (f" (the winner, {rivals})" if place == 0 else "")
        for place, each in enumerate(done.finalists)
    ]
    failed = [f"  trial {each.number:03d}: failed with every seed" for each in done.failed]
    return "\n".join([head, *lines, *failed])


def _condition(condition: Mapping[str, Any]) -> str:
    told = [f"{other} is {' or '.join(map(str, values))}" for other, values in condition.items()]
    return f", where {' and '.join(told)}" if told else ""


def _listed(head: str, lines: list[str]) -> str:
    more = [f"  and {len(lines) - SHOWN} more settings"] if len(lines) > SHOWN else []
    return "\n".join([head, *lines[:SHOWN], *more])


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."
