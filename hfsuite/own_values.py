"""Values of settings in Python's own types, whoever drew or read them. Pure functions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # in the texts of functions and objects: another one in each process


def own_value(value: Any, default: Any = None) -> Any:
    """A value in Python's own types, whoever drew it: NumPy's numbers, texts and truths are Python's, at any depth.

    Args:
        value: of a setting.
        default: its default value, whose types decide at any depth: a list stands for a tuple, since JSON knows no
            tuples, and a whole number for any. Of a list that is longer, the last type goes on.
    """
    if isinstance(value, dict):
        parts = default if isinstance(default, dict) else {}
        return {name: own_value(each, parts.get(name)) for name, each in value.items()}
    if isinstance(value, list) or type(value) is tuple:
        models = list(default) if isinstance(default, list | tuple) else []
        last = len(models) - 1
        inside = [own_value(each, models[min(place, last)] if models else None) for place, each in enumerate(value)]
        return tuple(inside) if isinstance(value, tuple) or isinstance(default, tuple) else inside
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    return float(value) if type(value) is int and type(default) is float else value


def own_values(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Likewise of all settings."""
    return {name: own_value(value, defaults.get(name)) for name, value in values.items()}


def as_text(value: Any) -> str:
    """What stands for a value that no file can hold: the same text in each process."""
    return ADDRESS.sub("", str(value))


def as_written(value: Any) -> Any:
    """What comes back of a value from a file of JSON: of a tuple a list, of a class or an enum a text."""
    try:
        return json.loads(json.dumps(value, default=as_text))
    except (TypeError, ValueError):  # names that are no texts, or a circle
        return as_text(value)


def is_written(value: Any) -> bool:
    """Whether a file can hold it; a tuple comes back as a list."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def json_value(value: Any) -> Any:
    """JSON knows neither NaN nor infinity, nor what a user may report beside numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): json_value(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(each) for each in value]
    return value if isinstance(value, int | float | str) or value is None else str(value)
