"""Writes to MLflow in the background, so that no trial waits for it. Driver; one a sweep."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

import requests

from hfsuite.errors import TrackingError

if TYPE_CHECKING:  # see `store`
    import mlflow

GONE_AFTER_S = 5.0  # a connection that fails after so long was tried again by MLflow
WAIT_AT_END_S = 120.0  # for each write that is left when a sweep is over

T = TypeVar("T")


class Writer:
    """One thread, which writes what it is given in order. A refused write costs none of the others.

    A store that does not answer any more is given up: what comes after is not tried.

    Args:
        client: of the tracking store.
    """

    def __init__(self, client: mlflow.MlflowClient) -> None:
        self.client = client
        self._actions: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any] | None] | None] = queue.SimpleQueue()
        self._faults: list[BaseException] = []
        self._written = 0
        self._is_gone = False
        # A daemon: a store that is silent at the end shall not keep the process.
        threading.Thread(target=self._write_all, name="mlflow-writer", daemon=True).start()

    def submit(self, action: Callable[[], T]) -> Future[T]:
        """Has something written when its turn comes; returns at once."""
        result: Future[T] = Future()
        self._actions.put((result, action))
        return result

    def await_written(self, within_s: float = WAIT_AT_END_S) -> None:
        """Returns when all that was submitted has been written.

        Args:
            within_s: how many seconds a single write may take now.

        Raises:
            TrackingError: something could not be written, or the store does not answer.
        """
        everything: Future[None] = Future()
        self._actions.put((everything, None))
        while not everything.done():
            written = self._written
            wait([everything], timeout=0 if self._is_gone else within_s)
            if self._written == written and not everything.done():  # it is the silence that counts, not how much waits
                self._is_gone = True
                self._faults.append(TrackingError(f"the store has not answered for {within_s:g} s"))
                break
        faults, self._faults = self._faults, []
        if faults:
            said = str(faults[0]).splitlines() or [""]
            raise TrackingError(
                f"MLflow has not recorded everything. Failed writes: {len(faults)}; the first with "
                f"{type(faults[0]).__name__}: {said[0]}"
            ) from faults[0]

    def close(self) -> None:
        """Nothing more will be written; what waits still is."""
        self._actions.put(None)

    def _write_all(self) -> None:
        while (entry := self._actions.get()) is not None:
            result, action = entry
            began = time.monotonic()
            try:
                if action is not None and self._is_gone:
                    raise TrackingError("the store did not answer before, so this was not tried")
                result.set_result(action() if action is not None else None)
            except BaseException as error:  # noqa: BLE001  whatever a store raises; `await_written` tells of it
                is_silence = time.monotonic() - began >= GONE_AFTER_S and _is_of_the_connection(error)
                self._is_gone = self._is_gone or is_silence
                self._faults.append(error)
                result.set_exception(error)
            self._written += 1


def _is_of_the_connection(error: BaseException | None) -> bool:
    """Whether nobody answered; MLflow wraps what it gets."""
    if error is None:
        return False
    kinds = (requests.ConnectionError, requests.Timeout, ConnectionError, TimeoutError)
    return isinstance(error, kinds) or _is_of_the_connection(error.__cause__ or error.__context__)
