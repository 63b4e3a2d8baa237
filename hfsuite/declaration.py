"""What an experiment is: what is trained, what may be varied, and what counts as better."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hfsuite.errors import ConfigurationError, did_you_mean
from hfsuite.ranks.examination import Test
from hfsuite.search.groups import check_groups, check_names, drawn_in
from hfsuite.search.spaces import OnlyWhere, check_only_where, check_space, describe, is_searched
from hfsuite.search.values import type_fault
from hfsuite.seeds import SETTING
from hfsuite.summary import cut, listed
from hfsuite.tracking import declared
from hfsuite.trainers.training import HuggingFaceTrainer

NAME_LIMIT = 100  # characters of an experiment's name: the folders of its sweeps have longer ones


@dataclass(frozen=True, kw_only=True, repr=False)
class Declaration:
    """A trainer with a search space and an objective; `hfsuite.Experiment` is one that can be swept.

    Args:
        name: what its sweeps and its MLflow experiment are called.
        trainer: what a trial runs. Its `scaling_config` says how many workers a trial has unless told otherwise.
        space: from the names of settings to Ray Tune domains (`tune.loguniform(...)`), or constants.
        only_where: settings of the space that count only where others have certain values, and keep their default value
            elsewhere: `{"warmup_ratio": {"lr_scheduler_type": ["linear", "cosine"]}}`. For the searchers with names of
            Optuna's; Ray Tune's own draw every setting each time.
        metric: the reported number to optimise.
        mode: "min" or "max".
        defaults: every setting that the training function takes, with its default value, whose type is the setting's.
            A setting called `seed` gets the trial's seed, which follows from the sweep's and the trial's number.
        progress: reported numbers to show while a sweep runs, besides the metric.
        test: rates a checkpoint on data that no search may see: gets it and the trial's settings, and returns numbers,
            the metric's among them. `hfsuite confirm` has it called in a rank of the trial.

    Raises:
        ConfigurationError: the parts do not fit together; all mistakes are named.
    """

    name: str
    trainer: HuggingFaceTrainer
    space: Mapping[str, Any]
    metric: str
    mode: Literal["min", "max"]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    only_where: OnlyWhere = field(default_factory=dict)
    progress: Sequence[str] = ()
    test: Test | None = None
    module: str = field(default_factory=lambda: _calling_module())

    def __post_init__(self) -> None:
        faults = check_declaration(self)
        if not faults or (isinstance(self.space, Mapping) and isinstance(self.defaults, Mapping)):
            faults += dict.fromkeys([*check_names(self.space), *check_names(self.defaults)])
            faults += check_groups(self.space, self.defaults)
            whole = {name: domain for name, domain in self.space.items() if not check_groups({name: domain}, {})}
            faults += check_space(whole, self.defaults)
            faults += check_only_where(self.only_where, self.space, self.defaults)
            if isinstance(self.trainer, HuggingFaceTrainer):
                faults += _not_taken(self.trainer, self.defaults)
        if faults:
            raise ConfigurationError([f"Experiment {str(self.name)[:NAME_LIMIT]!r}: {fault}" for fault in faults])

    def __repr__(self) -> str:
        searched = {name: domain for name, domain in self.space.items() if is_searched(domain)}
        lines = [
            f"  {name}: {cut(describe(domain))}{_condition(self.only_where.get(name, {}))}"
            for name, domain in searched.items()
        ]
        head = f"Experiment {self.name!r} of {self.module}: {self.metric} ({self.mode})"
        return listed(f"{head}, {len(self.defaults)} settings, {len(searched)} searched", lines)

    def setting_faults(self, values: Mapping[str, Any]) -> list[str]:
        """What is wrong with values for this experiment's settings; empty if nothing is."""
        faults = []
        for name, value in values.items():
            if name not in self.defaults:
                faults.append(f"{self.name} has no setting {name!r}. {did_you_mean(name, self.defaults)}")
            elif inside := drawn_in(name, value) or check_names({name: value}):
                faults += inside
            elif fault := type_fault(name, value, self.defaults[name]) or seed_fault(name, value):
                faults.append(fault)
        return faults


def check_declaration(experiment: Declaration) -> list[str]:
    """What is wrong with the parts of a declaration, each for itself; empty if nothing is."""
    faults, name = [], experiment.name
    if not isinstance(name, str) or not name or any(character in name for character in "/\\:'\""):
        faults.append(f"An experiment's name is used for folders, so it cannot be {name!r}.")
    elif len(name) > NAME_LIMIT:
        faults.append(f"An experiment's name is used for folders: at most {NAME_LIMIT} characters, got {len(name)}.")
    if not isinstance(experiment.trainer, HuggingFaceTrainer):
        faults.append(f"trainer must be a TransformersTrainer or an AccelerateTrainer, got {experiment.trainer!r}.")
    if not isinstance(experiment.metric, str) or not experiment.metric:
        faults.append(f"metric must be the name of one reported number, got {experiment.metric!r}.")
    if experiment.mode not in ("min", "max"):
        faults.append(f"mode must be 'min' or 'max', got {experiment.mode!r}.")
    for part in ("space", "defaults"):
        if not isinstance(value := getattr(experiment, part), Mapping):
            faults.append(f"{part} must be a dict from the names of settings to their values, got {value!r}.")
    progress = experiment.progress
    if isinstance(progress, str) or not (
        isinstance(progress, Sequence) and all(isinstance(each, str) for each in progress)
    ):
        faults.append(f"progress must be a list of names of reported numbers, got {progress!r}.")
    if experiment.test is not None and not callable(experiment.test):
        faults.append(f"test must be a function of a checkpoint and the settings, got {experiment.test!r}.")
    if isinstance(experiment.defaults, Mapping) and (fault := seed_fault(SETTING, experiment.defaults.get(SETTING))):
        faults.append(fault)
    return faults


def seed_fault(name: str, value: Any) -> str | None:
    """A sentence if a value cannot be a seed, of a setting that is one."""
    is_negative = name == SETTING and isinstance(value, int) and value < 0
    return f"A seed is a whole number from 0, got {value}." if is_negative else None


def _not_taken(trainer: HuggingFaceTrainer, defaults: Mapping[str, Any]) -> list[str]:
    """Settings that the training function of a TransformersTrainer, which gets them as keywords, does not accept."""
    if trainer.config_argument != "trainer_init_config":
        return []
    parameters = list(inspect.signature(trainer.function).parameters.values())
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return []
    taken = {parameter.name for parameter in parameters[2:]}
    function = getattr(trainer.function, "__name__", "the training function")
    return [f"{function} does not take the setting {name!r}." for name in defaults if name not in taken]


def _calling_module() -> str:
    """What declares the experiment: a module, or a program by its file's name; see `hfsuite.tracking.declared`."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") in (__name__, "dataclasses"):
        frame = frame.f_back
    module = frame.f_globals if frame else {}
    spec, name = module.get("__spec__"), str(module.get("__name__", ""))
    if spec is not None:
        return str(spec.name)
    return declared.name_of_main() if name == declared.MAIN else name


def _condition(condition: Mapping[str, Any]) -> str:
    told = [f"{other} is {' or '.join(map(str, values))}" for other, values in condition.items()]
    return f", where {' and '.join(told)}" if told else ""
