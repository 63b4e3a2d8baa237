"""What results say of themselves at a prompt: a head, and a few lines of settings. Pure functions."""

from __future__ import annotations

SHOWN = 12  # settings
WIDTH = 100  # characters of a value


def listed(head: str, lines: list[str]) -> str:
    """The head, and as many lines as are read at a glance."""
    more = [f"  and {len(lines) - SHOWN} more settings"] if len(lines) > SHOWN else []
    return "\n".join([head, *lines[:SHOWN], *more])


def cut(text: str) -> str:
    """As much of a value as fits a line."""
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."
