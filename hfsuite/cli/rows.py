"""Rows of tables: which are shown, in which order, and how. They are plain dicts, with settings in `config`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from hfsuite.errors import ConfigurationError, did_you_mean

Row = Mapping[str, Any]
WHOLE = ("sweep", "began", "state", "trials", "best", "hours")  # columns that are never broken into lines
COMPARED: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": lambda one, other: one >= other,
    "<=": lambda one, other: one <= other,
    "!=": lambda one, other: one != other,
    "=": lambda one, other: one == other,
    ">": lambda one, other: one > other,
    "<": lambda one, other: one < other,
}
CONDITION = re.compile(r"\s*([^<>=!]+?)\s*(>=|<=|!=|==|=|>|<)\s*(.*?)\s*")

Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="CONDITION", help='Only these: "state=completed", "learning_rate>1e-4".'),
]
Sort = Annotated[
    str | None, typer.Option("--sort", metavar="COLUMN", help="By this column; -COLUMN for the largest first.")
]


def chosen(rows: Sequence[Row], columns: Sequence[str], where: Sequence[str] | None, sort: str | None) -> list[Row]:
    """The rows that fulfil all conditions, in an order.

    Args:
        rows: all.
        columns: the names that conditions and order may have.
        where: conditions, such as "seconds<60"; what has no value fulfils none.
        sort: a column, with a "-" before it for the largest first; what has no value comes last.

    Raises:
        ConfigurationError: every condition that cannot be, and an unknown column.
    """
    faults, conditions = [], []
    for text in where or []:
        if (found := CONDITION.fullmatch(text)) is None:
            faults.append(f"--where takes a column, one of {' '.join(COMPARED)}, and a value, got {text!r}.")
        elif found[1] not in columns:
            faults.append(f"There is no column {found[1]!r}. {did_you_mean(found[1], columns)}")
        else:
            conditions.append((found[1], COMPARED["=" if found[2] == "==" else found[2]], found[3]))
    key = sort.removeprefix("-") if sort is not None else None
    if key is not None and key not in columns:
        faults.append(f"There is no column {key!r}. {did_you_mean(key, columns)}")
    if faults:
        raise ConfigurationError(faults)
    left = [
        row for row in rows if all(_fulfils(value_of(row, name), compare, text) for name, compare, text in conditions)
    ]
    if key is None:
        return left
    with_value = [row for row in left if value_of(row, key) is not None]
    numbers = {id(row): _as_number(value_of(row, key)) for row in with_value}
    as_texts = None in numbers.values()
    ordered = sorted(
        with_value,
        key=lambda row: (0.0, str(value_of(row, key))) if as_texts else (numbers[id(row)] or 0.0, ""),
        reverse=str(sort).startswith("-"),
    )
    return [*ordered, *(row for row in left if value_of(row, key) is None)]


def value_of(row: Row, name: str) -> Any:
    """Of a column, or a setting."""
    return row[name] if name in row else row.get("config", {}).get(name)


def drawn(rows: Sequence[Row], columns: Sequence[str], title: str = "") -> Table:
    """A table; columns without any value are left out."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="dim")
    shown = [name for name in columns if any(value_of(row, name) is not None for row in rows)]
    for name in shown:
        numbers = all(_as_number(value_of(row, name)) is not None for row in rows if value_of(row, name) is not None)
        title = name.replace("_", "\n") if numbers else name.replace("_", " ")
        table.add_column(title, justify="right" if numbers else "left", overflow="fold", no_wrap=name in WHOLE)
    for row in rows:
        table.add_row(*(told(name, value_of(row, name)) for name in shown))
    return table


def told(name: str, value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return ""
    if name == "began":
        moment = datetime.fromtimestamp(value)
        return moment.strftime("%m-%d %H:%M" if moment.year == datetime.now().year else "%Y-%m-%d")
    if name == "hours":
        return f"{value:.2g}"
    if name == "seconds":
        return f"{value:.0f}"
    number = _as_number(value)
    return str(value) if number is None or isinstance(value, int) else f"{number:.4g}"


def sparkline(values: Sequence[float], width: int = 40, among: Sequence[float] | None = None) -> str:
    """A curve in one line of text; what is no number leaves a gap.

    Args:
        values: of the curve.
        width: characters at most.
        among: values that are on the same scale, those of other curves too; None for the curve's own.
    """
    if len(values) > width:
        values = [values[round(place * (len(values) - 1) / (width - 1))] for place in range(width)]
    known = [each for each in (values if among is None else among) if math.isfinite(each)]
    if not known:
        return ""
    low, high = min(known), max(known)
    steps = "▁▂▃▄▅▆▇█"
    scale = (len(steps) - 1) / (high - low) if high > low else 0.0
    return "".join(steps[round((each - low) * scale)] if math.isfinite(each) else " " for each in values)


def _fulfils(value: Any, compare: Callable[[Any, Any], bool], text: str) -> bool:
    if value is None:
        return False
    one, other = _as_number(value), _as_number(text)
    return compare(one, other) if one is not None and other is not None else compare(str(value), text)


def _as_number(value: Any) -> float | None:
    try:
        return float(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError):
        return None
