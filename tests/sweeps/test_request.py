"""What can be asked of a sweep: the same on the command line, in a script and in a record."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.search.basic_variant import BasicVariantGenerator

from hfsuite.cli import app
from hfsuite.declaration import Declaration
from hfsuite.errors import ConfigurationError, TrackingError, UnknownName
from hfsuite.policy import WorkerPolicy
from hfsuite.sweeps import checks, cluster
from hfsuite.sweeps.experiment import Experiment
from hfsuite.sweeps.job import Job
from hfsuite.sweeps.request import OF_CONFIRMATION, OF_TRAINING, Request
from hfsuite.tracking.lock import DriverLock
from tests import toy
from tests.tracking import made

DEFAULTS = {each.name: None if each.name == "set" else each.default for each in fields(Request)}
COMMON = {"json", "gpu_share"}


def options_of(command: str) -> dict[str, Any]:
    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    return {each.name: each.default for each in found.params}


@pytest.mark.parametrize(
    ("command", "method", "names", "more"),
    [
        ("sweep", Experiment.sweep, DEFAULTS, {"module"}),
        (
            "train",
            Experiment.train,
            OF_TRAINING,
            {"module", "set", "values", "reports", "by_text", "reproduces", "recorded", "facts"},
        ),
        ("confirm", Experiment.confirm, OF_CONFIRMATION, {"sweep", "top", "seeds"}),
    ],
)
def test_options_and_keywords_are_the_fields_of_a_request(
    command: str, method: Any, names: Collection[str], more: set[str]
) -> None:
    options = options_of(command)
    assert {name: options[name] for name in names} == {name: DEFAULTS[name] for name in names}
    keywords = {name: each.default for name, each in inspect.signature(method).parameters.items() if name in names}
    assert keywords == {name: DEFAULTS[name] for name in names}
    assert set(options) == {*names, *COMMON, *more}, "an option that is no field"


def test_each_keyword_is_documented_where_it_is_given() -> None:
    for method, names in (
        (Experiment.sweep, DEFAULTS), (Experiment.train, OF_TRAINING), (Experiment.confirm, OF_CONFIRMATION)
    ):  # fmt: skip
        assert not [name for name in names if f"\n            {name}: " not in (method.__doc__ or "")]
        assert "asked:" not in (method.__doc__ or "")


def test_a_keyword_that_does_not_exist_gets_the_nearest_name(own_directory: Path) -> None:
    for call, message in (
        (lambda: toy.experiment.sweep(trails=3), r"sweep\(\) has no argument 'trails'. Did you mean 'trials'\?"),
        (lambda: toy.experiment.train({}, worker=1), r"train\(\) has no argument 'worker'. Did you mean 'workers'\?"),
        (lambda: toy.experiment.train({}, trials=1), r"train\(\) has no argument 'trials'"),
    ):
        with pytest.raises(UnknownName, match=message):
            call()


def test_a_request_comes_back_from_its_record(own_directory: Path) -> None:
    asked = Request(
        trials=3, searcher="random", trial_scheduler="fifo", workers=2, gpu=0.5, set={"reports": 2}, seed=7,
        at_end="grow", name="made", storage="elsewhere", isolation="process", decisions="pipelined", stop_grace_s=3.0,
        trials_per_group=2, memory_limit_gb=0.5, keep="all", deterministic=True, try_defaults=False,
    )  # fmt: skip
    as_usual = [each.name for each in fields(Request) if getattr(asked, each.name) == DEFAULTS[each.name]]
    assert not as_usual, "what has its default says nothing here"
    directory, _ = made.sweep(arguments=Job(toy.experiment, asked).arguments)
    record = directory.read_sweep()
    again = Request.of_record(record, "elsewhere", searcher="random", trial_scheduler="fifo")
    assert again == asked
    assert Job(toy.experiment, Request(searcher=BasicVariantGenerator())).arguments["searcher"] is None


def test_a_worker_policy_is_asked_for_by_its_own_words() -> None:
    for each in fields(WorkerPolicy):
        assert DEFAULTS[each.name] == each.default, each.name


def test_what_needs_no_ray_is_told_before_there_is_one(monkeypatch: pytest.MonkeyPatch, own_directory: Path) -> None:
    monkeypatch.setattr(cluster, "connect", lambda: pytest.fail("Ray would start"))
    for wrong in ({"trials": 0}, {"keep": "bets"}, {"workers": 0}, {"storage": "/proc/nowhere"}, {"isolation": "cold"}):
        with pytest.raises(ConfigurationError):
            checks.check(Job(toy.experiment, Request(**wrong)))
    assert not Path("results").exists()


def test_a_store_that_cannot_be_and_a_lock_are_told_of_before_there_is_ray(
    monkeypatch: pytest.MonkeyPatch, own_directory: Path
) -> None:
    monkeypatch.setattr(cluster, "connect", lambda: pytest.fail("Ray would start"))
    directory, _ = made.sweep(experiment="toy", arguments=Job(toy.experiment, Request()).arguments)
    with DriverLock(directory), pytest.raises(ConfigurationError, match="is being run by process"):
        toy.experiment.resume("made")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "foo://x")
    with pytest.raises(TrackingError, match=r"MLflow has no stores at addresses like foo://x: set MLFLOW_TRACKING_URI"):
        toy.experiment.sweep()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match="does not answer"):
        toy.experiment.sweep()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"trials": "3"}, "trials must be a whole number, got '3'"),
        ({"seed": 1.5}, "A seed is a whole number from 0 to 4294967295, got 1.5"),
        ({"storage": 3}, "storage must be a folder or a URI, got 3"),
        ({"storage": ""}, "storage must be a folder or a URI, got ''"),
        ({"workers": True}, "workers must be a whole number, or None for the trainer's, got True"),
        ({"gpu": "yes"}, "gpu must be True, False, 'auto', the part of a GPU, or None for the trainer's, got 'yes'"),
        ({"set": ["x=1"]}, r"set must be a dict from names of settings to values, got \['x=1'\]"),
        ({"name": 3}, "name must be a text, or None"),
        ({"try_defaults": 1}, "try_defaults must be True or False, got 1"),
        ({"at_end": True}, "at_end must be stay, spread, grow, or None, got True"),
        ({"at_end": "spred"}, "at_end cannot be 'spred'. Did you mean 'spread'?"),
        (
            {"at_end": "grow", "trial_scheduler": PopulationBasedTraining(hyperparam_mutations={"x": [1.0, 2.0]})},
            "at_end cannot be 'grow' with PopulationBasedTraining, which moves trials itself",
        ),
    ],
)
def test_what_is_asked_for_in_another_type_is_named(asked: dict[str, Any], words: str, own_directory: Path) -> None:
    with pytest.raises(ConfigurationError, match=words):
        toy.experiment.sweep(**asked)


def test_an_experiment_is_a_declaration_that_can_be_swept() -> None:
    assert isinstance(toy.experiment, Declaration)
    assert not {"sweep", "train", "resume", "confirm"} & set(vars(Declaration))
