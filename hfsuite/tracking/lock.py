"""Who runs a sweep: one driver at a time, and whoever asks can tell whether it lives. Driver."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import filelock

from hfsuite.errors import ConfigurationError
from hfsuite.tracking.directory import OWN_FOLDER, SweepDirectory

LOCK_FILE, DRIVER_FILE = f"{OWN_FOLDER}/driver.lock", f"{OWN_FOLDER}/driver.json"
BEAT_S, DEAD_AFTER_S = 15.0, 60.0  # on storage that knows no locks, a driver writes now and then that it lives
TOGETHER_S = 1.0  # within which another may have looked, and have begun to write


class DriverLock:
    """Held while a sweep is run or synced. It ends with its process, however that ends.

    Args:
        directory: the sweep's.
    """

    def __init__(self, directory: SweepDirectory) -> None:
        self.directory = directory
        self._file = filelock.FileLock(f"{directory.path}/{LOCK_FILE}", thread_local=False)
        self._ended = threading.Event()
        self._own, self._since = uuid.uuid4().hex, 0.0

    def acquire(self) -> None:
        """Takes it.

        Raises:
            ConfigurationError: somebody else holds it.
        """
        if self.directory.is_local:
            os.makedirs(os.path.dirname(self._file.lock_file), exist_ok=True)
            try:
                self._file.acquire(timeout=0)
            except filelock.Timeout as error:
                raise self._taken() from error
        elif time.time() - self._holder().get("beat", 0) < DEAD_AFTER_S:
            raise self._taken()
        self._since = time.time()
        self._beat()
        if not self.directory.is_local:
            time.sleep(TOGETHER_S)  # of two that have looked at the same time, the last to write stays
            if self._holder().get("own") != self._own:
                raise self._taken()
            threading.Thread(target=self._beat_on, name="driver-lives", daemon=True).start()

    @property
    def is_held(self) -> bool:
        """Whether somebody runs the sweep now."""
        if not self.directory.is_local:
            return bool(time.time() - self._holder().get("beat", 0) < DEAD_AFTER_S)
        if not os.path.exists(self._file.lock_file):
            return False
        try:
            with self._file.acquire(timeout=0):
                return False
        except filelock.Timeout:
            return True

    def check_free(self) -> None:
        """Takes nothing.

        Raises:
            ConfigurationError: somebody else holds it.
        """
        if self.is_held:
            raise self._taken()

    def close(self) -> None:
        """Gives it back."""
        self._ended.set()
        if self.directory.is_local:
            self._file.release()
        else:
            self.directory.filesystem.delete_file(f"{self.directory.path}/{DRIVER_FILE}")

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _holder(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.directory.read_text(DRIVER_FILE) or "{}"))
        except ValueError:
            return {}

    def _taken(self) -> ConfigurationError:
        holder = self._holder()
        since = time.strftime("%H:%M:%S", time.localtime(holder.get("since", time.time())))
        return ConfigurationError(
            f"The sweep {self.directory.path} is being run by process {holder.get('process', '?')} on "
            f"{holder.get('host', 'another machine')} since {since}, which records it too: wait for its end, or end it."
        )

    def _beat(self) -> None:
        holder = {
            "host": socket.gethostname(), "process": os.getpid(), "since": self._since, "beat": time.time(),
            "own": self._own,
        }  # fmt: skip
        with self.directory.filesystem.open_output_stream(f"{self.directory.path}/{DRIVER_FILE}") as stream:
            stream.write(json.dumps(holder).encode())

    def _beat_on(self) -> None:
        while not self._ended.wait(BEAT_S):
            with suppress(OSError):  # the storage has a bad moment; there are four beats until others think it dead
                self._beat()
