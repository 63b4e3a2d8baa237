"""Puts a worker process back to how it was before a trial, or says why that cannot be done. Runs in every rank.

A process that lives on carries what one trial changed into the next. A `CleanRoom` is made when a worker has started,
after its imports, and remembers the process as it is then; `tidy` is called after each trial. What can be put back is
put back without a word. What cannot (memory, a thread or a process that is still there) is a reason, in one sentence,
to end the process. What a module keeps for itself, in its own variables, stays: that is how a user pays for it once.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import torch

from hfsuite.ranks.library_state import FORGETTING, autologging
from hfsuite.ranks.process_groups import End, end_process_groups, process_groups_left
from hfsuite.ranks.remembered import REMEMBERED

PATIENCE_S = 1.0  # for threads and processes that were told to end
GPU_MEMORY_LIMIT_GB = 0.25  # what PyTorch may still have allocated
CUDA_MAY_TAKE = 2_000_000_000  # bytes of main memory in the first trial that uses it: 1.1 were seen on an H100
# Libraries start these once, and they hold nothing of a trial.
LASTING_THREADS = ("fsspecIO", "asyncio_", "ray_", "InductorSubproc")
LASTING_PROCESSES = ("multiprocessing.resource_tracker", "torch/_inductor/compile_worker")


class CleanRoom:
    """A worker process as it was when it started.

    Args:
        memory_limit_gb: how many gigabytes of main memory it may hold after a trial beyond what it holds now.
    """

    def __init__(self, memory_limit_gb: float) -> None:
        self.memory_limit_gb = memory_limit_gb
        self._put_back = [remember() for remember in REMEMBERED]
        self._threads = set(threading.enumerate())
        self._processes = set(psutil.Process().children(recursive=True))
        self._memory = _own_memory()
        self._has_cuda = torch.cuda.is_initialized()
        self._interop_threads = torch.get_num_interop_threads()
        self._autologging = autologging()

    def tidy(self) -> list[str]:
        """Puts everything back. Called in the process's main thread, when the trial's function has returned.

        Returns:
            why this process cannot run another trial; empty if it can.
        """
        for put_back in self._put_back:
            put_back()
        end_process_groups()
        for forget in FORGETTING:
            forget()
        gc.collect()
        left = self._threads_left(), self._processes_left(), self._memory_left(), self._settings_left()
        return [*itertools.chain(*left), *process_groups_left()]

    @staticmethod
    def end_processes() -> None:
        """Kills all that this process has started: it will end itself."""
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _threads_left(self) -> Iterator[str]:
        deadline = time.monotonic() + PATIENCE_S
        for thread in set(threading.enumerate()) - self._threads:
            is_of_tqdm = type(thread).__module__ == "tqdm._monitor"
            # A dummy stands for a thread of C++ (autograd's, on a GPU) that once ran Python: nobody can wait for it.
            is_other = isinstance(thread, (threading._DummyThread, End))
            if is_of_tqdm or is_other or thread.name.startswith(LASTING_THREADS):
                continue
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                yield f"the thread {thread.name!r} is still running"

    def _processes_left(self) -> Iterator[str]:
        left = set(psutil.Process().children(recursive=True)) - self._processes
        _, alive = psutil.wait_procs([each for each in left if not _is_lasting(each)], timeout=PATIENCE_S)
        for process in alive:
            yield f"the process {process.pid} ({_command(process)[:80]}) is still running"

    def _memory_left(self) -> Iterator[str]:
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
            devices = range(torch.cuda.device_count())  # the current one is that of this thread, not the trial's
            allocated = sum(map(torch.cuda.memory_allocated, devices)) / 1e9
            if allocated > GPU_MEMORY_LIMIT_GB:
                yield f"{allocated:.2f} GB of GPU memory are still allocated"
        with suppress(OSError, AttributeError):  # on glibc, what is free goes back, and what remains is what is held
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        own = _own_memory()
        if torch.cuda.is_initialized() and not self._has_cuda:
            self._memory, self._has_cuda = min(own, self._memory + CUDA_MAY_TAKE), True
        if (grown := (own - self._memory) / 1e9) > self.memory_limit_gb:
            limit = f"memory_limit_gb={self.memory_limit_gb:g}"
            yield f"it holds {grown:.1f} GB of memory more than when it started ({limit})"

    def _settings_left(self) -> Iterator[str]:
        if (threads := torch.get_num_interop_threads()) != self._interop_threads:
            yield f"torch.set_num_interop_threads({threads}) can be called once in a process"
        if left := sorted(autologging() - self._autologging):  # it has patched libraries, and waits for their imports
            yield f"mlflow.autolog() would log the next trial's calls too ({', '.join(left)})"


def _own_memory() -> int:
    """Bytes in main memory without what is mapped of files (a dataset), which is no leftover."""
    mapped = 0
    with suppress(OSError), open("/proc/self/status", encoding="ascii") as status:  # of Linux
        mapped = sum(1024 * int(line.split()[1]) for line in status if line.startswith("RssFile:"))
    return int(psutil.Process().memory_info().rss - mapped)


def _is_lasting(process: psutil.Process) -> bool:
    return any(name in _command(process) for name in LASTING_PROCESSES)


def _command(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""
