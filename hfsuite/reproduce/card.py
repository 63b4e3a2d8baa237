"""The model card of an exported folder: what it reached, by which settings, on which data, and how to train it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hfsuite.reproduce.recorded import RecordedRun
from hfsuite.reproduce.surroundings import counting
from hfsuite.tracking import runs
from hfsuite.tracking.describe import as_settings
from hfsuite.tracking.recipe import is_hidden


def card(run: RecordedRun, *, has_model: bool, remarks: Sequence[str] = (), files: Sequence[str] = ()) -> str:
    """The text.

    Args:
        run: what is exported.
        has_model: whether a checkpoint of it was kept.
        remarks: what whoever uses the folder should know, each a sentence.
        files: what lay beside the experiment's module and is in the folder.
    """
    recipe = run.recipe
    best = recipe["best"] or {"metrics": {}, "step": 0}
    numbers = {name: value for name, value in best["metrics"].items() if name in run.curves}
    verdict, confirmed = (run.tags.get(tag) for tag in (runs.VERDICT, runs.CONFIRMED))
    device = run.facts.get("device", "cpu")
    lines = [
        "---",
        "library_name: transformers",
        "---",
        "",
        f"# {run.title}",
        "",
        f"Trained by `{recipe['module']}` on {recipe['workers']} "
        f"{'GPU' if recipe['gpu'] else 'CPU'} worker{'s' if recipe['workers'] > 1 else ''} ({device}); "
        f"MLflow run `{run.run_id}`.",
        "",
        f"## Reported at step {best['step']}, its best",
        "",
        "| metric | value |",
        "| --- | --- |",
        *(f"| {name} | {value:.6g} |" for name, value in sorted(numbers.items())),
        "",
        f"Reproduced: {verdict or 'nobody has tried yet'}." + (f" Confirmed: {confirmed}." if confirmed else ""),
        "",
        "## Settings",
        "",
        "| setting | value |",
        "| --- | --- |",
        *(f"| {name} | {_cell(value)} |" for name, value in as_settings(counting(run)).items()),
        "",
        "## Data and base model",
        "",
        *(f"- {each['context']}: {each.get('name') or each.get('source') or 'unnamed'}, digest {each['digest']}"
          + (f", {each['rows']} rows" if each.get("rows") else "") for each in run.facts.get("inputs", [])),
        "",
        "## Train it again",
        "",
        "```",
        "pip install --no-deps -r requirements.txt",
        launch_of(run),
        "```",
        "",
        "`experiment.py` prepares the data and builds the training, `train.py` holds the values. `metrics.json` has "
        "what the original reported, by metric and optimizer step."
        + ("" if has_model else " No checkpoint of it was kept, so there is no `model/`."),
    ]  # fmt: skip
    for each in (*_to_know(run, has_model=has_model, files=files), *remarks):
        lines += ["", each]
    return "\n".join([*lines, ""])


def _to_know(run: RecordedRun, *, has_model: bool, files: Sequence[str]) -> Iterator[str]:
    """What is different in this folder, each a sentence."""
    if run.changed_settings:
        names = ", ".join(run.changed_settings)
        yield f"Its trial scheduler changed {names} on the way; here are the values at its best report."
    if secrets := [variable_of(name) for name, value in run.recipe["config"].items() if is_hidden(value)]:
        yield f"Set {', '.join(secrets)} before: secrets were not recorded."
    if has_model:
        yield "`model/` loads with `from_pretrained` of Transformers."
    if files:
        yield f"Taken along, since `experiment.py` reads it: {', '.join(f'`{each}`' for each in files)}."


def launch_of(run: RecordedRun) -> str:
    """The command that trains it."""
    workers = run.recipe["workers"]
    torchrun = f"torchrun --standalone --nproc-per-node {workers} train.py"
    return (
        f"{torchrun}        or        accelerate launch --config_file accelerate.yaml train.py"
        if run.recipe["gpu"]
        else torchrun
    )


def variable_of(name: str) -> str:
    """Of the environment: it holds a setting that is a secret."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|")
