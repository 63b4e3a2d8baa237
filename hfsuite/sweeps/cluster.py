"""The connection to Ray. Driver."""

from __future__ import annotations

import os
import socket

import ray

from hfsuite.errors import ConfigurationError

ADDRESS = "RAY_ADDRESS"
ANSWER_WITHIN_S = 10.0


def is_there() -> bool:
    """Whether there is a Ray already, or one is named: none will be started here."""
    return ray.is_initialized() or bool(os.environ.get(ADDRESS))


def connect() -> None:
    """Joins the cluster that `RAY_ADDRESS` names, or starts a Ray of its own; does nothing if there is one already.

    Raises:
        ConfigurationError: the cluster cannot be reached.
    """
    if ray.is_initialized():
        return
    address = os.environ.get(ADDRESS)
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}  # workers' output goes to files; the table names them
    if not address:
        ray.init(include_dashboard=False, **quiet)
        return
    try:
        _check_answers(address)
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"The Ray cluster RAY_ADDRESS={address} cannot be reached: {str(error).splitlines()[0]} "
            "Correct RAY_ADDRESS, or unset it to run on this machine."
        ) from error


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes. Addresses without a port ("auto", a Ray of this machine) are left to Ray."""
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_WITHIN_S).close()
