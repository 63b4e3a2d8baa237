"""Which checkpoints of a sweep stay when its trials are over. Driver."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ray.train import Checkpoint

from hfsuite.checkpoints import manifest
from hfsuite.errors import CheckpointError, ConfigurationError, did_you_mean
from hfsuite.tracking.describe import ranked
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.record import SweepRecord, TrialRecord

NAMES = {
    "best": "the best checkpoint of the three best trials",
    "all": "every checkpoint of every trial",
    "none": "no checkpoint of a trial that is over",
    "reference": "as best, and MLflow points to them instead of holding them",
}
BEST_TRIALS = 3


def parse_keep(keep: str) -> tuple[str, float]:
    """A policy and the number of trials whose checkpoints stay: "best", "best:5", "all", "none", "reference".

    Raises:
        ConfigurationError: there is no such policy.
    """
    found = re.fullmatch(r"(\w+)(?::(\d+))?", keep) if isinstance(keep, str) else None
    if (
        found is None
        or found[1] not in NAMES
        or (found[2] and (found[1] not in ("best", "reference") or found[2] == "0"))
    ):
        known = [*NAMES, "best:5"]
        raise ConfigurationError(f"keep cannot be {keep!r}. {did_you_mean(str(keep), known)}")
    counts = {"all": math.inf, "none": 0.0}
    return found[1], counts.get(found[1], float(found[2] or BEST_TRIALS))


def decide(sweep: SweepRecord, trials: Iterable[TrialRecord], keep: str) -> list[TrialRecord]:
    """Sets `kept` of each trial that is over; returns those for which it has changed.

    Args:
        sweep: its record.
        trials: all.
        keep: the policy.
    """
    policy, count = parse_keep(keep)
    trials = list(trials)
    leaders = {record.number for record in ranked(sweep, trials)[: int(min(count, len(trials)))]}
    changed = []
    for record in trials:
        if policy == "all":
            kept = list(record.saved)
        elif not record.state.is_over:
            kept = []
        elif not record.state.has_result:  # it may be taken up again, and its best may stay the best
            best = record.best.directory if record.best is not None else None
            kept = [each for each in record.saved if each is record.saved[-1] or each.directory == best]
            kept = kept if policy != "none" else []
        else:
            there = record.best is not None and record.best.directory is not None
            kept = [record.best] if record.number in leaders and there and record.best is not None else []
        if kept != record.kept:
            record.kept = kept
            changed.append(record)
    return changed


def remove_others(directory: SweepDirectory, record: TrialRecord) -> None:
    """Removes what a trial that is over has saved and the policy does not keep. The record must have been written."""
    if not record.state.is_over:
        return
    # One that may go on keeps its best and last checkpoints whatever the policy: but for "none", both are in `kept`.
    kept = {each.directory for each in record.kept}
    for name in directory.folders(record.directory):
        if name.startswith("checkpoint_") and name not in kept:
            directory.filesystem.delete_dir(f"{directory.path}/{record.directory}/{name}")
    record.saved = [each for each in record.saved if each.directory in kept]
    if record.best is not None and record.best.directory not in kept:
        record.best = replace(record.best, directory=None)


def forget_removed(
    directory: SweepDirectory, record: TrialRecord, is_better: Callable[[Mapping[str, Any], Mapping[str, Any]], bool]
) -> None:
    """Ray Tune has removed the checkpoints that fell out of its own count.

    Args:
        directory: the sweep's.
        record: the trial's, which is changed.
        is_better: whether the first of two reports is better than the second.
    """
    there = directory.folders(record.directory)
    record.saved = [each for each in record.saved if each.directory in there]
    if record.best is not None and record.best.directory not in there:
        as_good = (each for each in record.saved if not is_better(record.best.metrics, each.metrics))
        record.best = next(as_good, replace(record.best, directory=None))


def note_weights(directory: SweepDirectory, record: TrialRecord) -> None:
    """What the last and the best checkpoint of a trial held, which may be removed now."""
    record.last = record.saved[-1] if record.saved else None
    for snapshot in (record.last, record.best):
        if snapshot is not None and snapshot.directory is not None:
            where = f"{directory.path}/{record.directory}/{snapshot.directory}"
            with suppress(CheckpointError):  # what cannot be read is not recorded, and no verdict rests on it
                snapshot.weights = manifest.weights_digest(Checkpoint(where, directory.filesystem))
