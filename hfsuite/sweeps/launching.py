"""Loading a program up to where it launches: whoever wants only its experiment must not run its sweep. Driver."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hfsuite.errors import NeedsResult
from hfsuite.tracking.declared import launch_of

if TYPE_CHECKING:  # it imports PyTorch: not where there is no experiment yet
    from hfsuite.declaration import Declaration

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass
class Loading:
    """A program that is only loaded, up to the launch that is wanted.

    Args:
        wanted: the name of the experiment; None for the first that it launches.
        launch: which of its launches of that name, from 0.
        passed: the names of those that it has launched before.
        found: what is wanted, once it was launched.
    """

    wanted: str | None = None
    launch: int = 0
    passed: list[str] = field(default_factory=list)
    found: Declaration | None = None


_loading: Loading | None = None  # of all threads: a program may launch in one of its own
_launched: Counter[str] = Counter()  # by this process, by the experiments' names


class Launched(BaseException):
    """A program that is only loaded would start training now. No error: handlers of errors must let it pass.

    Args:
        experiment: what it would train.
    """

    def __init__(self, experiment: Declaration) -> None:
        super().__init__(experiment.name)
        self.experiment = experiment


class NotRun:
    """Stands for the result of a launch that is not wanted: the program goes on, as long as it does not ask for it."""

    def __init__(self, experiment: str) -> None:
        self._experiment = experiment

    def __getattr__(self, name: str) -> Any:
        raise NeedsResult(f"{name} of {self._experiment}")

    def __iter__(self) -> Any:
        return self.__getattr__("the contents")

    def __len__(self) -> int:
        return int(self.__getattr__("the length"))

    def __getitem__(self, name: Any) -> Any:
        return self.__getattr__(repr(name))


@contextmanager
def only_loading(loading: Loading) -> Iterator[None]:
    """Meanwhile `Experiment.sweep()` and its like raise `Launched`, or return `NotRun` where another one is wanted."""
    global _loading
    before, _loading = _loading, loading
    try:
        yield
    finally:
        _loading = before


def launch(experiment: Declaration) -> Any:
    """What starts training says so first: None if it may, or what it is to return instead.

    Raises:
        Launched: the program is only loaded, and this is what is wanted.
    """
    loading, name = _loading, experiment.name
    if loading is None:
        _launched[name] += 1
        return None
    if loading.found is not None or (loading.wanted in (None, name) and loading.passed.count(name) == loading.launch):
        loading.found = loading.found or experiment
        if threading.current_thread() is not threading.main_thread():
            raise SystemExit  # which ends a thread without a word
        raise Launched(loading.found)
    loading.passed.append(name)
    return NotRun(name)


def launches(method: Method) -> Method:
    """A method of an experiment that starts training."""

    @functools.wraps(method)
    def launched(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *args, **kwargs) if (instead := launch(self)) is None else instead

    return cast("Method", launched)


def are_others_before() -> bool:
    """Whether this program has launched something before what it has launched now."""
    return sum(_launched.values()) > 1


def number_of(experiment: str, module: str) -> int:
    """Which launch of an experiment this is in the program that declares it, from 0."""
    recorded = launch_of(module)
    return max(_launched[experiment] - 1, 0) if recorded is None else recorded
