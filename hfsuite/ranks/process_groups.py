"""Process groups of a trial that is over: forgotten at once, ended beside the next trial. Runs in every rank.

Who ends a communicator of NCCL waits for the thread that hands out its file descriptors, and that one looks only twice
a second whether it shall end (`ncclProxyServiceUDS` in NCCL's proxy.cc): up to half a second a trial, and with several
ranks as long as the slowest of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

END_WITHIN_S = 5.0  # when the next trial is over too


class End(threading.Thread):
    """Ends process groups, in the order in which they are given."""

    def __init__(self, groups: list[ProcessGroup]) -> None:
        super().__init__(name="the end of a trial's process groups", daemon=True)
        self._groups = groups
        self.may_go_on = True  # beside one trial
        self.fault = ""

    def run(self) -> None:
        """What the thread does."""
        try:
            while self._groups:
                self._groups.pop(0).shutdown()
        except RuntimeError as error:  # all of c10d's are
            self.fault = str(error)


_ends: list[End] = []


def end_process_groups() -> None:
    """Forgets all process groups of this process, so that others can be made, and ends them in a thread."""
    from torch import distributed  # here: the trial's actor, which has no use for PyTorch, need not wait for it

    if not distributed.is_available() or not distributed.is_initialized():
        return
    groups: list[ProcessGroup] = []
    with mock.patch.object(distributed.ProcessGroup, "shutdown", lambda group: groups.append(group)):
        distributed.destroy_process_group()
    _ends.append(End(groups))
    _ends[-1].start()


def process_groups_left() -> Iterator[str]:
    """Those that could not be ended, or not while a whole trial ran. Called once after each trial."""
    for end in list(_ends):
        if end.may_go_on and end.is_alive():
            end.may_go_on = False
            continue
        end.join(END_WITHIN_S)
        if end.is_alive():
            yield "a process group of the trial before has not ended"
        elif end.fault:
            yield f"a process group could not be ended: {end.fault}"
        _ends.remove(end)
