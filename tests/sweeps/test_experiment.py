"""What an experiment accepts, and how it says no: before anything starts, all mistakes at once."""

from __future__ import annotations

import functools
import math
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune
from ray.train import ScalingConfig

from hfsuite import Experiment, TransformersTrainer
from hfsuite.errors import ConfigurationError, TrackingError
from hfsuite.sweeps import checks
from hfsuite.sweeps.result import address
from hfsuite.tracking import store
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.lock import DriverLock
from tests import toy

HOLDS_ITSELF: list[Any] = []
HOLDS_ITSELF.append(HOLDS_ITSELF)


def declare(**changes: Any) -> Experiment:
    arguments = {
        "name": "declared",
        "trainer": toy.trainer(),
        "space": {},
        "metric": "loss",
        "mode": "min",
        "defaults": toy.DEFAULTS,
    }
    return Experiment(**(arguments | changes))


def test_it_knows_the_module_that_declares_it() -> None:
    assert toy.experiment.module == "tests.toy"
    assert declare().module == __name__


def test_all_mistakes_of_a_declaration_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        declare(mode="best", name="a/b", space={"y": tune.uniform(0, 1), "reports": tune.uniform(0, 1)})
    faults = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 4
    assert "mode must be 'min' or 'max', got 'best'" in faults
    assert "varies 'y', which the experiment does not take" in faults
    assert "reports must be a whole number (its default is 3), got 0.5" in faults
    assert "cannot be 'a/b'" in faults


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": ["a", "b"]}, r"metric must be the name of one reported number, got \['a', 'b'\]"),
        ({"metric": None}, "metric must be the name of one reported number, got None"),
        ({"metric": ""}, "metric must be the name of one reported number, got ''"),
        ({"mode": None}, "mode must be 'min' or 'max', got None"),
        ({"space": [1]}, r"space must be a dict from the names of settings to their values, got \[1\]"),
        ({"defaults": None}, "defaults must be a dict"),
        ({"space": {"x": tune.grid_search([])}}, "lists no values for 'x'"),
        ({"space": {"x": tune.choice([])}}, "lists no values for 'x'"),
        ({"progress": "eval_f1"}, "progress must be a list of names of reported numbers, got 'eval_f1'"),
        ({"defaults": {**toy.DEFAULTS, "act": len}}, "default value of 'act' is a function.*make the setting a text"),
        ({"defaults": {**toy.DEFAULTS, "act": lambda each: each}}, "default value of 'act' is a function"),
        ({"defaults": {**toy.DEFAULTS, "act": [lambda each: each]}}, r"default value of 'act\.0' is a function"),
        ({"defaults": {**toy.DEFAULTS, "act": {"f": lambda each: each}}}, r"default value of 'act\.f' is a function"),
        ({"defaults": {**toy.DEFAULTS, "act": functools.cache(len)}}, "default value of 'act' is a function"),
        ({"defaults": {**toy.DEFAULTS, "act": np.tanh}}, "default value of 'act' is a function"),
        ({"defaults": {**toy.DEFAULTS, "act": math}}, "default value of 'act' is the module math.*import it"),
        ({"defaults": {**toy.DEFAULTS, "lock": threading.Lock()}}, "type lock, which cannot be sent.*: make it in the"),
        ({"defaults": {**toy.DEFAULTS, "act": None}, "space": {"act": len}}, "constant value of 'act' is a function"),
        ({"name": "e" * 300}, "at most 100 bytes, got 300"),
        ({"name": "é" * 60}, "at most 100 bytes, got 120"),
        ({"name": 3}, "name is used for folders, so it cannot be 3"),
        *[
            ({"name": name}, "name is used for folders, so it cannot be")
            for name in (
                "",
                "..",
                " ",
                " a",
                "a\nb",
                "*",
                "[b]",
                "what?",
                "a%2fb",
                "a\0",
                "--json",
                "$HOME",
                "a;b",
                "a\ud800",
                "🙂",
            )
        ],
        ({"space": {"": tune.uniform(0, 1)}, "defaults": {"": 0.5}}, "A setting cannot be called ''"),
        ({"defaults": {**toy.DEFAULTS, "x": HOLDS_ITSELF}}, "holds itself"),
        (
            {"defaults": {**toy.DEFAULTS, "l": 1}, "space": {"l": tune.choice([1, threading.Lock()])}},
            "a value for 'l' of",
        ),
        *[({"metric": name}, "metric must be the name of one reported") for name in (" ", " loss", "lo\nss")],
        ({"progress": [""]}, r"progress must be a list of names of reported numbers, got \[''\]"),
        ({"test": "f1"}, "test must be a function of a checkpoint and the settings, got 'f1'"),
        (
            {"test": lambda checkpoint: {}},
            r"test must be a function of a checkpoint and the settings, got .*checkpoint\)",
        ),
        ({"space": {1: tune.uniform(0, 1)}}, "Names of settings are texts, got 1"),
        ({"space": {"x": tune.uniform(1, 0)}}, "lists no values for 'x': from 1 to 0. Give the smaller bound first"),
        ({"space": {"reports": tune.randint(5, 5)}}, r"whole numbers from 5 to 5, .* Write tune.randint\(5, 6\)"),
        ({"space": {"reports": tune.qrandint(1, 2, 5)}}, "there is no multiple of 5 from 1 to 2"),
        *[
            ({"defaults": {**toy.DEFAULTS, "seed": seed}}, "A seed is a whole number from 0 to 4294967295, got")
            for seed in (-1, 2**32, "0", True, 1.5)
        ],
        ({"space": {"seed": tune.choice([1, -1])}, "defaults": {**toy.DEFAULTS, "seed": 1}}, "seed is a whole.*got -1"),
        ({"space": {"seed": tune.randint(-5, 5)}, "defaults": {**toy.DEFAULTS, "seed": 1}}, "seed is a whole.*got -5"),
    ],
)
def test_a_part_of_a_declaration_that_cannot_be_is_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        declare(**changes)
    assert len(caught.value.faults) == 1


def test_a_setting_that_the_function_does_not_take_is_named() -> None:
    def init(train_dataset: None, eval_dataset: None, learning_rate: float) -> None: ...

    trainer = TransformersTrainer(init, scaling_config=ScalingConfig(num_workers=1))
    with pytest.raises(ConfigurationError, match="init does not take the setting 'epochs'"):
        declare(trainer=trainer, defaults={"learning_rate": 0.1, "epochs": 1})
    with pytest.raises(ConfigurationError, match="init gets data as 'train_dataset', so no setting can be called that"):
        declare(trainer=trainer, defaults={"learning_rate": 0.1, "train_dataset": None})


@pytest.mark.parametrize("name", ["digits", "My runs", "größe", "a.b-c_d@e+f=g"])
def test_names_that_folders_can_have_are_taken(name: str) -> None:
    assert declare(name=name).name == name


def faults_of(**asked: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        toy.experiment.sweep(**asked)
    return "\n".join(caught.value.faults)


def test_all_mistakes_of_a_sweep_are_named_at_once_and_nothing_is_recorded(own_directory: Path) -> None:
    wrong = {"searcher": "tpr", "trial_scheduler": "ashaa", "workers": 9, "storage": "/proc/nowhere"}
    faults = faults_of(trials=0, set={"nonsense": 1, "reports": "three"}, name="not a name", **wrong)
    for part in (
        "toy has no setting 'nonsense'",
        "reports must be a whole number (its default is 3), got 'three'",
        "must be at least 1, got 0",
        "got 'not a name'",
        "no searcher 'tpr'. Did you mean 'tpe'?",
        "no trial scheduler 'ashaa'. Did you mean 'asha'?",
    ):
        assert part in faults
    # What takes longer is looked at where nothing else is wrong: a storage, then the cluster.
    assert "storage /proc/nowhere cannot be written to" in faults_of(workers=9, storage="/proc/nowhere")
    assert "A trial of 9 workers with 1 CPU each needs 9 CPU" in faults_of(workers=9)
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"name": ".."}, r"name may have letters, digits and \._-@\+= in it, no - first, got '\.\.'"),
        ({"name": "-s"}, "no - first, got '-s'"),
        ({"name": "s" * 300}, "at most 200 bytes, got 300"),
        ({"seed": 2**32}, "A seed is a whole number from 0 to 4294967295, got 4294967296"),
        ({"seed": "1"}, "A seed is a whole number from 0 to 4294967295, got '1'"),
        ({"set": {"x": float("nan")}}, "x cannot be nan"),
    ],
)
def test_a_wish_that_cannot_be_is_one_sentence(asked: dict[str, Any], message: str) -> None:
    assert re.search(message, said := faults_of(**asked))
    assert "\n" not in said


def test_a_sweeps_name_is_used_once(own_directory: Path) -> None:
    Path("results/other").mkdir(parents=True)
    Path("results/other/notes.txt").write_text("of somebody")
    with pytest.raises(ConfigurationError, match=r"There is something other than a sweep in .*/other: choose"):
        toy.experiment.sweep(name="other")
    Path("results/file").write_text("of somebody")
    with pytest.raises(ConfigurationError, match=r"There is something other than a sweep in .*/file: choose"):
        toy.experiment.sweep(name="file")
    lock = DriverLock(SweepDirectory.at("results", "taken"))
    lock.acquire()
    lock.close()  # what a driver leaves that is killed before its sweep has a record: nobody loses the name by that
    short: dict[str, Any] = {"name": "taken", "trials": 1, "searcher": "random", "workers": 1, "set": {"reports": 1}}
    assert toy.experiment.sweep(**short).exit_code == 0
    with pytest.raises(ConfigurationError, match=r"There is a sweep 'taken' in .* already"):
        toy.experiment.sweep(**short)


def test_a_name_that_another_driver_took_and_gave_back_meanwhile_is_not_used_again(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short: dict[str, Any] = {"name": "taken", "trials": 1, "searcher": "random", "workers": 1, "set": {"reports": 1}}
    toy.experiment.sweep(**short)
    record = Path("results/taken/.hfsuite/sweep.json").read_bytes()
    monkeypatch.setattr(checks, "check_storage", lambda *_: None)  # it was looked at before that
    with pytest.raises(ConfigurationError, match=r"There is a sweep 'taken' in .* already"):
        toy.experiment.sweep(**short)
    assert Path("results/taken/.hfsuite/sweep.json").read_bytes() == record


def test_a_server_that_does_not_answer_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"http://127\.0\.0\.1:9 does not answer") as caught:
        toy.experiment.sweep()
    assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_a_storage_that_does_not_answer_is_named_without_its_password(own_directory: Path) -> None:
    address = "s3://key:secret@bucket/sweeps?endpoint_override=http://127.0.0.1:9"
    with pytest.raises(ConfigurationError, match=r"The storage s3://bucket/sweeps\S* cannot be written to") as caught:
        toy.experiment.sweep(storage=address)
    assert "secret" not in str(caught.value)


def test_a_space_without_anything_to_search_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nothing to search"):
        toy.experiment.sweep(set={"x": 1.0, "kind": "plain"})
    with pytest.raises(ConfigurationError, match="lists x with grid_search"):
        declare(space={"x": tune.grid_search([1.0, 2.0])}).sweep()
    depends = declare(space={"x": tune.uniform(0, 1)}, only_where={"x": {"kind": ["fancy"]}})
    with pytest.raises(ConfigurationError, match="nothing to search"):
        depends.sweep()


def test_a_condition_sees_the_constants_of_a_space(own_directory: Path) -> None:
    space = {"x": tune.uniform(0.5, 0.9), "kind": "fancy"}
    depends = declare(space=space, only_where={"x": {"kind": ["fancy"]}})
    (trial,) = depends.sweep(trials=1, workers=1, set={"reports": 1}).trials
    assert 0.5 <= trial.config["x"] <= 0.9
    assert set(trial.searched) == {"x"}


def test_what_depends_on_something_that_is_fixed_to_another_value_is_named(
    own_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {"x": tune.uniform(0.5, 0.9), "measures_every": tune.randint(1, 3), "kind": tune.choice(["plain", "fancy"])}
    depends = declare(space=space, only_where={"measures_every": {"kind": ["fancy"]}})
    (trial,) = depends.sweep(trials=1, workers=1, set={"reports": 1, "kind": "neither"}).trials
    assert (
        "Not searched, since what they depend on is fixed to another value: measures_every." in capsys.readouterr().err
    )
    assert set(trial.searched) == {"x"}
    assert trial.idle == ["measures_every"]
    run = store.open_store().get_run(trial.run_id)
    assert "measures_every" not in run.data.params
    assert "measures_every" in trial.config


def test_a_searcher_must_be_a_name_or_rays() -> None:
    with pytest.raises(ConfigurationError, match="A searcher is a name or one of Ray Tune's"):
        toy.experiment.sweep(searcher=3)  # type: ignore[arg-type]


def test_gpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"2 workers with 1 GPU each needs 2 GPU.* it has 4 CPU"):
        toy.experiment.sweep(gpu=True)
    with pytest.raises(ConfigurationError, match=r"1 worker with 0\.25 GPU each needs 0\.25 GPU.* it has 4 CPU"):
        toy.experiment.sweep(gpu=0.25, workers=1)


def test_a_part_of_a_gpu_is_no_more_than_a_whole() -> None:
    for part in (0.0, 1e-9, 1.5, 2):
        with pytest.raises(ConfigurationError, match=rf"at least 0.0001 and at most 1, got {part:g}"):
            toy.experiment.sweep(gpu=part, workers=1)


def test_addresses_of_a_storage_can_be_opened_from_anywhere() -> None:
    assert address("/data/results/one/trial_000", "/data/results/one") == "/data/results/one/trial_000"
    assert address("bucket/sweeps/one/trial_000", "s3://bucket/sweeps/one") == "s3://bucket/sweeps/one/trial_000"
    with_region = "s3://bucket/sweeps/one/trial_000?region=eu-west-1"
    assert address("bucket/sweeps/one/trial_000", "s3://bucket/sweeps?region=eu-west-1") == with_region
