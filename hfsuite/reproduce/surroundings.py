"""What surrounds a training: code, packages, machine, data, model, world size; recorded, or as it is here. Driver."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hfsuite.reproduce.recorded import RecordedRun
from hfsuite.tracking import provenance
from hfsuite.tracking.declared import is_script
from hfsuite.tracking.points import as_text
from hfsuite.tracking.recipe import without_secret_settings

NOT_COUNTING = "does not count"


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Everything beside the settings that may decide how a training goes.

    Args:
        environment: command, git, machine, environment variables; see `hfsuite.tracking.provenance`.
        packages: versions by name.
        source: of the experiment's module, without secrets; None if it is not to be found.
        source_digest: of what it really is.
        diff: what is not committed.
        facts: what the training is given and where it runs; empty until it has begun.
        config: its settings.
        seed: from which its generators are seeded.
        workers: how many.
        changed_workers: in words, from which steps on there were how many; empty if their number has not changed.
        deterministic: whether the same bits are computed each time, as far as PyTorch can.
    """

    environment: Mapping[str, Any]
    packages: Mapping[str, str] = field(repr=False)
    source: str | None = field(repr=False)
    source_digest: str | None
    diff: str | None = field(repr=False)
    facts: Mapping[str, Any]
    config: Mapping[str, Any]
    seed: int | None
    workers: int | None
    deterministic: bool | None
    changed_workers: str = ""

    @property
    def git(self) -> Mapping[str, Any]:
        """Commit and branch; empty outside a repository."""
        return self.environment.get("git") or {}


def recorded(run: RecordedRun) -> Surroundings:
    """Of a run in MLflow."""
    recipe = run.recipe
    return Surroundings(
        environment=run.environment,
        packages=run.packages,
        source=run.source,
        source_digest=run.environment.get("source_digest"),
        diff=run.diff,
        facts=run.facts,
        config=recipe["config"],
        seed=recipe["seed"],
        workers=recipe["workers"],
        deterministic=recipe["deterministic"],
        changed_workers=recipe.get("changed_workers", ""),
    )


def counting(run: RecordedRun) -> dict[str, Any]:
    """The settings at a run's best report, those that do not count there as such."""
    return {**run.config_at_best, **dict.fromkeys(run.idle, NOT_COUNTING)}


def as_texts(config: Mapping[str, Any]) -> dict[str, str]:
    """Settings as MLflow has them where nothing else was recorded."""
    return {name: as_text(value) for name, value in config.items()}


def here(
    run: RecordedRun, *, folder: Path, text: str | None, workers: int, facts: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> Surroundings:  # fmt: skip
    """Of a run's repetition on this machine.

    Args:
        run: what is repeated.
        folder: where its module is imported from.
        text: the source of a program that does not lie there.
        workers: how many it shall have.
        facts: what `hfsuite train --facts` says; empty if nobody asked.
        changes: settings that shall be others.
    """
    module = run.recipe["module"]
    source = module_file(module, folder)
    found = provenance.collect(module, source, text)
    return Surroundings(
        environment={**found, "git": {**found["git"], "diff": None} if found["git"] else None},
        packages=found["packages"],
        source=found["source"],
        source_digest=found["source_digest"],
        diff=(found["git"] or {}).get("diff"),
        facts=facts,
        config={**run.recipe["config"], **without_secret_settings(changes)},
        seed=run.recipe["seed"],
        workers=workers,
        deterministic=run.recipe["deterministic"],
    )


def module_below(module: str, folder: Path) -> Path | None:
    """The file of a module in a folder, or in its folder `src`; of a program, where its name says."""
    if is_script(module):
        return folder / module if (folder / module).is_file() else None
    for root in (folder, folder / "src"):
        path = root.joinpath(*module.split("."))
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def module_file(module: str, folder: Path) -> Path | None:
    """The file of a module that would be imported in a folder; found without importing anything."""
    if (found := module_below(module, folder)) is not None:
        return found
    if is_script(module):
        return None
    package = module.partition(".")[0]
    if (spec := importlib.util.find_spec(package)) is None:
        return None
    for root in spec.submodule_search_locations or ([str(Path(spec.origin).parent)] if spec.origin else []):
        path = Path(root).parent.joinpath(*module.split(".")) if spec.submodule_search_locations else Path(root, module)
        if path.with_suffix(".py").is_file():
            return path.with_suffix(".py")
    return None
