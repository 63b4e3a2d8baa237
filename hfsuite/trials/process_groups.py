"""Process groups of a trial that is over: forgotten at once, ended beside the next trial. Runs in every rank.

Who ends a communicator of NCCL waits for the thread that hands out its file descriptors, and that one looks only twice
a second whether it shall end (`ncclProxyServiceUDS` in NCCL's proxy.cc): up to half a second a trial, and with several
ranks as long as the slowest of them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

NAME_OF_THREAD = "the end of a trial's process groups"


def end_process_groups() -> None:
    """Forgets all process groups of this process, so that others can be made, and ends them in a thread."""
    from torch import distributed  # here: the trial's actor, which has no use for PyTorch, need not wait for it

    if not distributed.is_available() or not distributed.is_initialized():
        return
    groups: list[ProcessGroup] = []
    with mock.patch.object(distributed.ProcessGroup, "shutdown", lambda group: groups.append(group)):
        distributed.destroy_process_group()
    threading.Thread(target=_shut_down, args=(groups,), name=NAME_OF_THREAD, daemon=True).start()


def ending() -> set[threading.Thread]:
    """The threads in which process groups end at this moment."""
    return {thread for thread in threading.enumerate() if thread.name == NAME_OF_THREAD}


def _shut_down(groups: list[ProcessGroup]) -> None:
    for group in groups:
        group.shutdown()
