"""The connection to Ray. Driver."""

from __future__ import annotations

import os

import ray

from hfsuite.errors import ConfigurationError


def connect() -> None:
    """Joins the cluster that `RAY_ADDRESS` names, or starts a Ray of its own; does nothing if there is one already.

    Raises:
        ConfigurationError: the cluster cannot be reached.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}  # workers' output goes to files; the table names them
    if not address:
        ray.init(include_dashboard=False, **quiet)
        return
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"The Ray cluster RAY_ADDRESS={address} cannot be reached: {str(error).splitlines()[0]} "
            "Correct RAY_ADDRESS, or unset it to run on this machine."
        ) from error
