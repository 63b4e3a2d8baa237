"""Options that commands share, and what a request is made of."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from hfsuite.cli import completion
from hfsuite.errors import NO_SETTING, ConfigurationError, did_you_mean
from hfsuite.search.values import parse_value
from hfsuite.sweeps.request import DEFAULTS, Request

Command = TypeVar("Command", bound=Callable[..., Any])

Module = Annotated[
    str,
    typer.Argument(
        metavar="MODULE", help="The experiment: a dotted name, or a file.", autocompletion=completion.modules
    ),
]
Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run's id or its first letters, SWEEP:best, or SWEEP:3 for a trial.",
        autocompletion=completion.runs,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Fix a setting. Can be given more than once."),
]
Storage = Annotated[str, typer.Option(help="A folder or URI for reports and checkpoints.")]

OF_EXPERIMENT = "the experiment's"
# Of each field of a request: how it is asked for. `gpu` may be asked for in parts too.
OPTIONS: dict[str, Any] = {
    "trials": Annotated[int, typer.Option(help="How many configurations to try.")],
    "searcher": Annotated[str, typer.Option(help="tpe, random, qmc, gp, cmaes or grid.")],
    "trial_scheduler": Annotated[str, typer.Option(help="asha, median or fifo.")],
    "workers": Annotated[int | None, typer.Option(help="Workers a trial.", show_default=OF_EXPERIMENT)],
    "gpu": Annotated[
        bool | None, typer.Option("--gpu/--cpu", help="Whether each worker has a GPU.", show_default=OF_EXPERIMENT)
    ],
    "at_end": Annotated[
        str | None,
        typer.Option(
            help="What becomes of GPUs that no trial waits for: stay: they are given back; spread: trials that share "
            "one go on alone, from a checkpoint; grow: or with more workers.",
            show_default="spread for a TransformersTrainer",
        ),
    ],
    "set": Set,
    "seed": Annotated[int, typer.Option(help="Of the searcher, and of each trial.")],
    "name": Annotated[str | None, typer.Option(help="What to call it.", show_default="experiment and time")],
    "storage": Storage,
    "isolation": Annotated[
        str, typer.Option(help="warm: a trial leaves its workers to the next; process: all are new.")
    ],
    "decisions": Annotated[
        str, typer.Option(help="awaited: a report waits for its answer; pipelined: training goes on.")
    ],
    "stop_grace_s": Annotated[float, typer.Option(help="Seconds that a stopped training has to unwind.")],
    "trials_per_group": Annotated[
        int | None, typer.Option(help="Workers are replaced after so many trials.", show_default="no limit")
    ],
    "memory_limit_gb": Annotated[float, typer.Option(help="Gigabytes that a trial may leave in a worker.")],
    "keep": Annotated[
        str, typer.Option(help="Which checkpoints stay: best (of the three best trials), best:5, all, none, reference.")
    ],
    "deterministic": Annotated[
        bool | None,
        typer.Option("--deterministic/--no-deterministic", help="The same bits each time.", show_default="on CPUs"),
    ],
    "try_defaults": Annotated[
        bool, typer.Option("--try-defaults/--no-try-defaults", help="The default settings are the first trial's.")
    ],
}
GPU_SHARE = Annotated[
    str | None,
    typer.Option(
        help="The part of a GPU that each worker takes: 0.5 for two trials on one, 1 for one, auto for as many as are "
        "faster together, as measured.",
        show_default="auto with --gpu",
    ),
]
Values = Annotated[
    Path | None,
    typer.Option("--settings", help="A JSON file with values of settings, exact to the last bit; --set wins."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")]


def asks(*names: str, whose: str = OF_EXPERIMENT) -> Callable[[Command], Command]:
    """Gives a command that takes `**asked` the options of these fields of a request, with their defaults.

    Args:
        names: of the fields.
        whose: what decides where nothing is asked for, as help says it.
    """

    def completed(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        last = [each.replace(kind=each.KEYWORD_ONLY) for each in own if each.default is not each.empty]
        options = {name: (OPTIONS[name], DEFAULTS[name]) for name in names}
        if "gpu" in options:
            options["gpu_share"] = (GPU_SHARE, None)
        for name, (kind, default) in options.items():
            told = copy.copy(kind.__metadata__[0])
            told.show_default = whose if told.show_default == OF_EXPERIMENT else told.show_default
            options[name] = (Annotated[kind.__origin__, told], default)
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for name, (kind, default) in options.items()
        ]
        vars(command)["__signature__"] = signature.replace(parameters=[*own[: -len(last)], *more, *last])
        return command

    return completed


def requested(experiment: Any, asked: Mapping[str, Any], **given: Any) -> tuple[Request, list[str]]:
    """What the options ask for, and a sentence for each that cannot be.

    Args:
        experiment: whose settings are set.
        asked: the options.
        given: what else decides settings: see `parse_settings`.

    Raises:
        ConfigurationError: a file of settings cannot be read.
    """
    asked = dict(asked)
    fixed, faults = parse_settings(experiment, asked.pop("set", None) or [], **given)
    asked["gpu"], contradictions = gpu_of(asked["gpu"], asked.pop("gpu_share"))
    return Request(**asked, set=fixed), [*faults, *contradictions]


def parse_settings(
    experiment: Any, assignments: Sequence[str], file: Path | None = None, unwritten: Sequence[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """`key=value` texts as values of the settings' types, over those of a file, and a sentence for each that cannot be.

    Args:
        experiment: whose settings they are.
        assignments: the texts.
        file: of JSON.
        unwritten: the names of settings for whose values the file holds texts, since it could not hold them.

    Raises:
        ConfigurationError: the file cannot be read as an object of settings.
    """
    from hfsuite.search.own_choices import OwnChoices  # with Ray, which an experiment has imported

    choices = OwnChoices.of(experiment.space, experiment.defaults)
    values = _read(file) if file is not None else {}
    faults = choices.faults(values, unwritten)
    values = choices.read(values)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals:
            faults.append(f"--set takes KEY=VALUE, got {assignment!r}.")
        elif key not in experiment.defaults:
            faults.append(
                f"{experiment.name} has no setting {key!r}. {did_you_mean(key, experiment.defaults, NO_SETTING)}"
            )
        elif type(own := choices.read({key: text})[key]) is not str:  # an enum's, a class, a tuple
            values[key] = own
        else:
            value, fault = parse_value(key, text, experiment.defaults[key])
            if fault:
                texts = choices.texts(key)
                only = f" On the command line it can be {' or '.join(texts)}, and anything else from Python."
                faults.append(f"{fault}{only}" if texts else fault)
            else:
                values[key] = value
    return values, faults


def gpu_of(gpu: bool | None, share: str | None) -> tuple[bool | float | Literal["auto"] | None, list[str]]:
    """What --gpu, --cpu and --gpu-share ask for together, and a sentence if that cannot be."""
    if share is None:
        return gpu, []
    if gpu is False:
        return None, ["--cpu and --gpu-share contradict each other: give one of them."]
    if share == "auto":
        return "auto", []
    try:
        return float(share), []
    except ValueError:
        return None, [f"--gpu-share takes a number up to 1, or auto, got {share!r}."]


def assignments(given: Sequence[str]) -> dict[str, str]:
    """`key=value` texts, apart: for an experiment that is not loaded here.

    Raises:
        ConfigurationError: one is no such text.
    """
    if faults := [f"--set takes KEY=VALUE, got {each!r}." for each in given if "=" not in each]:
        raise ConfigurationError(faults)
    pairs = (each.partition("=") for each in given)
    return {key.strip(): text for key, _, text in pairs}


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"The settings in {file} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"The file {file} must hold one JSON object, a value for each setting.")
    return values
