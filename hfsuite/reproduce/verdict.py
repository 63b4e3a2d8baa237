"""Whether a repetition came out as the run that it repeats: bitwise, within tolerance, or diverged. Pure functions."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hfsuite.reproduce.plan import Difference, Weight
from hfsuite.reproduce.recorded import Curves, RecordedRun
from hfsuite.reproduce.weights import WeightDistance

SINGLE_BITS = 1.3e-6  # what torch.testing.assert_close allows in one operation of float32
HALF_BITS = 1.6e-2  # likewise of bfloat16


class Verdict(enum.StrEnum):
    """What can be said of a repetition, never more than the evidence holds."""

    BITWISE = "BITWISE"
    """All reported numbers, the losses of all steps and the weights are equal to the last bit."""

    WITHIN_TOLERANCE = "WITHIN TOLERANCE"
    """No reported number differs by more than the tolerance."""

    DIVERGED = "DIVERGED"
    """Some reported number differs by more, or is missing."""


@dataclass(frozen=True)
class Tolerance:
    """How far two numbers may be apart, relative to the larger one.

    Args:
        relative: the share.
        origin: where it comes from, in words.
    """

    relative: float
    origin: str


@dataclass(frozen=True)
class Apart:
    """Where two runs are apart.

    Args:
        metric: which number.
        step: at which optimizer step.
        ours: as recorded.
        theirs: as repeated; None if it was not reported.
        relative: how far, relative to the larger one.
    """

    metric: str
    step: int
    ours: float
    theirs: float | None
    relative: float


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict with its reasons.

    Args:
        verdict: the verdict.
        tolerance: that it was judged by.
        compared: how many numbers were compared.
        largest: the largest difference; None if there is none.
        began_at: the first optimizer step at which anything differs.
        left_at: the first difference beyond the tolerance.
        weights: what is known of the weights, in words.
        weights_equal: whether they are the same; None if that is not known.
        distance: how far they are apart, if that is known.
        causes: differences of the plan that can explain it, the likeliest first.
        losses_compared: how many optimizer steps' losses were.
    """

    verdict: Verdict
    tolerance: Tolerance
    compared: int
    largest: Apart | None
    began_at: int | None
    left_at: Apart | None
    weights: str
    weights_equal: bool | None
    distance: WeightDistance | None
    causes: Sequence[Difference] = field(default=())
    losses_compared: int = 0


def judge(
    recorded: RecordedRun,
    repeated: RecordedRun,
    plan: Sequence[Difference],
    tolerance: Tolerance,
    distance: WeightDistance | None = None,
) -> Judgement:
    """Compares a repetition with the run that it repeats.

    Args:
        recorded: the run.
        repeated: its repetition.
        plan: what was different.
        tolerance: beyond which it has diverged.
        distance: of their weights, if both are there.
    """
    apart = _all_apart(recorded.curves, repeated.curves)
    losses = _steps_apart(recorded.loss_bits, repeated.loss_bits, recorded.recipe["last_step"])
    equal, said = _weights(recorded, repeated, distance)
    beyond = [each for each in apart if not each.relative <= tolerance.relative]
    left_at = min(beyond, key=lambda each: each.step, default=None)
    is_bitwise = (
        not apart and not losses.apart and equal is True and recorded.recipe["workers"] == repeated.recipe["workers"]
    )
    verdict = Verdict.WITHIN_TOLERANCE
    if left_at is not None or not recorded.curves:
        verdict = Verdict.DIVERGED
    elif is_bitwise:
        verdict = Verdict.BITWISE
    began = [each.step for each in apart] + losses.apart
    causes = [each for each in plan if each.weight > Weight.NOTHING] if verdict is not Verdict.BITWISE else []
    return Judgement(
        verdict=verdict,
        tolerance=tolerance,
        compared=sum(len(points) for points in recorded.curves.values()),
        largest=max(apart, key=lambda each: each.relative, default=None),
        began_at=min(began, default=None),
        left_at=left_at,
        weights=said,
        weights_equal=equal,
        distance=distance,
        causes=causes,
        losses_compared=losses.compared,
    )


def default_tolerance(recorded: RecordedRun, *, workers: int) -> Tolerance:
    """What rounding can do to a training of this length and precision; for another world size, what chance can do.

    A difference of rounding begins at what one operation may differ by, and grows with each step that builds on it. No
    bound is known; that it grows no faster than the steps was seen with room to spare (docs/reproduce.md).
    """
    if workers != recorded.recipe["workers"]:
        return Tolerance(0.1, "a tenth: with another world size only the outcome can be compared, not the bits")
    steps = max(1, recorded.recipe["last_step"])
    is_half = any("bf16" in str(value) or value == "fp16" for value in recorded.recipe["config"].values())
    one = HALF_BITS if is_half else SINGLE_BITS
    kind = "bfloat16" if is_half else "float32"
    return Tolerance(
        min(0.1, one * steps),
        f"{one:g}, which torch.testing allows one operation in {kind}, for each of {steps:,} steps",
    )


@dataclass(frozen=True)
class _Losses:
    compared: int
    apart: list[int]


def _steps_apart(ours: Mapping[int, str], theirs: Mapping[int, str], last_step: int) -> _Losses:
    both = sorted(step for step in set(ours) & set(theirs) if step <= last_step)
    return _Losses(len(both), [step for step in both if ours[step] != theirs[step]])


def _all_apart(ours: Curves, theirs: Curves) -> list[Apart]:
    """Every recorded number that was not reported again as it was."""
    found = []
    for metric, points in ours.items():
        for step, value in points.items():
            again = theirs.get(metric, {}).get(step)
            relative = _relative(value, again)
            if relative > 0:
                found.append(Apart(metric, step, value, again, relative))
    return found


def _relative(one: float, other: float | None) -> float:
    if other is None:
        return math.inf
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.inf
    return abs(one - other) / max(abs(one), abs(other))


def _weights(recorded: RecordedRun, repeated: RecordedRun, distance: WeightDistance | None) -> tuple[bool | None, str]:
    """Whether the weights of the last checkpoint are equal, as far as that is known, and how it is known."""
    last = recorded.recipe["last"]
    if last is None or last["weights"] is None:
        if distance is not None and distance.largest == 0:
            return None, f"those kept at step {distance.step} are equal; the last ones were not recorded"
        return None, "not recorded"
    step, digest = last["step"], last["weights"]
    again = repeated.weights.get(step)
    if again is None:
        return None, f"the repetition has no checkpoint of step {step}"
    if again == digest:
        return True, f"equal at step {step}, by their digest"
    if distance is None:
        return False, f"not equal at step {step}, by their digest; they are not in MLflow to be compared"
    if distance.largest == 0 and distance.step == step:
        return True, f"equal at step {step}, each of them"
    apart = f"largest difference {distance.largest:.3g} in {distance.tensor}, {distance.relative:.3g} of their norm"
    return False, f"not equal at step {step}; at step {distance.step}: {apart}"
