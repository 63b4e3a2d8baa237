"""One driver a sweep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.fs
import pytest

from hfsuite.errors import ConfigurationError
from hfsuite.tracking import lock
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.lock import DriverLock
from tests import program
from tests.tracking import made

HOLD = """
import sys, time
from hfsuite.tracking.lock import DriverLock
from hfsuite.tracking.directory import SweepDirectory
lock = DriverLock(SweepDirectory.at("results", "made"))
lock.acquire()
open("held", "w").close()
time.sleep(60)  # the lock is held until the test kills this driver
"""


def test_a_second_driver_is_refused_until_the_first_has_died(own_directory: Path) -> None:
    directory, _ = made.sweep()
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    program.wait_for(Path("held").exists, holder)
    with pytest.raises(ConfigurationError, match=rf"is being run by process {holder.pid} on .* since \d\d:\d\d:\d\d"):
        DriverLock(directory).acquire()
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    DriverLock(directory).acquire()


def test_the_same_process_is_refused_too() -> None:
    directory, _ = made.sweep()
    with DriverLock(directory), pytest.raises(ConfigurationError, match=f"process {os.getpid()}"):
        DriverLock(directory).acquire()
    DriverLock(directory).acquire()


def test_on_storage_that_knows_no_locks_a_driver_says_that_it_lives(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.sweep()
    elsewhere = pyarrow.fs.SubTreeFileSystem(str(own_directory), pyarrow.fs.LocalFileSystem())
    directory = SweepDirectory(elsewhere, "results/made")
    assert not directory.is_local
    with DriverLock(directory), pytest.raises(ConfigurationError, match="is being run"):
        DriverLock(directory).acquire()
    DriverLock(directory).acquire()  # and dies without a word
    monkeypatch.setattr(lock, "DEAD_AFTER_S", 0.0)
    DriverLock(directory).acquire()
