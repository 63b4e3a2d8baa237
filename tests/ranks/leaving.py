"""A training function that leaves things behind, or does not leave, and reports in which state it found its process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import ray.train
from ray.train import ScalingConfig
from ray.train.torch import TorchConfig

from hfsuite import AccelerateTrainer, StopTraining

CACHE: list[str] = []  # as a user would keep a tokenised dataset
HOARD: list[bytearray] = []
COLLECTIVE_TIMEOUT_S = 8
original_manual_seed: Any = None


def loop(settings: dict[str, Any]) -> None:
    """One report with what it found, then what `leaves` says, then a second report."""
    import torch
    from accelerate import Accelerator

    global original_manual_seed
    original_manual_seed = original_manual_seed or torch.manual_seed
    found = state(torch)
    CACHE.append(settings["leaves"])
    accelerator = Accelerator()
    if accelerator.process_index == 0:
        os.mkdir("saved")  # fails where an attempt before this one has left its own
    if settings["leaves"] == "a death in a report" and accelerator.process_index == 1 and is_first(settings["diary"]):
        threading.Timer(0.5, os._exit, (3,)).start()
    try:
        ray.train.report({"loss": 1.0, "step": 1, "leaves": settings["leaves"], **found})
        note(settings["diary"], "went on")
        accelerator.wait_for_everyone()
        if settings["leaves"] == "an early return" and accelerator.process_index == 1:
            return
        leave(settings["leaves"], accelerator.process_index, torch, settings["diary"])
        says = {"training_finished": True} if settings["leaves"] == "a late exception" else {}
        ray.train.report({"loss": 1.0, "step": 2, "leaves": settings["leaves"], **found, **says})
        if settings["leaves"] == "a late exception":
            raise OSError("the hub does not answer")
    finally:
        if settings["leaves"] == "an exception in the end":
            raise KeyError("in my cleanup")
        if settings["leaves"] == "a long end":
            time.sleep(14)  # longer than Ray Tune's own patience
        note(settings["diary"], "unwound")


def state(torch: Any) -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "cached": len(CACHE),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES", "unset"),
        "variable": os.environ.get("LEFT_BY_A_TRIAL", "unset"),
        "manual_seed_is_torchs": torch.manual_seed is original_manual_seed,
        "is_deterministic": torch.are_deterministic_algorithms_enabled(),
        "dtype": str(torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "directory_is_there": os.path.isdir(os.getcwd()),
    }


def note(diary: str, line: str) -> None:
    with open(diary, "a") as file:
        file.write(f"{line}\n")


def is_first(diary: str) -> bool:
    """Whether nothing else has asked yet, in this attempt or in one before."""
    try:
        os.close(os.open(f"{diary}.first", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def leave(what: str, rank: int, torch: Any, diary: str) -> None:
    match what:
        case "a thread":
            threading.Thread(target=time.sleep, args=(600,), name="left-behind", daemon=True).start()
        case "a process":
            # It sleeps longer than any test waits: only the suite can end it.
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            note(diary, str(child.pid))
        case "memory":
            HOARD.append(bytearray(2_000_000_000))
            HOARD[-1][:: os.sysconf("SC_PAGE_SIZE")] = b"x" * len(range(0, 2_000_000_000, os.sysconf("SC_PAGE_SIZE")))
        case "switches":
            os.environ["CUDA_VISIBLE_DEVICES"], os.environ["LEFT_BY_A_TRIAL"] = "7", "yes"
            os.chdir("/")
            torch.manual_seed(1), random.seed(1)
            torch.manual_seed = lambda seed: None
            torch.use_deterministic_algorithms(True)
            torch.set_default_dtype(torch.float64)
            torch.set_num_threads(3)
        case "no process group":
            torch.distributed.destroy_process_group()
        case "who ends its groups":
            shutdown = torch.distributed.ProcessGroup.shutdown

            def noted(group: Any) -> None:
                note(diary, f"ended by {threading.current_thread().name}")
                shutdown(group)

            torch.distributed.ProcessGroup.shutdown = noted
        case "an exception" if rank == 1:
            raise ArithmeticError("asked to raise")
        case "an exit" if rank == 1:
            os._exit(3)
        case "a kill" if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        case "a process and a kill" if rank == 1:
            # It sleeps longer than any test waits, as above: only the suite can end it, though its parent is dead.
            note(diary, str(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid))
            os.kill(os.getpid(), signal.SIGKILL)
        case "a kill, once" if rank == 1 and is_first(diary):
            os.kill(os.getpid(), signal.SIGKILL)
        case "a missing report" if rank == 1:
            time.sleep(600)  # its peer waits in its report, in no collective
        case "a hang" if rank == 1:
            time.sleep(600)  # never comes to the barrier, where its peer runs into the timeout
        case "a hang":
            torch.distributed.barrier()
        case "a swallowed stop":
            while True:
                try:
                    ray.train.report({"loss": 1.0, "step": 2, "leaves": what})
                except StopTraining:
                    time.sleep(600)  # longer than any grace period: only a kill ends it


def trainer() -> AccelerateTrainer:
    return AccelerateTrainer(
        loop,
        train_loop_config={"leaves": "nothing", "diary": ""},
        accelerate_config={},
        scaling_config=ScalingConfig(num_workers=2),
        torch_config=TorchConfig(timeout_s=COLLECTIVE_TIMEOUT_S),
    )
