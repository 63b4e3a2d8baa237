"""How a sweep and its trials read in MLflow's interface: names that say what differs, a leaderboard, what to type."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from hfsuite.seeds import SETTING, Seeds
from hfsuite.tracking import runs
from hfsuite.tracking.points import CHANGED, rating
from hfsuite.tracking.record import SweepRecord, TrialRecord
from hfsuite.tracking.state import TrialState

LEADERS = 10
NAME_LIMIT = 120  # characters of the settings in a run's name


def trial(sweep: SweepRecord, record: TrialRecord) -> str:
    """The name of a trial's run: its number, what was varied, and what came of it. "005 · lr=3e-05 wd=0.1 · 0.81"."""
    if sweep.kind != "sweep":
        return sweep.name
    space = list(sweep.params.get("space", record.searched))
    config = record.config_at_best
    settings = " ".join(f"{abbreviated(name, space)}={short(config.get(name))}" for name in record.searched)
    value = "" if record.best is None else short(record.best.metrics.get(sweep.metric))
    if record.state in (TrialState.FAILED, TrialState.LOST, TrialState.STOPPED):
        value = f"{value} {record.state}".lstrip()
    return " · ".join(part for part in (number(record), settings[:NAME_LIMIT], value) if part)


def number(record: TrialRecord) -> str:
    """A trial's number as it stands in tables, in names and in links: by it a trial is found everywhere."""
    return f"{record.number:03d}"


def as_setting(name: str) -> str:
    """What a setting is called in a table that has metrics too: the two may have the same name."""
    return f"{CHANGED}.{name}"


def as_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by these names."""
    return {as_setting(name): value for name, value in values.items()}


def abbreviated(name: str, among: Sequence[str]) -> str:
    """A setting's initials, or the whole name where another's are the same: learning_rate, lora_rank."""
    is_clear = all(initials(other) != initials(name) for other in among if other != name)
    return initials(name) if is_clear else name


def initials(name: str) -> str:
    """A setting's name as short as people write it: learning_rate is lr; a single word stays as it is."""
    words = name.rpartition(".")[2].split("_")
    return "".join(word[:1] for word in words) if len(words) > 1 else words[0]


def short(value: Any) -> str:
    """A value as it fits into a name."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{value:.3g}"
    return str(value)


def ranked(sweep: SweepRecord, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that have a result, the best first; of equals the first."""
    rated = [
        (value, record)
        for record in trials
        if record.best is not None and record.state.has_result
        and not math.isnan(value := rating(record.best.metrics, sweep.metric))
    ]  # fmt: skip
    sign = -1 if sweep.mode == "max" else 1
    return [record for _, record in sorted(rated, key=lambda each: (sign * each[0], each[1].number))]


def standing(sweep: SweepRecord, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """How far a sweep has come, as tags of its run: a list of sweeps need not look at their trials."""
    seconds = sum(record.seconds for record in trials)
    return {
        runs.PLANNED: sweep.planned,
        runs.OVER: sum(record.state.is_over for record in trials),
        runs.FAILED: sum(record.state is TrialState.FAILED for record in trials),
        runs.HOURS: f"{seconds * sweep.params['workers'] / 3_600:.4f}",
    }


def sweep(sweep: SweepRecord, trials: Sequence[TrialRecord]) -> str:
    """The description of a sweep's run, in Markdown."""
    counts = {state: sum(record.state is state for record in trials) for state in TrialState}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    lines = [
        f"**{sweep.experiment}**, by `{sweep.metric}` ({sweep.mode}): {told or 'no trial yet'} of {sweep.planned}.",
        "",
    ]
    leaders = ranked(sweep, trials)[:LEADERS]
    if leaders:
        searched = list(dict.fromkeys(name for record in leaders for name in record.searched))
        lines += [
            f"| trial | {sweep.metric} | step | state | {' | '.join(map(as_setting, searched))} |",
            f"| --- | --- | --- | --- |{' --- |' * len(searched)}",
        ]
        for record in leaders:
            assert record.best is not None
            config = record.config_at_best
            values = " | ".join(short(config.get(name)) if name in record.searched else "-" for name in searched)
            value = short(record.best.metrics[sweep.metric])
            lines.append(f"| {number(record)} | {value} | {record.best.step} | {record.state} | {values} |")
        lines.append("")
    lines += ["To do it again:", "", "```"]
    asked = sweep.arguments
    if sweep.state.is_unfinished and sweep.confirms is None:
        where = sweep.path if "://" not in sweep.path else f"{sweep.name} --storage {posixpath.dirname(sweep.path)}"
        lines.append(f"hfsuite resume {where}")
    if leaders:
        best, config = leaders[0], leaders[0].config_at_best
        chosen = {**asked.get("fixed", {}), **{name: config.get(name) for name in best.searched}}
        settings = " ".join(f"--set {name}={_typed(value)}" for name, value in chosen.items())
        seed = config.get(SETTING, Seeds.of_trial(asked.get("seed", 0), best.number).seed)
        lines.append(f"hfsuite reproduce {sweep.name}:best")
        lines.append(
            f"hfsuite train {sweep.module} --workers {sweep.params['workers']} --seed {seed} {settings}".rstrip()
        )
    lines += [sweep.provenance.get("command") or f"hfsuite sweep {sweep.module} --trials {sweep.planned}", "```"]
    return "\n".join(lines)


def _typed(value: Any) -> str:
    text = repr(value) if isinstance(value, float) else str(value)
    return f"'{text}'" if any(character in text for character in " '\"*$") else text
