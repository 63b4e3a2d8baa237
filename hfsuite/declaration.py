"""What an experiment is: what is trained, what may be varied, and what counts as better."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hfsuite.errors import NO_SETTING, ConfigurationError, did_you_mean
from hfsuite.naming import EXPERIMENT_BYTES, experiment_name_fault, is_number_name
from hfsuite.ranks.examination import Test
from hfsuite.search.groups import check_groups, check_names, drawn_in
from hfsuite.search.spaces import OnlyWhere, check_only_where, check_space, describe, is_searched
from hfsuite.search.values import type_fault
from hfsuite.seeds import SETTING, seed_fault
from hfsuite.summary import cut, listed
from hfsuite.tracking import declared
from hfsuite.trainers.training import HuggingFaceTrainer


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
        try:
            faults = self._faults()
        except RecursionError:
            faults = ["A default or a value of the space holds itself, which no record can hold."]
        if faults:
            raise ConfigurationError([f"Experiment {str(self.name)[:EXPERIMENT_BYTES]!r}: {each}" for each in faults])

    def _faults(self) -> list[str]:
        faults = check_declaration(self)
        unnamed = [*(check_names(part) for part in (self.space, self.defaults) if isinstance(part, Mapping))]
        faults += dict.fromkeys(itertools.chain(*unnamed))
        if len(unnamed) == 2 and all(isinstance(name, str) for name in (*self.space, *self.defaults)):
            faults += check_groups(self.space, self.defaults)
            whole = {name: domain for name, domain in self.space.items() if not check_groups({name: domain}, {})}
            faults += check_space(whole, self.defaults)
            faults += check_only_where(self.only_where, self.space, self.defaults)
            if isinstance(self.trainer, HuggingFaceTrainer):
                faults += _not_taken(self.trainer, self.defaults)
        return faults

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
                faults.append(f"{self.name} has no setting {name!r}. {did_you_mean(name, self.defaults, NO_SETTING)}")
            elif inside := drawn_in(name, value) or check_names({name: value}):
                faults += inside
            elif name == SETTING:
                faults += filter(None, [seed_fault(value)])
            elif fault := type_fault(name, value, self.defaults[name]):
                faults.append(fault)
        return faults


def check_declaration(experiment: Declaration) -> list[str]:
    """What is wrong with the parts of a declaration, each for itself; empty if nothing is."""
    faults = []
    if fault := experiment_name_fault(experiment.name):
        faults.append(fault)
    if not isinstance(experiment.trainer, HuggingFaceTrainer):
        faults.append(f"trainer must be a TransformersTrainer or an AccelerateTrainer, got {experiment.trainer!r}.")
    if not is_number_name(experiment.metric):
        faults.append(f"metric must be the name of one reported number, got {experiment.metric!r}.")
    if experiment.mode not in ("min", "max"):
        faults.append(f"mode must be 'min' or 'max', got {experiment.mode!r}.")
    for part in ("space", "defaults"):
        if not isinstance(value := getattr(experiment, part), Mapping):
            faults.append(f"{part} must be a dict from the names of settings to their values, got {value!r}.")
    progress = experiment.progress
    if isinstance(progress, str) or not (isinstance(progress, Sequence) and all(map(is_number_name, progress))):
        faults.append(f"progress must be a list of names of reported numbers, got {progress!r}.")
    test = experiment.test
    if test is not None and not (callable(test) and _can_be_called(test, 2)):
        faults.append(f"test must be a function of a checkpoint and the settings, got {_called(test)}.")
    if isinstance(experiment.defaults, Mapping) and experiment.defaults.get(SETTING) is not None:
        faults += filter(None, [seed_fault(experiment.defaults[SETTING])])
    return faults


def _not_taken(trainer: HuggingFaceTrainer, defaults: Mapping[str, Any]) -> list[str]:
    """Settings that the training function of a TransformersTrainer, which gets them as keywords, does not accept."""
    if trainer.config_argument != "trainer_init_config":
        return []
    parameters = list(inspect.signature(trainer.function).parameters.values())
    function = getattr(trainer.function, "__name__", "the training function")
    data = {parameter.name for parameter in parameters[:2]}
    faults = [
        f"{function} gets data as {name!r}, so no setting can be called that: choose another name."
        for name in defaults
        if name in data
    ]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return faults
    taken = {parameter.name for parameter in parameters}
    return [*faults, *(f"{function} does not take the setting {name!r}." for name in defaults if name not in taken)]


def _can_be_called(function: Callable[..., Any], arguments: int) -> bool:
    """Whether it takes so many arguments, as far as Python knows."""
    try:
        inspect.signature(function).bind(*[None] * arguments)
    except TypeError:
        return False
    except ValueError:  # of some that are written in C nobody knows
        return True
    return True


def _called(test: Any) -> str:
    try:
        return f"{test.__name__}{inspect.signature(test)}"
    except (AttributeError, TypeError, ValueError):
        return repr(test)


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
