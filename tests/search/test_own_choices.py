"""Choices that are not plain: searchers get texts, and from those and from files the experiment's own come back."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

from hfsuite.cli.settings import parse_settings
from hfsuite.errors import ConfigurationError
from hfsuite.own_values import as_text, as_written
from hfsuite.search.own_choices import OwnChoices, check_read
from hfsuite.search.searchers import check_searcher
from tests.choices import SPACE, Colour, Kind, Large, Small, experiment
from tests.search.test_optuna_search import finish, searcher_for

OWN = OwnChoices.of(experiment.space, experiment.defaults)


def square(x: int) -> int:
    return x * x


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_optuna_gets_texts_and_warns_of_nothing_also_when_it_goes_on(name: str, tmp_path: Path) -> None:
    told, defaults = OWN.told(SPACE), OWN.told(experiment.defaults)
    drawn: list[dict[str, Any]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check_searcher(name, told)
        for trials in (range(6), range(6, 12)):
            searcher = searcher_for(told, name, directory=tmp_path, defaults=defaults)
            if trials[0]:
                searcher.restore(str(tmp_path / "state"))
            for number in trials:
                drawn.append(OWN.read(searcher.suggest(f"t{number}")["settings"]))
                finish(searcher, f"t{number}", 0.5)
            searcher.save(str(tmp_path / "state"))
    assert {each["betas"] for each in drawn} == {(0.9, 0.99), (0.9, 0.999)}
    assert {each["model"] for each in drawn} == {Small, Large}
    assert {each["other"] for each in drawn} == {None, Small, Large}
    assert {each["colour"] for each in drawn} == {Colour.RED, Colour.BLUE}
    assert {type(each["kind"]) for each in drawn} == {Kind}


def test_a_condition_may_name_a_choice_that_is_not_plain() -> None:
    conditions = OWN.told_conditions({"x": {"model": [Large]}})
    searcher = searcher_for(
        OWN.told({"x": SPACE["x"], "model": SPACE["model"]}), only_where=conditions, defaults=OWN.told({"x": 1.0})
    )
    proposals = [OWN.read(searcher.suggest(f"t{number}")["settings"]) for number in range(8)]
    assert {each["model"] for each in proposals} <= {Small, Large}
    assert all((each["x"] == 1.0) is (each["model"] is Small) for each in proposals)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("betas", (0.9, 0.999)), ("model", Large), ("other", None), ("other", Small), ("colour", Colour.BLUE),
        ("kind", Kind.FANCY), ("x", 0.7), ("seed", 3),
    ],
)  # fmt: skip
def test_a_value_comes_back_from_a_text_and_from_a_file(name: str, value: Any) -> None:
    told = OWN.told({name: value})
    assert told == json.loads(json.dumps(told)) or isinstance(value, tuple)
    for found in (told[name], as_written(value), value):
        read = OWN.read({name: found})[name]
        assert (read, type(read)) == (value, type(value))
        assert OWN.read({name: read}) == {name: read}


def test_choices_of_one_text_are_told_apart_and_what_a_file_cannot_tell_is_said() -> None:
    functions, lists = [lambda: 1, lambda: 2, square], [[1, 2], (1, 2), "[1, 2]"]
    own = OwnChoices.of({"f": tune.choice(functions), "l": tune.choice(lists)}, {"f": None, "l": None})
    told = own.told({"f": tune.choice(functions), "l": tune.choice(lists)})
    for name, values in (("f", functions), ("l", lists)):
        texts = told[name].categories
        assert len(set(texts)) == 3
        assert [own.read({name: text})[name] for text in texts] == values
    assert "0x" not in "".join(told["f"].categories), "the same in each process"
    assert own.faults({"f": as_text(square)}, ["f"]) == []
    (fault,) = own.faults({"f": "<function gone>"}, ["f"])
    assert fault == (
        "f was <function gone>, which no file can hold, and which is neither its default nor one of the values that "
        "the search space lists for it: list it there (tune.choice), or give another value."
    )
    with pytest.raises(ConfigurationError, match="which no file can hold"):
        check_read(own, {"f": "<function gone>"}, ["f"])


def test_plain_choices_stay_as_they_are() -> None:
    space = {"n": tune.choice([np.int64(8), 16]), "t": tune.choice(["a", None, True]), "u": tune.uniform(0, 1)}
    own = OwnChoices.of(space, {"n": 8, "t": None, "u": 0.5})
    told = own.told(space)
    assert [repr(each) for each in told["n"].categories] == ["8", "16"]
    assert told["t"].categories == ["a", None, True]
    assert told["u"] is space["u"]
    assert own.read({"n": np.int64(8), "t": np.str_("a"), "u": np.float64(0.25)}) == {"n": 8, "t": "a", "u": 0.25}
    assert own.told({"g": {"grid_search": [Small, 1]}}) == {"g": {"grid_search": [Small, 1]}}, "nobody's setting"


def test_a_function_of_other_settings_sees_them_as_they_are() -> None:
    space = {"model": tune.choice([Small, Large]), "size": tune.sample_from(lambda spec: spec.config.model.size)}
    assert OwnChoices.of(space, {"model": Small, "size": 1}).told(space) == space


def test_on_the_command_line_a_choice_is_given_by_its_text(tmp_path: Path) -> None:
    (file := tmp_path / "settings.json").write_text(json.dumps({"model": as_text(Large), "other": "<class 'gone'>"}))
    values, faults = parse_settings(experiment, ["colour=Colour.BLUE", "betas=(0.9, 0.999)", "kind=fancy"], file)
    assert faults == []
    assert values["colour"] is Colour.BLUE
    assert values["kind"] is Kind.FANCY
    assert (values["model"], values["betas"]) == (Large, (0.9, 0.999))
    (fault,) = parse_settings(experiment, ["colour=blue"])[1]
    assert "got 'blue'. On the command line it can be Colour.RED or Colour.BLUE, and" in fault
    _, faults = parse_settings(experiment, [], file, ["model", "other"])
    assert len(faults) == 1
    assert faults[0].startswith("other was <class 'gone'>, which no file can hold")


def test_what_no_choice_is_becomes_what_a_file_would_give_back() -> None:
    choices = OwnChoices.of({"pair": tune.choice([(1, 2), (3, 4)])}, {"pair": None, "x": None, "betas": ((0.9, 0.99),)})
    read = {"pair": (3, 4), "x": ((1, 2), (3, 4)), "betas": [[0, 1]]}
    assert choices.read(read) == {"pair": (3, 4), "x": [[1, 2], [3, 4]], "betas": ((0.0, 1.0),)}
    assert choices.read(json.loads(json.dumps(choices.read(read)))) == choices.read(read)
