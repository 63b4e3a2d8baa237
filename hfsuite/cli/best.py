"""`hfsuite best`: the best trial of a recorded sweep, from MLflow alone."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from hfsuite.cli import completion, settings
from hfsuite.cli.outcome import answer
from hfsuite.errors import UnknownName, did_you_mean


def best(
    sweep: Annotated[
        str | None,
        typer.Argument(
            metavar="[SWEEP]",
            help="A sweep's name or MLflow run id; by default the newest.",
            autocompletion=completion.sweeps,
        ),
    ] = None,
    json: settings.Json = False,
) -> int:
    """Show the best trial of a sweep."""
    from hfsuite.own_values import json_value
    from hfsuite.tracking import store

    client = store.existing_store()
    from hfsuite.tracking import runs
    from hfsuite.tracking.describe import as_settings
    from hfsuite.tracking.state import TrialState

    parent = find_parent(client, sweep)
    tags = parent.data.tags
    name = tags[runs.SWEEP]
    if runs.BEST_RUN not in tags:
        state = tags.get(runs.STATE, TrialState.RUNNING)
        died = f" If its driver has died: hfsuite resume {name}, or hfsuite sync {name} to close it."
        hint = "" if TrialState(state).is_over else died
        raise UnknownName(f"The sweep {name!r} has no best trial: it is {state}.{hint}")
    run = client.get_run(tags[runs.BEST_RUN])
    found = _as_dict(client, run, parent)
    if json:
        with answer(json) as say:
            say(json_value(found))
        return 0
    console = Console()
    table = Table(title=f"Best of {name}: trial {int(found['trial']):03d}", title_justify="left", show_header=False)
    table.add_row(tags[runs.METRIC], f"{found['value']:.6g}", style="bold")
    for key, value in sorted(as_settings(found["config"]).items()):
        table.add_row(key, str(value))
    console.print(table)
    console.print(f"MLflow run {found['run_id']}")
    if found["checkpoint"]:
        console.print(f"checkpoint {found['checkpoint']}", soft_wrap=True)
    return 0


def find_parent(client: Any, sweep: str | None) -> Any:
    """The run of a sweep.

    Raises:
        UnknownName: there is none, with the nearest names.
    """
    from hfsuite.tracking import runs, store
    from hfsuite.tracking.secrets import without_credentials

    if (parent := runs.find_sweep(client, sweep)) is not None:
        return parent
    names = runs.sweep_names(client)
    where = without_credentials(store.tracking_uri())
    wanted = "no sweep yet" if sweep is None else f"no sweep {sweep!r}"
    hint = did_you_mean(sweep, names) if sweep and names else "Run one: hfsuite sweep MODULE"
    raise UnknownName(f"There is {wanted} in {where}. {hint}")


def _as_dict(client: Any, run: Any, parent: Any) -> dict[str, Any]:
    from hfsuite.tracking import runs

    return {
        "sweep": parent.data.tags[runs.SWEEP],
        "trial": int(run.data.tags[runs.TRIAL]),
        "metric": parent.data.tags[runs.METRIC],
        "value": float(parent.data.tags[runs.BEST_VALUE]),
        "config": _settings_of(client, run),
        "metrics": parent.data.metrics,
        "state": run.data.tags[runs.STATE],
        "run_id": run.info.run_id,
        "checkpoint": parent.data.tags.get(runs.CHECKPOINT_PATH),
    }


def _settings_of(client: Any, run: Any) -> dict[str, Any]:
    """The settings of a trial that count, in their own types; where only MLflow's parameters are known, texts."""
    from hfsuite.reproduce import recorded

    found = recorded.read(client, run, whole=False)
    return {name: value for name, value in found.config_at_best.items() if name not in found.idle}
