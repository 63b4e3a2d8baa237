"""Whether the winner of a sweep is one: its finalists over the same fresh seeds, on data that no search saw. Driver.

A winner over one seed and one validation part is luck as often as merit: seeds alone move fine-tuning results a lot
(Dodge et al. 2020, arXiv 2002.06305), and whoever picks the largest of many numbers picks its luck too.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ray import tune

from hfsuite.declaration import Declaration
from hfsuite.errors import ConfigurationError, TrialFailed
from hfsuite.ranks.examination import TEST_FILE
from hfsuite.reproduce import recorded as records
from hfsuite.reproduce.reproduction import check_repeatable
from hfsuite.search.own_choices import OwnChoices, check_read
from hfsuite.search.rounds import Rounds, Values
from hfsuite.seeds import SETTING, Seeds
from hfsuite.sweeps.job import Job, Purpose
from hfsuite.sweeps.request import AUTO, Request
from hfsuite.sweeps.sequential import FEWEST, Comparison, compare
from hfsuite.sweeps.storage import absolute
from hfsuite.sweeps.sweep import run
from hfsuite.tracking import runs
from hfsuite.tracking.describe import short
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.names import mlflow_name

if TYPE_CHECKING:
    from hfsuite.sweeps.result import SweepResult


@dataclass(frozen=True)
class Finalist:
    """A trial of the sweep, tried again.

    Args:
        number: of the trial, in its sweep.
        run_id: of the trial.
        config: its settings.
        selected: what it had reached on the validation part when it was selected.
        values: what it reached on the test part, a value a seed.
        failures: with how many seeds it failed; those are left out for all finalists.
    """

    number: int
    run_id: str
    config: Mapping[str, Any]
    selected: float
    values: Sequence[float] = ()
    failures: int = 0

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """The standard deviation over the seeds; NaN of one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan


@dataclass(frozen=True, repr=False)
class Confirmation:
    """What came out.

    Args:
        sweep: the name of the sweep that was confirmed.
        metric: what was compared, on the test part.
        mode: "min" or "max".
        finalists: the best first, by their means.
        against: the winner compared with each of the others, in their order.
        planned_seeds: how many seeds there were to be.
        tried_seeds: with how many any finalist was trained; fewer if the question was settled before.
        failed: finalists that failed with every seed.
        result: of the sweep that was run for it.
    """

    sweep: str
    metric: str
    mode: str
    finalists: Sequence[Finalist]
    against: Sequence[Comparison]
    planned_seeds: int
    tried_seeds: int
    failed: Sequence[Finalist]
    result: SweepResult

    def __repr__(self) -> str:
        rivals = "it had no rival" if not self.against else "told apart" if self.is_settled else "not told apart"
        seeds = f"{len(self.winner.values)} of {self.planned_seeds} seeds"
        head = f"Confirmation of {self.sweep!r}: {self.metric} ({self.mode}) on the test part, {seeds}"
        lines = [
            f"  trial {each.number:03d}: {short(each.mean)}"
            + (f", deviation {short(each.deviation)}" if not math.isnan(each.deviation) else "")
            + (f" (the winner, {rivals})" if place == 0 else "")
            for place, each in enumerate(self.finalists)
        ]
        failed = [f"  trial {each.number:03d}: failed with every seed" for each in self.failed]
        return "\n".join([head, *lines, *failed])

    @property
    def winner(self) -> Finalist:
        """The one with the best mean."""
        return self.finalists[0]

    @property
    def is_settled(self) -> bool:
        """Whether the winner can be told from every other finalist."""
        return bool(self.against) and all(each.apart for each in self.against)

    def optimism(self, finalist: Finalist) -> float:
        """By how much the search had promised more than the test part held; negative if it held more."""
        return (finalist.selected - finalist.mean) * _sign(self.mode)

    def as_json(self) -> dict[str, Any]:
        """Plain values: what `--json` prints."""
        return {
            "sweep": self.sweep,
            "metric": self.metric,
            "mode": self.mode,
            "winner": self.winner.number,
            "winner_run_id": self.winner.run_id,
            "is_settled": self.is_settled,
            "seeds": len(self.winner.values),
            "planned_seeds": self.planned_seeds,
            "tried_seeds": self.tried_seeds,
            "failed": [each.number for each in self.failed],
            "finalists": [
                {
                    "number": each.number,
                    "run_id": each.run_id,
                    "mean": each.mean,
                    "deviation": None if math.isnan(each.deviation) else each.deviation,
                    "values": list(each.values),
                    "failures": each.failures,
                    "selected": each.selected,
                    "optimism": self.optimism(each),
                }
                for each in self.finalists
            ],
            "against": [
                {
                    "number": each.number,
                    "difference": compared.mean,
                    "low": compared.low if math.isfinite(compared.low) else None,
                    "high": compared.high if math.isfinite(compared.high) else None,
                    "level": compared.level,
                    "apart": compared.apart,
                }
                for each, compared in zip(self.finalists[1:], self.against, strict=True)
            ],
            "run_id": self.result.run_id,
            "name": self.result.name,
        }


def confirm(
    client: Any, parent: Any, experiment: Declaration, request: Request, *, top: int = 3, seeds: int = 5
) -> Confirmation:
    """Trains the finalists of a sweep with fresh seeds, as a sweep of its own, and tests them.

    Args:
        client: MLflow's, of the tracking store.
        parent: the sweep's run, as MLflow returns it.
        experiment: that was swept.
        request: of the new sweep; what it leaves open is as it was in the old one.
        top: how many of the best trials.
        seeds: how many seeds at most; it ends before, when the winner can be told from all others.

    Raises:
        ConfigurationError: it cannot be done, with every reason.
        TrialFailed: no finalist has succeeded with any seed.
    """
    sweep, params = parent.data.tags[runs.SWEEP], parent.data.params
    finalists = _finalists(client, parent, top, OwnChoices.of(experiment.space, experiment.defaults))
    if faults := _faults(experiment, sweep, finalists, top=top, seeds=seeds):
        raise ConfigurationError(faults)
    name = request.name or f"{sweep}-confirm-{time.strftime('%Y%m%d-%H%M%S')}"
    directory = SweepDirectory.at(absolute(request.storage), name)
    varied = sorted({key for each in finalists for key in each.config if _differs(key, finalists)} - {SETTING})
    rounds = _rounds(experiment, finalists, varied, directory, seeds=seeds, seed=int(params.get("seed", 0)))
    space = {key: tune.choice([each.config[key] for each in finalists if key in each.config]) for key in varied}
    share = params.get("gpu_share", AUTO)
    gpu: Any = params.get("gpu") == "True" and (AUTO if share == AUTO else float(share))
    asked = replace(
        request,
        trials=len(finalists) * seeds, searcher=rounds, trial_scheduler="fifo", try_defaults=False,
        workers=request.workers or int(params["workers"]), gpu=gpu if request.gpu is None else request.gpu,
        deterministic=params.get("deterministic") == "True",
        set={key: value for key, value in finalists[0].config.items() if key not in varied and key != SETTING},
        seed=int(params.get("seed", 0)), name=name,
    )  # fmt: skip
    purpose = Purpose(confirms=(parent.info.run_id, sweep), conditions=experiment.only_where)
    space[SETTING] = tune.randint(0, 2**31)
    result = run(Job(replace(experiment, space=space, only_where={}), asked, purpose))
    if result.interrupted:
        raise KeyboardInterrupt
    if not rounds.values:
        why = next((trial.failure for trial in result.trials if trial.failure), "")
        raise TrialFailed(f"There is no seed with which every finalist has succeeded, of those that ever did. {why}")
    done = _judged(sweep, experiment, finalists, rounds, result, seeds=seeds)
    _tag(client, parent, done)
    return done


def _faults(experiment: Declaration, sweep: str, finalists: Sequence[Finalist], *, top: int, seeds: int) -> list[str]:
    """Why a sweep cannot be confirmed."""
    faults = []
    if seeds < 1 or top < 1:
        faults.append(f"At least one finalist and one seed are needed, got top={top} and seeds={seeds}.")
    if not finalists:
        faults.append(f"The sweep {sweep!r} has no trial with a result.")
    if SETTING not in experiment.defaults:
        faults.append(f"{experiment.name} has no setting {SETTING!r}, so finalists cannot be given the same seeds.")
    if experiment.test is None:
        faults.append(f"{experiment.name} declares no test: Experiment(test=...) rates a checkpoint on the test part.")
    return faults


def _rounds(
    experiment: Declaration, finalists: Sequence[Finalist], varied: Sequence[str], directory: SweepDirectory, *,
    seeds: int, seed: int,
) -> Rounds:  # fmt: skip
    """A searcher that proposes every finalist with one seed after another, until the winner can be told."""
    argument, sign = experiment.trainer.config_argument, _sign(experiment.mode)

    def value_of(number: int) -> float | None:
        text = directory.read_text(f"trial_{number:03d}/{TEST_FILE}")
        return float(json.loads(text)[experiment.metric]) if text is not None else None

    def is_settled(values: Values) -> bool:
        ordered = sorted(values, key=lambda each: -sign * statistics.fmean(each)) if values else []
        against = _against(ordered, seeds, sign)
        return bool(against) and all(each.apart for each in against)

    return Rounds(
        [{key: each.config[key] for key in varied if key in each.config} for each in finalists],
        [Seeds(seed).stream(f"confirmation {place}") for place in range(seeds)],
        with_seed=lambda point, seed: {argument: {**point, SETTING: seed}},
        value_of=value_of,
        is_settled=is_settled,
    )


def _judged(
    sweep: str, experiment: Declaration, finalists: Sequence[Finalist], rounds: Rounds, result: SweepResult, *,
    seeds: int,
) -> Confirmation:  # fmt: skip
    """What came out, the best first."""
    failures, standing, sign = rounds.failures, rounds.standing, _sign(experiment.mode)
    tested = [
        replace(finalists[place], values=values, failures=failures[place])
        for place, values in zip(standing, rounds.values, strict=True)
    ]
    tested.sort(key=lambda each: -sign * each.mean)
    against = _against([each.values for each in tested], seeds, sign)
    failed = [each for place, each in enumerate(finalists) if place not in standing]
    tried = math.ceil(len(rounds.reached) / len(finalists))
    return Confirmation(sweep, experiment.metric, experiment.mode, tested, against, seeds, tried, failed, result)


def _finalists(client: Any, parent: Any, top: int, choices: OwnChoices) -> list[Finalist]:
    tags = parent.data.tags
    best, sign = mlflow_name(f"best_{tags[runs.METRIC]}"), _sign(tags[runs.MODE])
    rated = [
        (run.data.metrics[best], run)
        for run in runs.children(client, parent)
        if run.data.tags.get(runs.STATE) in ("completed", "pruned") and best in run.data.metrics
    ]
    rated = [each for each in rated if not math.isnan(each[0])]
    rated.sort(key=lambda each: (-sign * each[0], int(each[1].data.tags[runs.TRIAL])))
    found = []
    for value, trial in rated[: max(0, top)]:
        recorded = records.read(client, trial)
        check_repeatable(recorded, {})
        config = check_read(choices, recorded.recipe["config"], recorded.recipe["not_written"])
        found.append(Finalist(int(trial.data.tags[runs.TRIAL]), trial.info.run_id, config, value))
    return found


def _against(values: Sequence[Sequence[float]], seeds: int, sign: int) -> list[Comparison]:
    """The first compared with each of the others. While there are too few seeds to tell, no look is taken."""
    looks, rivals = max(1, seeds - FEWEST + 1), max(1, len(values) - 1)
    return [compare(values[0], each, looks=looks, rivals=rivals, sign=sign) for each in values[1:]]


def _differs(key: str, finalists: Sequence[Finalist]) -> bool:
    return any(each.config.get(key) != finalists[0].config.get(key) for each in finalists)


def _sign(mode: str) -> int:
    return 1 if mode == "max" else -1


def _tag(client: Any, parent: Any, done: Confirmation) -> None:
    winner = done.winner
    how = "no rival" if not done.against else "apart from" if done.is_settled else "not told apart from"
    told = f"{winner.mean:.6g} over {len(winner.values)} seeds on the test part, {how}" + (
        " every other finalist" if done.against else ""
    )
    before = parent.data.tags.get(runs.CONFIRMED_RUN)
    if before not in (None, winner.run_id):  # of a confirmation before this one
        client.delete_tag(before, runs.CONFIRMED)
    for run_id in (winner.run_id, parent.info.run_id):
        client.set_tag(run_id, runs.CONFIRMED, told)
    client.set_tag(parent.info.run_id, runs.CONFIRMED_RUN, winner.run_id)
    if done.result.run_id is not None:
        client.log_dict(done.result.run_id, done.as_json(), "confirmation.json")
