"""A trial's settings in its run: its parameters, or, while a population may still change them, a tag.

Parameters in MLflow cannot change, and its pages draw from nothing else. So those of a population's member are written
when it is over, as they were at its best value. A setting that does not count where the others have these values is no
parameter, but in a tag. In the writer's thread, or in `hfsuite sync`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from hfsuite.tracking import runs
from hfsuite.tracking.names import names_of, paths
from hfsuite.tracking.points import as_text
from hfsuite.tracking.record import SweepRecord, TrialRecord
from hfsuite.tracking.secrets import as_parameter, without_secrets

if TYPE_CHECKING:  # see `store`
    import mlflow

AT_BEST = f"{runs.TAG}.settings_at_best"  # a tag of a population's member: JSON from parameters to texts
IDLE = f"{runs.TAG}.settings_not_counting"  # likewise, of any trial that has such


def write(run: runs.Run, sweep: SweepRecord, record: TrialRecord) -> None:
    """Writes what is missing of them.

    Args:
        run: the trial's.
        sweep: its record.
        record: the trial's.
    """
    own = dict.fromkeys(runs.OWN_PARAMS, sweep.params["workers"])
    config = record.config_at_best
    texts, idle = _texts(config), _texts(config, record.idle)
    counting = {name: value for name, value in texts.items() if name not in idle}
    if sweep.decides_at_end:
        run.write_tags({AT_BEST: _as_tag(counting)})
    if idle or IDLE in run.tags:
        run.write_tags({IDLE: _as_tag(idle)})
    changes_still = sweep.decides_at_end and record.state.is_unfinished
    without = config if changes_still else record.idle
    run.write_params(config, own, without)  # what a trial logs itself waits for `own`


def read(run: mlflow.entities.Run) -> dict[str, str]:
    """The parameters of a trial's run, those that are still to be written among them."""
    return {**json.loads(run.data.tags.get(AT_BEST, "{}")), **run.data.params}


def read_all(run: mlflow.entities.Run) -> dict[str, str]:
    """Likewise, and the settings that do not count."""
    return {**json.loads(run.data.tags.get(IDLE, "{}")), **read(run)}


def _texts(config: Mapping[str, Any], only: Collection[str] | None = None) -> dict[str, str]:
    """Settings by their names as parameters."""
    names = names_of(config, runs.OWN_PARAMS)
    named = {names.of(path): value for path, value in paths(config) if only is None or path[0] in only}
    return {name: as_parameter(name, as_text(value)) for name, value in named.items()}


def _as_tag(texts: Mapping[str, str]) -> str:
    """As many as a tag holds, the short ones first; none that would be cut out of it as a secret."""
    shown = [each for each in texts.items() if (alone := json.dumps(dict([each]))) == without_secrets(alone)]
    held = dict(sorted(shown, key=lambda each: len(each[1])))
    while len(text := json.dumps(held)) > runs.TAG_LIMIT:
        held.popitem()
    return text
