"""Values of settings in Python's own types, whoever drew or read them. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def own_value(value: Any, default: Any = None) -> Any:
    """A value in Python's own types, whoever drew it: NumPy's numbers, texts and truths are Python's, at any depth.

    Args:
        value: of a setting.
        default: its default value: a list stands for a tuple, since JSON knows no tuples.
    """
    if isinstance(value, dict):
        return {name: own_value(each) for name, each in value.items()}
    if isinstance(value, list) or type(value) is tuple:
        inside = [own_value(each) for each in value]
        return tuple(inside) if isinstance(value, tuple) or isinstance(default, tuple) else inside
    is_of_numpy = type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0
    return value.item() if is_of_numpy else value


def own_values(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Likewise of all settings."""
    return {name: own_value(value, defaults.get(name)) for name, value in values.items()}
