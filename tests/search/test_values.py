"""Types of settings, and texts from the command line."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hfsuite.own_values import own_value
from hfsuite.search.values import parse_value, type_fault


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("3", 1, 3),
        ("3e-5", 0.1, 3e-5),
        ("3", 0.1, 3.0),
        ("true", False, True),
        ("3", "text", "3"),
        ("[1, 2]", None, [1, 2]),
        ("1e-4", None, 1e-4),
        ("[9e-1,99e-2]", [0.9, 0.999], [0.9, 0.99]),
        ("[9e-1, 99e-2]", (0.9, 0.999), (0.9, 0.99)),
        ("(0.9, 0.99)", (0.9, 0.999), (0.9, 0.99)),
        ("012", None, 12),
        ("no", None, "no"),
        ("1:30", None, "1:30"),
        ("2024-01-01", None, "2024-01-01"),
        ("None", None, None),
        ("null", None, None),
        ("true", None, True),
        ("{a: 1e-3, b: [no, 0x1f]}", None, {"a": 1e-3, "b": ["no", 31]}),
        ("((1,2),(3,4))", None, ((1, 2), (3, 4))),
        ("((1, 2), (3, 4))", ((0, 0),), ((1, 2), (3, 4))),
        ("[[1, 2], [3, 4]]", [(0, 0)], [(1, 2), (3, 4)]),
        ("[1, 1]", (0.9, 0.999), (1.0, 1.0)),
        ("(linear, cosine)", ("linear",), ("linear", "cosine")),
        ("Infinity", 1.0, math.inf),
        ("-inf", 1.0, -math.inf),
        ("a #b", None, "a #b"),
        ("0b101", 1, 5),
        ("-0x1f", None, -31),
        ("1+2j", None, "1+2j"),
        ("3", np.int64(1), 3),
        ("3", np.float32(0.5), 3.0),
    ],
)
def test_texts_are_read_as_the_settings_type(text: str, default: Any, value: Any) -> None:
    read, fault = parse_value("key", text, default)
    assert fault is None
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(("text", "default"), [("2.5", 1), ("abc", 0.1), ("yes", False), ("", 3)])
def test_texts_of_another_type_are_refused_with_the_value(text: str, default: Any) -> None:
    value, fault = parse_value("epochs", text, default)
    assert value is None
    assert fault is not None
    assert repr(text) in fault


@pytest.mark.parametrize(
    ("value", "default", "fits"),
    [
        (1, 2, True),
        (1.5, 2, False),
        (1, 2.0, True),
        (True, 2, False),
        (True, 2.0, False),
        ("a", "b", True),
        (1, None, True),
    ],
)
def test_a_whole_number_may_stand_for_any_number_and_nothing_else_may(value: Any, default: Any, fits: bool) -> None:
    assert (type_fault("key", value, default) is None) is fits


def test_values_are_pythons_own_whoever_drew_them() -> None:
    drawn = {
        "a": np.str_("x"),
        "b": np.bool_(True),
        "c": [np.int64(3), (np.float32(0.5),)],
        "d": {"e": np.float64(1.0)},
    }
    found = own_value(drawn)
    assert found == {"a": "x", "b": True, "c": [3, (0.5,)], "d": {"e": 1.0}}
    kinds = [type(found["a"]), type(found["b"]), type(found["c"][0]), type(found["c"][1][0]), type(found["d"]["e"])]
    assert kinds == [str, bool, int, float, float]
    assert own_value([0.9, 0.99], (0.9, 0.999)) == (0.9, 0.99)
    assert own_value([[1, 2], [3, 4]], ((0, 0),)) == ((1, 2), (3, 4))
    assert own_value({"a": [1, 2]}, {"a": (0, 0)}) == {"a": (1, 2)}
    assert [repr(own_value(value, 0.5)) for value in (1, np.int64(1), True, None)] == ["1.0", "1.0", "True", "None"]


def test_numpys_numbers_and_lists_for_tuples_fit() -> None:
    assert type_fault("key", np.int64(3), 1) is None
    assert type_fault("key", [0.9, 0.99], (0.9, 0.999)) is None
    assert type_fault("key", np.bool_(True), 1) is not None
