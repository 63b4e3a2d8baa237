"""How a verdict is told: as JSON, in Markdown, as a picture; and written into both runs. Driver."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hfsuite.reproduce.plan import Difference
from hfsuite.reproduce.recorded import RecordedRun
from hfsuite.reproduce.verdict import Apart, Judgement, Verdict
from hfsuite.tracking import runs

if TYPE_CHECKING:
    import mlflow
    from matplotlib.figure import Figure

FOLDER = "reproduction"  # the artifact folder; in it one for each repetition
SHOWN_CURVES = 6
COUNTERS = {"epoch", "step", "samples", "training_iteration"}  # straight lines


def as_json(
    run_id: str, repeated_by: str, title: str, plan: Sequence[Difference], judgement: Judgement
) -> dict[str, Any]:
    """Plain values."""
    distance = judgement.distance
    return {
        "verdict": str(judgement.verdict),
        "run_id": run_id,
        "repeated_by": repeated_by,
        "title": title,
        "compared": judgement.compared,
        "losses_compared": judgement.losses_compared,
        "tolerance": judgement.tolerance.relative,
        "tolerance_origin": judgement.tolerance.origin,
        "statistical": judgement.tolerance.statistical,
        "losses": judgement.losses,
        "largest": _apart_as_json(judgement.largest),
        "began_at": judgement.began_at,
        "left_at": _apart_as_json(judgement.left_at),
        "weights": judgement.weights,
        "weights_equal": judgement.weights_equal,
        "weights_largest_difference": _finite(distance.largest) if distance is not None else None,
        "plan": [each.as_json() for each in plan],
        "causes": [each.subject for each in judgement.causes],
    }


def reasons(judgement: Judgement) -> list[str]:
    """Why the verdict is what it is, a sentence each."""
    said = [f"{judgement.compared} reported numbers were compared; {judgement.losses}."]
    largest, left = judgement.largest, judgement.left_at
    if largest is None and judgement.began_at is None:
        said.append("All numbers are equal to the last bit.")
    elif judgement.began_at is not None:
        said.append(f"The first difference is at step {judgement.began_at}.")
    if largest is not None:
        said.append(f"The largest: {_said(largest)}.")
    said.append(f"Weights: {judgement.weights}.")
    if judgement.verdict is not Verdict.BITWISE:
        tolerance = judgement.tolerance
        said.append(f"Tolerance: {tolerance.relative:.2g} of the larger number ({tolerance.origin}).")
    if judgement.tolerance.statistical:
        said.append("The verdict is statistical: the two did not compute the same sums.")
    if left is not None:
        said.append(f"It left the tolerance at step {left.step}: {_said(left)}.")
    if judgement.causes and (left is not None or judgement.began_at is not None):
        causes = "; ".join(f"{each.subject} ({each.effect})" for each in judgement.causes)
        said.append(f"What can explain it: {causes}.")
    elif judgement.verdict is Verdict.DIVERGED:
        said.append(
            "Nothing that was recorded explains it: the training itself may draw or compute what no seed decides."
        )
    return said


def record(
    client: mlflow.MlflowClient, run: RecordedRun, again: RecordedRun, found: Mapping[str, Any], judgement: Judgement,
    *, as_recorded: bool,
) -> None:  # fmt: skip
    """Writes verdict, table and picture into both runs, as artifacts and tags.

    Args:
        client: of the tracking store.
        run: the run that was repeated.
        again: its repetition.
        found: the verdict as JSON.
        judgement: the same.
        as_recorded: whether it was asked to be the same; otherwise the verdict says nothing of the run that is there.
    """
    text, picture = _markdown(run, again, found, judgement), overlay(run, again)
    for one, other in ((run, again), (again, run)):
        folder = f"{FOLDER}/{other.run_id[:8]}"
        client.log_dict(one.run_id, dict(found), f"{folder}/verdict.json")
        client.log_text(one.run_id, text, f"{folder}/verdict.md")
        if picture is not None:
            client.log_figure(one.run_id, picture, f"{folder}/curves.png")
        if one is again or as_recorded:
            client.set_tag(one.run_id, runs.VERDICT, str(judgement.verdict))
    client.set_tag(run.run_id, runs.REPEATED_BY, again.run_id)


def overlay(run: RecordedRun, again: RecordedRun) -> Figure | None:
    """The curves of both runs, one over the other; None where there is none to draw."""
    curves = {name: points for name, points in run.curves.items() if name not in COUNTERS}
    names = [name for name, points in curves.items() if len(points) > 1 and len(set(points.values())) > 1]
    names = sorted(names, key=lambda name: (name != run.recipe["metric"], "loss" not in name, name))[:SHOWN_CURVES]
    if not names:
        return None
    from matplotlib.figure import Figure

    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows), layout="constrained")
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.plot(*_line(run.curves[name]), color="#9ecae1", linewidth=5, label="recorded")
        axes.plot(*_line(again.curves.get(name, {})), color="#08306b", linewidth=1.3, label="repeated")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("optimizer step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(fontsize=8, frameon=False)
    return figure


def _line(points: Mapping[int, float]) -> tuple[list[int], list[float]]:
    return list(points), list(points.values())


def _markdown(run: RecordedRun, again: RecordedRun, found: Mapping[str, Any], judgement: Judgement) -> str:
    lines = [
        f"# {judgement.verdict}",
        "",
        f"{run.title} (run {run.run_id}), repeated by run {again.run_id}.",
        "",
        *(f"- {each}" for each in reasons(judgement)),
        "",
        "| different | recorded | here | what it can do |",
        "| --- | --- | --- | --- |",
        *(f"| {each['subject']} | {each['recorded']} | {each['here']} | {each['effect']} |" for each in found["plan"]),
    ]
    return "\n".join([*lines, ""] if found["plan"] else [*lines[:-2], "Nothing was different.", ""])


def _apart_as_json(apart: Apart | None) -> dict[str, Any] | None:
    if apart is None:
        return None
    return {
        "metric": apart.metric,
        "step": apart.step,
        "recorded": _finite(apart.ours),
        "repeated": _finite(apart.theirs),
        "relative": _finite(apart.relative),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _said(apart: Apart) -> str:
    if apart.theirs is None:
        return f"{apart.metric} was {apart.ours:.6g} at step {apart.step}, and was not reported again"
    share = f", {apart.relative:.2g} apart" if math.isfinite(apart.relative) else ""
    return f"{apart.metric} at step {apart.step}, {apart.ours:.9g} and {apart.theirs:.9g}{share}"
