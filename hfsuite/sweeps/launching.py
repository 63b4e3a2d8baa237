"""Loading a program up to where it launches: whoever wants only its experiment must not run its sweep. Driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from hfsuite.declaration import Declaration

_only_loads: ContextVar[bool] = ContextVar("only_loads", default=False)


class Launched(BaseException):
    """A program that is only loaded would start training now. No error: handlers of errors must let it pass.

    Args:
        experiment: what it would train.
    """

    def __init__(self, experiment: Declaration) -> None:
        super().__init__(experiment.name)
        self.experiment = experiment


@contextmanager
def only_loading() -> Iterator[None]:
    """Meanwhile `Experiment.sweep()` and its like raise `Launched`."""
    token = _only_loads.set(True)
    try:
        yield
    finally:
        _only_loads.reset(token)


def launch(experiment: Declaration) -> None:
    """What starts training says so first.

    Raises:
        Launched: the program is only loaded.
    """
    if _only_loads.get():
        raise Launched(experiment)
