"""What a user can ask of a sweep: one value, on its way from whoever asks to whoever answers. Driver."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from hfsuite.errors import UnknownName, did_you_mean
from hfsuite.policy import Decisions, Isolation, WorkerPolicy

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from hfsuite.search.searchers import AnySearcher
    from hfsuite.tracking.record import SweepRecord

Method = TypeVar("Method", bound=Callable[..., Any])
AtEnd = Literal["stay", "spread", "grow"]
STAY: AtEnd = "stay"
SPREAD: AtEnd = "spread"
GROW: AtEnd = "grow"
AUTO = "auto"  # of a GPU: the part with which trials are fastest, as measured
ASKED = "asked"  # the parameter that stands for fields of a request, in signatures and docstrings
OF_WORKERS = tuple(each.name for each in fields(WorkerPolicy))
OF_TRAINING = ("workers", "gpu", "seed", "name", "storage", "deterministic")  # what a single training knows of
OF_CONFIRMATION = ("workers", "gpu", "storage", "name")  # the rest is as in the sweep that it confirms


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user can ask of a sweep, with the default values. `Experiment.sweep` and `hfsuite sweep` take these names.

    Args:
        trials: how many configurations to try; where the space lists values with `grid_search`, all are tried.
        searcher: what to try next: "tpe", "random", "qmc", "gp", "cmaes", "grid", or a searcher of Ray Tune's.
        trial_scheduler: what to stop: "asha", "median", "fifo", or a trial scheduler of Ray Tune's.
        workers: workers a trial; None for the trainer's.
        gpu: whether each worker has a GPU. In a sweep, trials then share GPUs where they are faster so, as they are
            measured; that can also be asked for as "auto". A number is the part of a GPU that each takes: with 0.5, two
            trials run on each, with 1.0 one. None for the trainer's.
        at_end: what becomes of GPUs when no trial waits for them: "stay": they are given back; "spread": trials that
            share one go on alone on those that are free, from a checkpoint; "grow": trials also go on with more workers
            where that is worth it, as long as a step takes as many rows as before. By default "spread" for a
            TransformersTrainer, and "stay" for training loops, which may not go on from a checkpoint.
        set: settings to fix; one that the space varies is then not varied.
        seed: of the searcher, and of all trials: see `hfsuite.seeds`.
        name: of the sweep; must be new in `storage`.
        storage: a folder, or a URI that Ray can write to.
        isolation: "warm": a trial leaves its workers to the next; "process": every trial has new ones.
        decisions: "awaited": ranks wait in each report for the trial scheduler's answer; "pipelined": they go on,
            and learn of it in their next report.
        stop_grace_s: seconds that a stopped training function has to unwind before its workers are killed.
        trials_per_group: workers are replaced after so many trials; None for no limit.
        memory_limit_gb: gigabytes that a trial may leave in a worker; one that holds more is replaced.
        keep: which checkpoints stay: "best" (the best one of the three best trials, and the best and the last of each
            trial that may be taken up again), "best:5", "all", "none", or "reference" (as "best", and MLflow points to
            them instead of holding them; for storage that whoever loads a model can read).
        deterministic: whether PyTorch shall compute the same bits each time; by default on CPUs, where a step
            takes 1.015 times as long.
        try_defaults: whether the first trial has the default settings, with the searchers whose names are Optuna's.
    """

    trials: int = 10
    searcher: str | AnySearcher = "tpe"
    trial_scheduler: str | TrialScheduler = "asha"
    workers: int | None = None
    gpu: bool | float | Literal["auto"] | None = None
    at_end: AtEnd | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    name: str | None = None
    storage: str | os.PathLike[str] = "results"
    isolation: Isolation = "warm"
    decisions: Decisions = "awaited"
    stop_grace_s: float = 10.0
    trials_per_group: int | None = None
    memory_limit_gb: float = 1.5
    keep: str = "best"
    deterministic: bool | None = None
    try_defaults: bool = True

    @classmethod
    def of(cls, method: str, asked: Mapping[str, Any], *, among: Collection[str] | None = None, **given: Any) -> Self:
        """Out of the keywords of a method.

        Args:
            method: its name.
            asked: the keywords.
            among: the names that it takes; None for all.
            given: what the method has decided itself.

        Raises:
            UnknownName: it has no such argument, with the nearest one.
        """
        known = {each.name for each in fields(cls)} if among is None else among
        if unknown := [name for name in asked if name not in known]:
            raise UnknownName([f"{method}() has no argument {name!r}. {did_you_mean(name, known)}" for name in unknown])
        return cls(**{**asked, "set": {} if asked.get("set") is None else asked["set"], **given})

    @classmethod
    def of_record(cls, record: SweepRecord, storage: str, **chosen: Any) -> Self:
        """As it was recorded.

        Args:
            record: of the sweep.
            storage: where it is now.
            chosen: the searcher or the trial scheduler, if that was an object: no file holds one.
        """
        asked = record.arguments
        before = {"try_defaults": False}  # in a record that does not know of it
        known = {name: asked[name] for name in AS_THEY_ARE if name in asked}
        own = {"set": asked["fixed"], "name": record.name, "storage": storage}
        return cls(**{**before, **known}, **asked["worker_policy"], **chosen, **own)

    def as_record(self, fixed: Mapping[str, Any], unwritten: list[str]) -> dict[str, Any]:
        """As plain values; None for a searcher or a trial scheduler that is an object.

        Args:
            fixed: the values of `set` as the trials get them.
            unwritten: the names of those that no file can hold.
        """
        named = {name: getattr(self, name) for name in ("searcher", "trial_scheduler")}
        return {
            **{name: getattr(self, name) for name in AS_THEY_ARE},
            **{name: value if isinstance(value, str) else None for name, value in named.items()},
            "storage": str(self.storage),
            "worker_policy": asdict(self.policy),
            "fixed": dict(fixed),
            "not_written": unwritten,
        }

    @property
    def policy(self) -> WorkerPolicy:
        """How long workers live, and when they wait.

        Raises:
            ConfigurationError: every value that cannot be.
        """
        return WorkerPolicy(**{name: getattr(self, name) for name in OF_WORKERS})


# In a record as in a request; the others have a form of their own there.
AS_THEY_ARE = tuple(
    each.name
    for each in fields(Request)
    if each.name not in (*OF_WORKERS, "set", "name", "storage", "searcher", "trial_scheduler")
)
# What options and keywords are by default: those of a request, but that nobody writes an empty dict.
DEFAULTS = {each.name: None if each.name == "set" else each.default for each in fields(Request)}


def takes(*names: str) -> Callable[[Method], Method]:
    """Gives a method that takes `**asked` the signature and the documentation of these fields of a request.

    Args:
        names: of the fields.
    """

    def completed(method: Method) -> Method:
        signature = inspect.signature(method)
        own = [each for each in signature.parameters.values() if each.name != ASKED]
        types = {each.name: each.type for each in fields(Request)}
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS[name], annotation=types[name])
            for name in names
        ]
        vars(method)["__signature__"] = signature.replace(parameters=[*own, *more])
        told = dict(re.findall(r"(?ms)^ {8}(\w+): (.*?)(?=^ {8}\w+: |^ {4}$|\Z)", Request.__doc__ or ""))
        lines = "".join(f"            {name}: {told[name].rstrip()}\n".replace("\n   ", "\n       ") for name in names)
        method.__doc__ = re.sub(rf"(?m)^ *{ASKED}: .*\n", lines, method.__doc__ or "")
        return method

    return completed
