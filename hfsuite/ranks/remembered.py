"""What is remembered of a worker process: each function looks at it, and returns what puts it back. In every rank."""

from __future__ import annotations

import gc
import locale
import logging
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch

PutBack = Callable[[], None]
# Modules whose functions people replace to look into a training, or to change it.
WATCHED = (
    "builtins", "os", "random", "time", "numpy.random", "torch", "torch.nn.functional", "torch.distributed",
    "torch.optim", "torch.utils.data", "transformers", "transformers.trainer", "transformers.trainer_utils",
    "transformers.utils.logging", "accelerate", "accelerate.utils",
)  # fmt: skip
INSTALLED = (os.path.dirname(os.path.dirname(torch.__file__)), os.path.dirname(os.__file__))


def _environment() -> PutBack:
    before = dict(os.environ)

    def put_back() -> None:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})
        time.tzset()

    return put_back


def _working_directory() -> PutBack:
    before = os.getcwd()
    return lambda: os.chdir(before)


def _random_states() -> PutBack:
    """As in a new process: from the system's entropy."""

    def put_back() -> None:
        random.seed()
        np.random.seed()
        torch.default_generator.seed()
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(torch.initial_seed())

    return put_back


def _torch_switches() -> PutBack:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    holders: list[tuple[Any, tuple[str, ...]]] = [
        *((holder, ("fp32_precision",)) for holder in _holders_of_precision()),
        (cudnn, ("enabled", "benchmark", "deterministic")),
        (matmul, ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")),
        (torch.backends.mkldnn, ("enabled",)),
        (torch.utils.deterministic, ("fill_uninitialized_memory",)),
        (torch.distributions.Distribution, ("_validate_args",)),
        (torch._tensor_str.PRINT_OPTS, tuple(vars(torch._tensor_str.PRINT_OPTS))),
    ]
    attributes = [(holder, name, getattr(holder, name)) for holder, names in holders for name in names]
    getters_and_setters: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
        # Turning determinism on or off imports the compiler, for seconds: only where it was changed.
        (
            torch.get_deterministic_debug_mode,
            lambda mode: torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1),
        ),
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.get_default_device, torch.set_default_device),
        (_threads_of_a_new_thread, torch.set_num_threads),
        (np.geterr, lambda handling: np.seterr(**handling)),
        (torch.is_anomaly_enabled, torch.set_anomaly_enabled),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
        (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp),
        (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
        (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
        (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
        (torch.multiprocessing.get_sharing_strategy, torch.multiprocessing.set_sharing_strategy),
    ]
    before = [getter() for getter, _ in getters_and_setters]
    matmul_precision = torch.get_float32_matmul_precision()

    def put_back() -> None:
        # The old name of some of the following; it may not be asked.
        torch.set_float32_matmul_precision(matmul_precision)
        for holder, name, value in attributes:
            if getattr(holder, name) != value:
                setattr(holder, name, value)
        for (getter, setter), value in zip(getters_and_setters, before, strict=True):
            if getter() != value:
                setter(value)

    return put_back


def _holders_of_precision() -> list[Any]:
    """Where torch keeps how exactly it multiplies, the general before the special; before torch 2.9 there is none."""
    backends = torch.backends
    special = [(parent, name) for parent in (backends.cudnn, backends.mkldnn) for name in ("conv", "rnn", "matmul")]
    every = [backends, backends.cuda.matmul, backends.cudnn, backends.mkldnn]
    every += [getattr(parent, name) for parent, name in special if hasattr(parent, name)]
    return [each for each in every if hasattr(each, "fp32_precision")]


def _threads_of_a_new_thread() -> int:
    """How many threads torch uses: a number of each thread's own, which begins as the number of the process."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def _signal_handlers() -> PutBack:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}

    def put_back() -> None:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    return put_back


def _logging() -> PutBack:
    def loggers() -> dict[str, logging.Logger]:
        known = logging.root.manager.loggerDict
        return {"": logging.root} | {name: each for name, each in known.items() if isinstance(each, logging.Logger)}

    before = {
        name: (each.level, each.handlers[:], each.filters[:], each.propagate, each.disabled)
        for name, each in loggers().items()
    }
    threshold = logging.root.manager.disable

    def put_back() -> None:
        logging.disable(threshold)
        for name, each in loggers().items():
            level, handlers, filters, propagate, disabled = before.get(name, (logging.NOTSET, [], [], True, False))
            for handler in set(each.handlers) - set(handlers):
                handler.close()
            if each.level != level:
                each.setLevel(level)
            each.handlers[:], each.filters[:], each.propagate, each.disabled = handlers, filters, propagate, disabled

    return put_back


def _warnings() -> PutBack:
    filters, show = warnings.filters[:], warnings.showwarning

    def put_back() -> None:
        warnings.resetwarnings()  # tells the interpreter that its cache is stale
        warnings.filters[:] = filters  # type: ignore[index]
        warnings.showwarning = show

    return put_back


def _interpreter() -> PutBack:
    path, argv, out, err = sys.path[:], sys.argv[:], sys.stdout, sys.stderr
    hook, depth, collects, thresholds = sys.excepthook, sys.getrecursionlimit(), gc.isenabled(), gc.get_threshold()
    timeout, mask, language = socket.getdefaulttimeout(), _umask(), locale.setlocale(locale.LC_ALL)
    start_method = multiprocessing.get_start_method(allow_none=True)

    def put_back() -> None:
        sys.path[:], sys.argv[:], sys.stdout, sys.stderr, sys.excepthook = path, argv, out, err, hook
        sys.setrecursionlimit(depth)
        gc.set_threshold(*thresholds)
        (gc.enable if collects else gc.disable)()
        socket.setdefaulttimeout(timeout)
        os.umask(mask)
        if locale.setlocale(locale.LC_ALL) != language:
            locale.setlocale(locale.LC_ALL, language)
        if multiprocessing.get_start_method(allow_none=True) != start_method:
            multiprocessing.set_start_method(start_method, force=True)

    return put_back


def _patched_functions() -> PutBack:
    """Modules under their own names. What an installed library has put in the place of a function is left alone."""
    before = {module: dict(vars(module)) for name in WATCHED if isinstance(module := sys.modules.get(name), ModuleType)}

    def put_back() -> None:
        for module, names in before.items():
            for name, value in names.items():
                found = vars(module).get(name)
                if found is not value and not _is_installed(found):
                    setattr(module, name, value)
            for name in vars(module).get("_class_to_module", {}):  # of transformers, which loads what is asked for
                found = vars(module).get(name)
                if name not in names and isinstance(found, FunctionType) and not _is_installed(found):
                    delattr(module, name)

    return put_back


def _hooks_of_all_modules() -> PutBack:
    names = vars(torch.nn.modules.module)
    hooks = [kept for name, kept in names.items() if name.startswith("_global_") and isinstance(kept, dict)]
    before = [dict(kept) for kept in hooks]

    def put_back() -> None:
        for kept, own in zip(hooks, before, strict=True):
            kept.clear()
            kept.update(own)

    return put_back


REMEMBERED: tuple[Callable[[], PutBack], ...] = (
    _patched_functions,  # first: the others call these functions
    _hooks_of_all_modules,
    _environment,
    _working_directory,
    _interpreter,
    _warnings,
    _logging,
    _signal_handlers,
    _torch_switches,
    _random_states,  # last: nothing after it may draw
)


def _is_installed(function: Any) -> bool:
    """Whether a function is written in the standard library or in an installed package."""
    code = getattr(function, "__code__", None)
    return code is not None and str(code.co_filename).startswith(INSTALLED)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
