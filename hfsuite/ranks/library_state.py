"""What libraries keep for a whole process, and must forget between two trials. Runs in every rank.

None of them is imported for it: one that no trial has used has nothing to forget.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import sys
from collections.abc import Callable

import torch


def forget_accelerator() -> None:
    """Accelerate keeps one state a process, which would answer for the trial before."""
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    if torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            if torch.cuda.max_memory_allocated(device) > 0:  # another rank's would get a context by being asked
                torch.cuda.reset_peak_memory_stats(device)
                torch.cuda.set_per_process_memory_fraction(1.0, device)


def forget_deepspeed() -> None:
    """DeepSpeed keeps process groups in variables of two modules, and takes them for living ones."""
    if "deepspeed.utils.groups" in sys.modules:
        sys.modules["deepspeed.comm.comm"].cdb = None  # type: ignore[attr-defined]
        importlib.reload(sys.modules["deepspeed.utils.groups"])


def end_loaders() -> None:
    """Ends the processes of loaders that live on (`persistent_workers`).

    A garbage collection would wait five seconds for each: it closes the queue that tells a process to end first.
    """
    if not multiprocessing.active_children():
        return
    from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

    for each in gc.get_objects():
        if isinstance(each, _MultiProcessingDataLoaderIter):
            each._shutdown_workers()


def forget_compiled() -> None:
    """Dynamo counts what it has compiled of a function, and gives up at the eighth."""
    if getattr(sys.modules.get("torch._dynamo.convert_frame"), "FRAME_COUNTER", 0):  # else it imports: 4 s on a GPU
        torch._dynamo.reset()


def forget_mlflow() -> None:
    """MLflow keeps the address and the experiment that were set in variables, and a pool of threads for each run."""
    if "mlflow.tracking.fluent" in sys.modules:
        service = sys.modules["mlflow.tracking._tracking_service.utils"]
        service._tracking_uri = None  # type: ignore[attr-defined]
        service._artifact_repos_cache.clear()
        sys.modules["mlflow.tracking._model_registry.utils"]._registry_uri = None  # type: ignore[attr-defined]
        sys.modules["mlflow.tracking.fluent"]._active_experiment_id = None  # type: ignore[attr-defined]


def autologging() -> set[str]:
    """The libraries whose calls MLflow logs by itself."""
    found = getattr(sys.modules.get("mlflow.utils.autologging_utils"), "AUTOLOGGING_INTEGRATIONS", {})
    return {name for name, config in found.items() if config and not config.get("disable")}


FORGETTING: tuple[Callable[[], None], ...] = (
    end_loaders,
    forget_accelerator,
    forget_deepspeed,
    forget_compiled,
    forget_mlflow,
)
