"""How fast a rank trains and what it takes of its GPU, told to the driver once a second. Runs in every rank.

From this the driver learns how many trials a GPU holds: see `hfsuite.sweeps.gpu_sharing`. It travels through the
key-value store that each Ray cluster has: neither a report nor the trial's actor, which waits for one, is needed.

One of the files that touch Ray's internals.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import pynvml
from ray.experimental import internal_kv

EVERY_S = 1.0
NAMESPACE = b"hfsuite"
GAP = 5.0  # an interval so many times as long as the middle one is no step: an evaluation, a report, a checkpoint


@dataclass(frozen=True)
class Gpu:
    """What a rank sees of its GPU. Bytes, but for `busy`.

    Args:
        name: its UUID.
        held: what PyTorch held for this rank after a step: weights, gradients, the optimizer's state.
        peak: the most that PyTorch has reserved for this rank since its trial began.
        used: by all processes.
        total: of the GPU.
        busy: the part of the time in which it ran anything, 0 to 1, as NVML saw it last; None where it sees nothing.
        process: of this process, as NVML sees it; None where it does not, in containers for example.
    """

    name: str
    held: int
    peak: int
    used: int
    total: int
    busy: float | None = None
    process: int | None = None


@dataclass(frozen=True)
class Pace:
    """What a rank has done since it last told.

    Args:
        trial: Ray Tune's name for it.
        since: when the first step of these ended, seconds since 1970.
        until: when the last one did.
        steps: of an optimizer, from the beginning of the trial.
        rate: steps a second, without what lies between steps and is none; 0 where there were fewer than two.
        gpu: None on a CPU, and until the rank has begun to use its GPU.
    """

    trial: str
    since: float
    until: float
    steps: int
    rate: float
    gpu: Gpu | None


class _Steps:
    """The steps of this rank, as its optimizer makes them."""

    def __init__(self) -> None:
        self.count = 0
        self.device, self.held = 0, 0
        self._moments: list[float] = []

    def note(self, *_: Any) -> None:
        """An optimizer has made one. In the thread that trains, which alone knows the current GPU."""
        import torch

        self._moments.append(time.time())
        self.count += 1
        if self.count <= 2 and torch.cuda.is_initialized():  # by the second, the optimizer has its state
            self.device = torch.cuda.current_device()
            self.held = torch.cuda.memory_allocated()

    def take(self) -> Sequence[float]:
        """When each one ended since the last call, and before them the one that ended last by then."""
        taken = self._moments
        if len(taken) < 2 and self.count > 1:
            return []  # steps that take longer: more of them will have been made
        self._moments = taken[-1:]
        return taken


@contextmanager
def told(trial: str, slot: str, rank: int) -> Iterator[None]:
    """Tells the driver meanwhile.

    Args:
        trial: Ray Tune's name for it.
        slot: where it runs.
        rank: in it.
    """
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    steps, over = _Steps(), threading.Event()

    def tell() -> None:
        while not over.wait(EVERY_S):
            moments = steps.take()
            if not moments and steps.count:
                continue
            since, until = (moments[0], moments[-1]) if moments else (time.time(), time.time())
            pace = Pace(trial, since, until, steps.count, rate_of(moments), read_gpu(steps.device, steps.held))
            internal_kv._internal_kv_put(_key(slot, rank), json.dumps(asdict(pace)).encode(), namespace=NAMESPACE)

    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    hook = register_optimizer_step_post_hook(steps.note)
    thread = threading.Thread(target=tell, name="pace", daemon=True)
    thread.start()
    try:
        yield
    finally:
        hook.remove()
        over.set()
        thread.join()


def rate_of(moments: Sequence[float]) -> float:
    """Steps a second, from when each of them ended: what lies between two steps and is none does not count."""
    intervals = [later - earlier for earlier, later in itertools.pairwise(moments)]
    if not intervals:
        return 0.0
    longest = GAP * statistics.median(intervals)
    steps = [each for each in intervals if each <= longest]
    return len(steps) / sum(steps) if sum(steps) > 0 else 0.0


def read(slot: str, ranks: int) -> list[Pace]:
    """What the ranks of a trial have told last; nothing until all of them have. Driver."""
    found = []
    for rank in range(ranks):
        text = internal_kv._internal_kv_get(_key(slot, rank), namespace=NAMESPACE)
        if text is None:
            return []
        values = json.loads(text)
        found.append(Pace(**{**values, "gpu": Gpu(**values["gpu"]) if values["gpu"] else None}))
    return found if len({each.trial for each in found}) == 1 else []


def forget(slot: str, ranks: int) -> None:
    """Nobody will ask any more. Driver."""
    for rank in range(ranks):
        internal_kv._internal_kv_del(_key(slot, rank), namespace=NAMESPACE)


def _key(slot: str, rank: int) -> bytes:
    return f"{slot}/{rank}".encode()


def _read_gpu(device: int, held: int) -> Gpu | None:
    import torch

    if not torch.cuda.is_initialized() or not held:
        return None
    free, total = torch.cuda.mem_get_info(device)
    name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    return Gpu(name, held, torch.cuda.max_memory_reserved(device), total - free, total, *_by_nvml(name))


read_gpu: Callable[[int, int], Gpu | None] = _read_gpu  # on a machine without GPUs, tests say what one would show


def _by_nvml(name: str) -> tuple[float | None, int | None]:
    """How busy the GPU is, and what of its memory this process has."""
    busy, process = None, None
    with suppress(pynvml.NVMLError):  # no driver, or a part of a GPU (MIG), of which it knows less
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(name)
        busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        own = [each for each in pynvml.nvmlDeviceGetComputeRunningProcesses(handle) if each.pid == os.getpid()]
        process = own[0].usedGpuMemory if own else None
    return busy, process
