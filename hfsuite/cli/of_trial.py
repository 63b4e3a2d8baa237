"""One trial, or a training on its own, as MLflow has it: for commands that show it. Driver."""

from __future__ import annotations

from typing import Any


def trial(client: Any, name: str) -> dict[str, Any]:
    """What is known of it, as plain values; of its settings those that count at its best report.

    Args:
        client: of the tracking store.
        name: of its run: an id, the first letters of one, SWEEP:best, SWEEP:3, the name of a training.

    Raises:
        UnknownName: there is none, with the nearest names.
    """
    from hfsuite.reproduce import recorded
    from hfsuite.tracking import listing, runs

    run = recorded.find(client, name)
    found, tags = recorded.read(client, run, whole=False), run.data.tags
    return {
        "title": found.title,
        "run_id": run.info.run_id,
        "state": tags.get(runs.STATE),
        "why": tags.get(runs.WHY),
        "metric": tags[runs.METRIC],
        "config": {name: each for name, each in found.config_at_best.items() if name not in found.idle},
        "searched": list(found.recipe.get("searched", [])),
        "best": found.recipe.get("best"),
        "curves": {name: sorted(points.items()) for name, points in found.curves.items()},
        "path": f"{tags[runs.PATH]}/trial_{int(tags.get(runs.TRIAL, 0)):03d}",
        "failure": recorded.failure(client, run),
        **listing.own(tags),
    }
