"""What it takes to run a trial again, and to judge whether the same came out: `recipe.json` of its run.

Parameters in MLflow are texts, cut at a length; here are the values themselves. What the trial was given and where it
ran is beside it, in `training.json`, and where its sweep came from in the sweep's run; so MLflow alone suffices. In the
writer's thread, or in `hfsuite sync`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hfsuite.seeds import SETTING, Seeds
from hfsuite.tracking.record import Snapshot, SweepRecord, TrialRecord
from hfsuite.tracking.secrets import HIDDEN, SECRET_SETTINGS, as_parameter

if TYPE_CHECKING:
    from hfsuite.tracking.runs import Run

RECIPE_FILE = "recipe.json"
FORMAT = 1


def write_recipe(
    run: Run, sweep: SweepRecord, record: TrialRecord, *, last_step: int, loss_bits: Mapping[int, str],
    restarts: Sequence[int],
) -> None:  # fmt: skip
    """Puts it into the run of a trial that is over; again it writes the same, or what has become of it since.

    Args:
        run: the trial's.
        sweep: its record.
        record: the trial's.
        last_step: the optimizer step of its last report.
        loss_bits: the digest of the loss at each optimizer step; see `hfsuite.ranks.loss_bits`.
        restarts: the optimizer steps from which the trial went on after it had been interrupted.
    """
    config = without_secret_settings(record.config)
    recipe = {
        "format": FORMAT,
        "experiment": sweep.experiment,
        "module": sweep.module,
        "sweep": sweep.name,
        "sweep_id": sweep.sweep_id,
        "number": record.number,
        "metric": sweep.metric,
        "mode": sweep.mode,
        "config": config,
        "not_written": record.not_written,
        "restarts": list(restarts),
        "searched": record.searched,
        "idle": record.idle,
        "seed": _seed_of(sweep, record),
        "workers": sweep.params["workers"],
        "changed_workers": record.changed_workers,
        "gpu": sweep.params.get("gpu", False),
        "gpu_share": share if isinstance(share := sweep.params.get("gpu_share"), float) else None,  # it needs no others
        "deterministic": sweep.params.get("deterministic", False),
        "trial_scheduler": sweep.params.get("trial_scheduler"),
        "state": str(record.state),
        "why": record.why,
        "reports": record.reports,
        "last_step": last_step,
        "best": _snapshot(record.best),
        "last": _snapshot(record.last),
        "loss_bits": {str(step): digest for step, digest in sorted(loss_bits.items()) if step <= last_step},
    }
    run.client.log_dict(run.run_id, recipe, RECIPE_FILE)


def _snapshot(snapshot: Snapshot | None) -> dict[str, Any] | None:
    if snapshot is None:
        return None
    return asdict(snapshot) | {"changed": without_secret_settings(snapshot.changed)}


def _seed_of(sweep: SweepRecord, record: TrialRecord) -> int:
    """From which the trial's generators were seeded."""
    if isinstance(own := record.config.get(SETTING), int):
        return own
    seed = int(sweep.params.get("seed", 0))
    return Seeds.of_trial(seed, record.number).seed if sweep.kind == "sweep" else seed


def without_secret_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they may be recorded: without secrets and credentials, everything else as it is."""
    return {name: _clean(name, value) for name, value in config.items()}


def is_hidden(value: Any) -> bool:
    """Whether a recorded setting, or a part of it, was a secret."""
    if isinstance(value, Mapping):
        return any(map(is_hidden, value.values()))
    if isinstance(value, list | tuple):
        return any(map(is_hidden, value))
    return isinstance(value, str) and (value == HIDDEN or f"={HIDDEN}" in value)


def _clean(name: str, value: Any) -> Any:
    if SECRET_SETTINGS.fullmatch(name) and value is not None and not isinstance(value, bool):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(key): _clean(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(name, each) for each in value]
    return as_parameter(name, value) if isinstance(value, str) else value
