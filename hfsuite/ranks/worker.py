"""A worker process of Ray Train's, which runs the training functions of one trial after another. In every rank.

One of the files that touch Ray's internals, with `trials/controller.py`, `trials/worker_actors.py` and
`sweeps/tune_loop.py`.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.v2._internal.execution.checkpoint.sync_actor import SynchronizationActor
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.train_fn_utils import get_train_fn_utils
from ray.train.v2._internal.execution.worker_group import RayTrainWorker

from hfsuite.errors import StopTraining
from hfsuite.ranks.decision_box import box
from hfsuite.ranks.failure import describe_failure, failure_path
from hfsuite.ranks.surroundings import (
    STARTED_BY,
    NoDatasets,
    end_processes_of,
    import_modules,
    in_scratch,
    output_file,
    scratch_directory,
)

ANSWER_WITHIN_S = 1.0  # to a poll; at once if there is something to tell


class TrialWorker(RayTrainWorker):
    """A worker process, which may run one trial after another.

    Args:
        variables: environment variables by which Ray Train is told how to work.
        preload: modules to import before it is asked for anything.
        limit_gb: see `WorkerPolicy.memory_limit_gb`.
    """

    def __init__(self, variables: Mapping[str, str], preload: Sequence[str], limit_gb: float) -> None:
        super().__init__()
        os.environ.update({name: value for name, value in variables.items() if name not in os.environ})
        sys.argv = sys.argv[:1]  # Ray's options are not those of a program in which training functions lie
        os.environ[STARTED_BY] = ray.get_runtime_context().get_actor_id()
        import_modules(preload)
        from hfsuite.ranks.clean_room import CleanRoom

        gc.collect()
        gc.freeze()  # what is imported stays, so that collecting after a trial does not look through all of it
        self._room = CleanRoom(limit_gb)

    def init_train_context(self, *args: Any, **kwargs: Any) -> None:
        """A trial begins."""
        super().init_train_context(*args, **kwargs)
        context = get_train_context()
        context.dataset_shard_provider = context.dataset_shard_provider or NoDatasets()
        # Ray Train has one of each for the process, and shuts the pool down when a training function returns.
        context.checkpoint_upload_threadpool = ThreadPoolExecutor(max_workers=1)
        context.report_order_condition = threading.Condition()
        reports = box.queue_of_reports()
        context.execution_context = dataclasses.replace(context.execution_context, result_queue=reports)
        agreement: Agreement = context.get_synchronization_actor()
        ask = context._sync_checkpoint_dir_name_across_ranks
        context._sync_checkpoint_dir_name_across_ranks = lambda name=None: (
            ask(name) if name else agreement.checkpoint_name(context.report_call_index)
        )
        box.clear()

    def poll_status(self) -> Any:
        """Answers when there is a report or the end, when the rank waits for a decision, or after a while."""
        execution = get_train_context().execution_context
        box.wait_for_news(
            lambda: not execution.result_queue.empty() or not execution.training_thread_runner.is_running(),
            ANSWER_WITHIN_S,
        )
        return super().poll_status()

    def end_processes(self, workers: Sequence[str]) -> None:
        """This process will be killed: first those that it and these workers have started. What it printed is kept."""
        self._room.end_processes()
        end_processes_of(workers)
        with suppress(RuntimeError):  # no trial has begun
            context = get_train_context()
            output_file(context.train_run_context, context.get_world_rank()).keep()

    def leave_trial(self) -> list[str]:
        """A trial has ended. Returns why this process cannot run another one."""
        self.shutdown()
        runner = get_train_context().execution_context.training_thread_runner
        if runner.is_running():
            return ["its training function is still running"]
        if runner.get_error() is not None:
            return ["its training function raised"]
        return self._room.tidy()


@dataclass(frozen=True)
class InTrial:
    """A rank's training function, in a trial: own output file, own working directory, reports that wait."""

    function: Callable[[], Any]
    pipelined: bool

    def __call__(self) -> Any:
        """Runs in every rank, in the thread that Ray Train makes for it."""
        context = get_train_context()
        storage, rank = context.get_storage(), context.get_world_rank()
        failure = failure_path(storage.experiment_fs_path, rank)
        if storage.storage_filesystem.get_file_info(failure).is_file:
            storage.storage_filesystem.delete_file(failure)  # of an attempt before this one
        output = output_file(context.train_run_context, rank)
        agreed: Agreement = context.get_synchronization_actor()
        scratch = scratch_directory(context.train_run_context, agreed.scratch, agreed.attempt, context.get_node_rank())
        try:
            with in_scratch(scratch, context.get_local_rank(), context.get_local_world_size()), output:
                box.make_reports_wait(get_train_fn_utils(), pipelined=self.pipelined)
                result = self.function()
                context.checkpoint_upload_threadpool.shutdown()  # what is still on its way lies in this directory
        except StopTraining:
            box.note_end("returned")
            return None
        except BaseException as error:
            with output:
                traceback.print_exception(error)
            if not box.is_stopped:  # else it is not the trial's failure: a member may go on elsewhere by now
                with storage.storage_filesystem.open_output_stream(failure) as stream:
                    stream.write(json.dumps(describe_failure(error, rank)).encode())
            box.note_end("raised")
            raise
        box.note_end("returned")
        return result


_sync_actors: dict[str, Any] = {}  # in a rank: the handle of who started it keeps an actor alive, from trial to trial


@dataclass
class Agreement:
    """In the place of Ray Train's synchronization actor, and of its class: how the ranks of one attempt agree.

    On the names of checkpoints they agree without asking. The actor itself is started by the first rank that needs it
    (`ray.train.collective`), to which it belongs, and so ends with the workers.

    Args:
        name: by which the ranks find the actor.
        attempt: when it began; a part of the names of its checkpoints.
        scratch: what the names of its working directories begin with.
    """

    name: str
    attempt: str
    scratch: str
    scheduling: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    timeouts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def options(self, **scheduling: Any) -> Agreement:
        """As of the class of an actor."""
        return dataclasses.replace(self, scheduling=scheduling)

    def remote(self, **timeouts: Any) -> Agreement:
        """Likewise."""
        return dataclasses.replace(self, timeouts=timeouts)

    def __bool__(self) -> bool:
        return False  # there is nothing to end where a group has not started

    @property
    def broadcast_from_rank_zero(self) -> Any:
        """The actor's, which starts now."""
        if self.name not in _sync_actors:
            actor = SynchronizationActor.options(name=self.name, get_if_exists=True, **self.scheduling)
            _sync_actors.clear()  # of workers before these
            _sync_actors[self.name] = actor.remote(**self.timeouts)
        return _sync_actors[self.name].broadcast_from_rank_zero

    def checkpoint_name(self, report: int) -> str:
        """Of the checkpoint of a report of this attempt, which every rank counts alike."""
        return f"checkpoint_{self.attempt}_{report:06d}"
