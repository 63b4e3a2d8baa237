"""Which Ray versions trials run on. The range is in `pyproject.toml`; CI runs its oldest and its newest."""

from __future__ import annotations

import importlib.metadata
import os

import ray
from packaging.requirements import Requirement

from hfsuite.errors import ConfigurationError

TRY_ANYWAY = "HFSUITE_ANY_RAY"


def check_ray_version() -> None:
    """Refuses a Ray that hfsuite was not tested with. In every process that imports `hfsuite.trials`.

    Raises:
        ConfigurationError: names the range, and how to try all the same.
    """
    requirements = map(Requirement, importlib.metadata.requires("hfsuite") or [])
    tested = next((each.specifier for each in requirements if each.name == "ray"), None)
    if tested is None or tested.contains(ray.__version__, prereleases=True) or os.environ.get(TRY_ANYWAY):
        return
    raise ConfigurationError(
        f"Ray {ray.__version__} is installed, and hfsuite was tested with Ray {tested}: its trials depend on Ray's "
        f"internals, which change. Install one of those (pip install 'ray[tune]{tested}'), "
        f"or set {TRY_ANYWAY}=1 to try all the same."
    )
