"""A folder that needs nothing of this project: a trial's model, its training with its data, its numbers. Driver."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hfsuite.checkpoints import manifest
from hfsuite.errors import CheckpointError, ConfigurationError
from hfsuite.reproduce import recorded as records
from hfsuite.reproduce.beside import APART, beside
from hfsuite.reproduce.card import card, launch_of, variable_of
from hfsuite.reproduce.labels import without_labels
from hfsuite.reproduce.recorded import RecordedRun
from hfsuite.reproduce.transplant import Transplant, transplant
from hfsuite.tracking import models
from hfsuite.tracking.declared import Program
from hfsuite.tracking.recipe import is_hidden

if TYPE_CHECKING:
    import mlflow

OF_RANKS = ("determinism", "shares", "gathering", "dealing", "averaging", "probing", "weighing", "exact_loss")
TAKEN_ALONG = (
    "hfsuite.reproduce.standalone", "hfsuite.batch", "hfsuite.seeds", *(f"hfsuite.ranks.{name}" for name in OF_RANKS),
)  # fmt: skip
NEVER = {"hfsuite", "ray", "mlflow", "mlflow-skinny", "optuna"}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        run: what it came from.
        remarks: what whoever uses it should know, each a sentence; they are in its README too.
    """

    run: RecordedRun
    remarks: list[str]


def export(client: mlflow.MlflowClient, name: str, folder: Path) -> Exported:
    """Writes the folder of a recorded run.

    Args:
        client: of the tracking store.
        name: of the run; see `recorded.find`.
        folder: to be made; it must be new or empty.

    Raises:
        ConfigurationError: it cannot be exported, with every reason.
        NotRecorded: the run lacks what it takes.
        CheckpointError: its kept checkpoint is not whole.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"The folder {folder} is not empty: give another.")
    mlflow_run = records.find(client, name)
    run = records.read(client, mlflow_run)
    if unwritten := run.recipe["not_written"]:
        raise ConfigurationError(
            f"{run.title} had settings that no file can hold ({', '.join(unwritten)}), so a training without hfsuite "
            "cannot be given them: make them texts or numbers in the experiment."
        )
    module = transplant(run.whole_source(), run.recipe["module"])
    program = Program.of(run.recipe["experiment"], run.environment, None)
    if program.hides:
        raise ConfigurationError(f"{run.title} cannot be exported: {program.refusal(run.recipe['module'])}")
    arguments = program.arguments
    lies = beside(module.code, run.recipe["module"], taken=taken(), arguments=arguments)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as parent:
        whole = Path(parent, "whole")  # it gets its name when it is complete
        whole.mkdir()
        has_model = _write_model(client, mlflow_run, run, whole, Path(parent, "fetched"))
        remarks = [*([said] if (said := without_labels(whole / "model")) else []), *lies.remarks]
        lies.copy(whole)
        for each in TAKEN_ALONG:
            (whole / f"{each.rpartition('.')[2]}.py").write_text(taken_along(each), encoding="utf-8")
        for name, text in {
            "experiment.py": lies.code,
            "train.py": _train(run, module, arguments),
            "accelerate.yaml": _accelerate(run, module),
            "requirements.txt": requirements(run.packages, module.packages),
            "metrics.json": json.dumps(run.curves, indent=1),
            "README.md": card(run, has_model=has_model, remarks=remarks, files=sorted(lies.files)),
        }.items():
            (whole / name).write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        whole.rename(folder)
    return Exported(run, remarks)


def taken() -> set[str]:
    """The names of what an exported folder has, and of what its training writes there."""
    own = {"experiment.py", "train.py", "accelerate.yaml", "requirements.txt", "metrics.json", "README.md", "model"}
    return {*own, *(f"{each.rpartition('.')[2]}.py" for each in TAKEN_ALONG), "metrics.jsonl", "checkpoint", APART}


def requirements(packages: Mapping[str, str], named: Iterable[str]) -> str:
    """The recorded versions of what a training imports, and of all that this needs in turn.

    Args:
        packages: that were recorded, with their versions.
        named: distributions that the training names.
    """
    versions = {canonicalize_name(name): (name, version) for name, version in packages.items()}
    wanted, found = (
        [canonicalize_name(name) for name in [*named, "torch", "transformers", "accelerate", "numpy"]],
        set(),
    )
    while wanted:
        name = wanted.pop()
        if name in found or name not in versions or name in NEVER:
            continue
        found.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # what it needs in turn is not known here: then all is taken
            found = {each for each in versions if each not in NEVER}
            break
        for text in needs:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(canonicalize_name(requirement.name))
    return "\n".join(
        ["# pip install --no-deps -r requirements.txt", *pinned(versions[name] for name in sorted(found)), ""]
    )


def pinned(packages: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of a requirements file. A build of one's own ("+cpu") is on no index: any build of the version will do."""
    return [
        f"{name}=={version.partition('+')[0]}" + (f"  # was {version}" if "+" in version else "")
        for name, version in packages
    ]


def _write_model(
    client: mlflow.MlflowClient, mlflow_run: mlflow.entities.Run, run: RecordedRun, folder: Path, fetched: Path
) -> bool:
    kept, best = models.kept_by(client, mlflow_run), run.recipe["best"]
    if not kept:
        return False
    step = best["step"] if best is not None and best["step"] in kept else max(kept)
    what = f"The checkpoint of {run.title} at step {step} cannot be exported"
    try:
        place = models.fetch(client, kept[step], fetched)
    except CheckpointError as error:
        raise CheckpointError(f"{what}: {error}.") from error
    recorded = run.weights.get(step)
    if recorded is not None and recorded != manifest.weights_digest_of(str(place)):
        raise CheckpointError(f"{what}: what MLflow has is not what was recorded, by its digest.")
    of_training = shutil.ignore_patterns("*.pt", "*.pth", "*.bin", "*.pkl", "manifest.json", "trainer_state.json")
    shutil.copytree(place, folder / "model", ignore=of_training)
    return True


def _train(run: RecordedRun, module: Transplant, arguments: Sequence[str]) -> str:
    recipe = run.recipe
    threads = int(run.facts.get("threads", 1))
    settings = "\n".join(f"    {name!r}: {_literal(name, value)}," for name, value in run.config_at_best.items())
    launch = launch_of(run)
    precision = module.accelerate_config.get("mixed_precision", run.facts.get("precision", "no"))
    called = (
        f"import sys\n\nsys.argv[1:] = {list(arguments)!r}  # of its program, which reads them\n" if arguments else ""
    )
    deterministic = "    compute_deterministically()\n" if recipe["deterministic"] else ""
    imported = "compute_deterministically, seed_all" if recipe["deterministic"] else "seed_all"
    return f'''"""The training of {run.title}.

    pip install --no-deps -r requirements.txt
    {launch}

It writes what it reports to metrics.jsonl, a line each, and its last checkpoint to checkpoint/.
"""

import os
{called}
os.environ.setdefault("OMP_NUM_THREADS", "{threads}")
os.environ.setdefault("ACCELERATE_USE_CPU", "{str(not recipe["gpu"]).lower()}")
os.environ.setdefault("ACCELERATE_MIXED_PRECISION", "{precision}")

from determinism import {imported}
from experiment import {module.function}
from standalone import {module.runner}

SETTINGS = {{
{settings}
}}

if __name__ == "__main__":
    seed_all({recipe["seed"]})
{deterministic}    {module.runner}({module.function}, SETTINGS, threads={threads})
'''


def _literal(name: str, value: Any) -> str:
    """A value as Python reads it; a secret, which was not recorded, comes from the environment."""
    if isinstance(value, str) and is_hidden(value):
        return f'os.environ["{variable_of(name)}"]'
    return f'float("{value}")' if isinstance(value, float) and not math.isfinite(value) else repr(value)


def _accelerate(run: RecordedRun, module: Transplant) -> str:
    workers, gpu = run.recipe["workers"], run.recipe["gpu"]
    kind = "NO" if workers == 1 else "MULTI_GPU" if gpu else "MULTI_CPU"
    return yaml.safe_dump(
        {
            "compute_environment": "LOCAL_MACHINE",
            "distributed_type": kind,
            "mixed_precision": run.facts.get("precision", "no"),
            **module.accelerate_config,
            "num_processes": workers,
            "num_machines": 1,
            "machine_rank": 0,
            "use_cpu": not gpu,
        }
    )


def taken_along(module: str) -> str:
    """The source of a module of the project as it is in the exported folder, where files import each other by names."""
    spec = importlib.util.find_spec(module)  # it need not be imported: it may need PyTorch
    assert spec is not None
    assert spec.origin is not None
    text = Path(spec.origin).read_text(encoding="utf-8")
    text = re.sub(r"from hfsuite\.errors import ConfigurationError", "from standalone import ConfigurationError", text)
    return re.sub(r"from hfsuite\.(?:\w+\.)?(\w+) import", r"from \1 import", text)
