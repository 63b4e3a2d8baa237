"""What a careless function changes in its process, and that it is put back. In a process of its own."""

from __future__ import annotations

import _thread
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import ray


def look() -> dict[str, Any]:
    """The state of the process, as far as a trial can see it."""
    import torch
    import transformers
    from accelerate.state import PartialState

    mask = os.umask(0)
    os.umask(mask)
    root = logging.getLogger()
    return {
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "umask": mask,
        "path": sys.path[:],
        "arguments": sys.argv[:],
        "warnings": warnings.filters[:],
        "logging": (
            root.level,
            root.handlers[:],
            logging.getLogger("transformers").level,
            logging.root.manager.disable,
        ),
        "signals": [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)],
        "functions": (torch.manual_seed, random.random, torch.nn.functional.relu),
        "process group": torch.distributed.is_initialized(),
        "accelerator": bool(PartialState._shared_state),
        "switches": (
            torch.are_deterministic_algorithms_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
            torch.backends.cuda.matmul.fp32_precision,
            torch.get_float32_matmul_precision(),
            torch.get_default_dtype(),
            str(torch.get_default_device()),
            torch.get_num_threads(),
            torch.is_anomaly_enabled(),
            torch.is_grad_enabled(),
            torch.backends.cuda.flash_sdp_enabled(),
            torch.distributions.Distribution._validate_args,
            repr(torch.rand(()) * 0 + 1 / 3),
            np.geterr(),
        ),
        "hooks": dict(torch.nn.modules.module._global_forward_hooks),
        "lazy functions": transformers.set_seed,
    }


def be_careless() -> None:
    import torch
    import transformers
    from accelerate import Accelerator

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29777", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    torch.distributed.init_process_group("gloo")
    Accelerator(cpu=True)
    os.environ["CUDA_VISIBLE_DEVICES"], os.environ["HOME"] = "3", "/nowhere"
    del os.environ["PATH"]
    os.chdir("/")
    os.umask(0o077)
    sys.path.insert(0, "/nowhere")
    sys.argv.append("--careless")
    warnings.simplefilter("error")
    logging.getLogger().addHandler(logging.StreamHandler())
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger("transformers").setLevel(logging.CRITICAL)
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.deterministic = torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("medium")
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_num_threads(3)
    torch.autograd.set_detect_anomaly(True)
    torch.set_grad_enabled(False)
    torch.backends.cuda.enable_flash_sdp(False)
    torch.distributions.Distribution.set_default_validate_args(False)
    torch.set_printoptions(precision=9)
    np.seterr(all="ignore")
    torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    transformers.set_seed = lambda *_: None
    torch.manual_seed = random.random = torch.nn.functional.relu = lambda *_: None


SWITCHES_OF_PRECISION = (
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.cudnn.allow_tf32 = False",
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    "torch.backends.cuda.enable_cudnn_sdp(False)",
    "torch.backends.mha.set_fastpath_enabled(False)",
    "torch.set_float32_matmul_precision('medium')",
)


@ray.remote(num_cpus=0, max_calls=1)
def switched_one_by_one() -> list[tuple[str, bool, bool]]:
    """Each switch alone: whether it changed anything, and whether all was put back."""
    import torch

    from hfsuite.ranks.clean_room import CleanRoom
    from hfsuite.ranks.remembered import _holders_of_precision

    def state() -> list[Any]:
        seen = [holder.fp32_precision for holder in _holders_of_precision()]
        try:
            seen.append(torch.get_float32_matmul_precision())
        except RuntimeError:  # it refuses to answer while the new names say something else
            seen.append("refused")
        return [*seen, torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()]

    room, before, found = CleanRoom(1.5), state(), []
    for switch in SWITCHES_OF_PRECISION:
        exec(switch, {"torch": torch})
        changed = state() != before
        room.tidy()
        found.append((switch, changed, state() == before))
    return found


def test_each_switch_of_precision_is_put_back() -> None:
    assert ray.get(switched_one_by_one.remote()) == [(switch, True, True) for switch in SWITCHES_OF_PRECISION]


@ray.remote(num_cpus=0, max_calls=1)
def in_a_process_of_its_own(what: str) -> Any:
    import torch
    import transformers.trainer  # as a worker does when it starts; with PEFT it loads much, and `transformers` anew
    from accelerate.state import PartialState  # noqa: F401

    from hfsuite.ranks.clean_room import CleanRoom

    assert "set_seed" not in vars(transformers), "it loads functions when they are asked for"
    room = CleanRoom(1.5)
    before, draw = look(), torch.rand(3)
    room.tidy()
    if what == "changes":
        be_careless()
        changed = [name for name, value in look().items() if value != before[name]]
        reasons = room.tidy()
        after = look()
        kept = [name for name in before if after[name] != before[name]]
        drawn = [random.random() for _ in range(2)]
        random.seed(3)
        again = torch.rand(3)
        room.tidy()
        repeated = torch.equal(again, draw) or torch.equal(again, torch.rand(3))
        return reasons, changed, kept, repeated, drawn[0] == random.random()
    kept_alive: list[Any] = []
    match what:
        case "thread":
            threading.Thread(target=time.sleep, args=(60,), name="mine", daemon=True).start()
        case "process":
            kept_alive.append(subprocess.Popen(["sleep", "60"]))
        case "memory":
            kept_alive.append(np.ones(250_000_000))  # 2 GB
        case "libraries of CUDA":
            with mock.patch.multiple(torch.cuda, is_initialized=lambda: True, empty_cache=lambda: None):
                reasons = []
                for _ in range(2):
                    kept_alive.append(np.ones(225_000_000))  # 1.8 GB
                    reasons.append(room.tidy())
            return reasons
        case "more than libraries of CUDA":
            with mock.patch.multiple(torch.cuda, is_initialized=lambda: True, empty_cache=lambda: None):
                kept_alive.append(np.ones(475_000_000))  # 3.8 GB
                return room.tidy()
        case "a mapped file":
            kept_alive.append(np.memmap(os.environ["MAPPED"], dtype=np.float64, mode="r"))
            assert kept_alive[-1].sum() == 0.0  # all of it is in memory now
        case "a thread of C++":
            _thread.start_new_thread(threading.current_thread, ())  # as a log line makes it one of Python's
            time.sleep(0.5)
            kept_alive += [each for each in threading.enumerate() if isinstance(each, threading._DummyThread)]
            assert kept_alive
        case "compiled code":
            compiled = torch.compile(lambda number: number + 1, backend="eager")
            compiled(draw)
            assert code_compiled_of(compiled)
        case "nothing compiled":
            import torch._dynamo

            with mock.patch.object(torch.cuda, "is_available", return_value=True):  # to forget means to import, there
                room.tidy()
            return [name for name in sys.modules if name.startswith("torch._inductor.cudagraph_trees")]
        case "interop threads":
            torch.set_num_interop_threads(torch.get_num_interop_threads() + 1)
        case "loaders":
            holder: dict[str, Any] = {"loaders": [persistent_loader() for _ in range(3)]}
            holder["me"] = holder  # as a trainer and its callbacks are: only a garbage collection finds them
            assert [len(list(loader)) for loader in holder["loaders"]] == [4, 4, 4]
            del holder
        case "autologging":
            import mlflow

            mlflow.autolog()
        case "autologging ended":
            import mlflow

            mlflow.autolog()
            mlflow.autolog(disable=True)
    reasons = room.tidy()
    room.end_processes()
    if what == "compiled code":
        return code_compiled_of(compiled)
    return reasons


def persistent_loader() -> Any:
    import torch
    from torch.utils.data import DataLoader, TensorDataset, _utils

    _utils.MP_STATUS_CHECK_INTERVAL = 1_000.0
    return DataLoader(TensorDataset(torch.zeros(4, 1)), num_workers=1, persistent_workers=True)


def code_compiled_of(function: Any) -> list[Any]:
    from torch._dynamo.eval_frame import _debug_get_cache_entry_list

    return list(map(str, _debug_get_cache_entry_list(function._torchdynamo_orig_callable.__code__)))


def test_what_was_changed_is_put_back() -> None:
    reasons, changed, kept, repeated, predictable = ray.get(in_a_process_of_its_own.remote("changes"))
    assert reasons == []
    assert len(changed) == 14, f"be_careless() must change all, or this test shows nothing: {changed}"
    assert kept == []
    assert not repeated, "torch's random numbers are as unpredictable as in a new process"
    assert not predictable, "and so are Python's own"


@pytest.mark.slow
def test_what_cannot_be_put_back_is_named() -> None:
    thread, process, memory, dummy = ray.get(
        [in_a_process_of_its_own.remote(what) for what in ("thread", "process", "memory", "a thread of C++")]
    )
    assert dummy == []
    assert thread == ["the thread 'mine' is still running"]
    assert len(process) == 1
    assert "(sleep 60) is still running" in process[0]
    assert len(memory) == 1
    assert "it holds 2.0 GB of memory more than when it started" in memory[0]


@pytest.mark.slow
def test_what_cuda_brings_into_main_memory_is_no_leftover_and_what_comes_later_is() -> None:
    first, second = ray.get(in_a_process_of_its_own.remote("libraries of CUDA"))
    assert first == []
    assert len(second) == 1
    assert "it holds 1.8 GB of memory more than when it started" in second[0]
    (at_once,) = ray.get(in_a_process_of_its_own.remote("more than libraries of CUDA"))
    assert "it holds 1.8 GB of memory more than when it started" in at_once


@pytest.mark.slow
def test_compiled_code_is_forgotten() -> None:
    """PyTorch counts what it has compiled of a function, and gives up at the eighth."""
    assert ray.get(in_a_process_of_its_own.remote("compiled code")) == []


@pytest.mark.slow
def test_where_nothing_was_compiled_the_compiler_is_not_imported() -> None:
    """That takes four seconds, and PyTorch would do it on a machine with GPUs."""
    assert ray.get(in_a_process_of_its_own.remote("nothing compiled")) == []


@pytest.mark.slow
def test_a_mapped_file_is_no_leftover_and_a_setting_without_a_way_back_is(tmp_path: Path) -> None:
    file = tmp_path / "dataset"
    with file.open("wb") as stream:
        stream.truncate(2_000_000_000)
    own = in_a_process_of_its_own.options(runtime_env={"env_vars": {"MAPPED": str(file)}})
    mapped, interop = ray.get([own.remote("a mapped file"), own.remote("interop threads")])
    assert mapped == []
    assert len(interop) == 1
    assert "can be called once in a process" in interop[0]


@pytest.mark.slow
def test_what_mlflow_logs_by_itself_ends_with_the_trial() -> None:
    left, ended = ray.get([in_a_process_of_its_own.remote(what) for what in ("autologging", "autologging ended")])
    assert len(left) == 1
    assert left[0].startswith("mlflow.autolog() would log the next trial's calls too (mlflow")
    assert ended == []


def test_processes_of_loaders_end_with_the_trial() -> None:
    """Torch would wait for each that a garbage collection finds: five seconds, and here until this test is ended."""
    assert ray.get(in_a_process_of_its_own.remote("loaders")) == []
