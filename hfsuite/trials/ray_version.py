"""Which Ray versions trials run on. The range is in `pyproject.toml`; CI runs its oldest and its newest."""

from __future__ import annotations

import importlib.metadata
import os
import tomllib
from pathlib import Path

import ray
from packaging.requirements import Requirement

from hfsuite.errors import ConfigurationError

TRY_ANYWAY = "HFSUITE_ANY_RAY"


def check_ray_version() -> None:
    """Refuses a Ray that hfsuite was not tested with. In every process that imports `hfsuite.trials`.

    Raises:
        ConfigurationError: names the range, and how to try all the same.
    """
    requirements = map(Requirement, _requirements())
    tested = next((each.specifier for each in requirements if each.name == "ray"), None)
    if tested is None or tested.contains(ray.__version__, prereleases=True) or os.environ.get(TRY_ANYWAY):
        return
    raise ConfigurationError(
        f"Ray {ray.__version__} is installed, and hfsuite was tested with Ray {tested}: its trials depend on Ray's "
        f"internals, which change. Install one of those (pip install 'ray[tune]{tested}'), "
        f"or set {TRY_ANYWAY}=1 to try all the same."
    )


def _requirements() -> list[str]:
    """Those of the installed package; of a source tree that is not installed, those that it declares beside itself."""
    try:
        return importlib.metadata.requires("hfsuite") or []
    except importlib.metadata.PackageNotFoundError:
        declared = Path(__file__).parents[2] / "pyproject.toml"
        project = tomllib.loads(declared.read_text())["project"] if declared.is_file() else {}
        found: list[str] = project.get("dependencies", [])
        return found
