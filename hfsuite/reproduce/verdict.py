"""Whether a repetition came out as the run that it repeats: bitwise, within tolerance, or diverged. Pure functions."""

from __future__ import annotations

import enum
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hfsuite.reproduce.plan import Difference, Weight
from hfsuite.reproduce.recorded import Curves, RecordedRun, same_number
from hfsuite.reproduce.weights import WeightDistance

OF_ONE_OPERATION = {"no": 1.3e-6, "fp16": 1e-3, "bf16": 1.6e-2}  # what torch.testing.assert_close allows, relative
LARGEST = 1.6e-2  # beyond, another seed would do as well
ABSOLUTE = 1e-5  # what torch.testing allows besides, in float32
STATISTICAL = 0.1
COUNTED = 1e-3  # how near to a whole number of rows an accuracy is, which was computed in float32
MEAN_LOSS = "train_loss"  # Transformers reports it once, at the end
OF_WEIGHTS = 10  # a weight without a gradient to speak of drifts further than any number that is reported


class Verdict(enum.StrEnum):
    """What can be said of a repetition, never more than the evidence holds."""

    BITWISE = "BITWISE"
    """All reported numbers, the losses of all steps and the weights are equal to the last bit."""

    WITHIN_TOLERANCE = "WITHIN TOLERANCE"
    """No reported number differs by more than the tolerance, nor do the weights by ten times as much."""

    DIVERGED = "DIVERGED"
    """Some reported number differs by more, or is missing."""


@dataclass(frozen=True)
class Tolerance:
    """How far two numbers may be apart, relative to the larger one.

    Args:
        relative: the share.
        origin: where it comes from, in words.
        absolute: how far besides, whatever their size.
        statistical: whether only the outcome can be compared, since the two did not compute the same.
    """

    relative: float
    origin: str
    absolute: float = ABSOLUTE
    statistical: bool = False


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
        weights_equal: whether the last ones are the same; None if that is not known.
        distance: how far kept ones are apart, if that is known.
        causes: differences of the plan that can explain it, the likeliest first.
        losses_compared: how many optimizer steps' losses were.
        losses: what is known of them, in words.
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
    losses: str = ""


def judge(
    recorded: RecordedRun,
    repeated: RecordedRun,
    plan: Sequence[Difference],
    tolerance: Tolerance,
    distance: WeightDistance | str = "MLflow was not asked",
) -> Judgement:
    """Compares a repetition with the run that it repeats.

    Args:
        recorded: the run.
        repeated: its repetition.
        plan: what was different.
        tolerance: beyond which it has diverged.
        distance: of their kept weights, or why it is not known.
    """
    rows = _evaluated_rows(recorded)
    curves = _comparable(recorded, repeated)
    apart = _all_apart(curves, repeated.curves)
    losses = _losses(recorded.loss_bits, repeated.loss_bits, recorded.recipe["last_step"])
    known = distance if isinstance(distance, WeightDistance) else None
    equal, said = _weights(recorded, repeated, distance)
    left_at = min(
        (each for each in apart if _is_beyond(each, tolerance, rows)), key=lambda each: each.step, default=None
    )
    weights_left = known is not None and not known.relative <= OF_WEIGHTS * tolerance.relative
    is_same = not apart and not losses.apart and equal is True
    verdict = Verdict.WITHIN_TOLERANCE
    if left_at is not None or weights_left:
        verdict = Verdict.DIVERGED
    elif is_same and not tolerance.statistical:
        verdict = Verdict.BITWISE
    began = [each.step for each in apart] + losses.apart
    return Judgement(
        verdict=verdict,
        tolerance=tolerance,
        compared=sum(len(points) for points in curves.values()),
        largest=max(apart, key=lambda each: each.relative, default=None),
        began_at=min(began, default=None),
        left_at=left_at,
        weights=said,
        weights_equal=equal,
        distance=known,
        causes=[each for each in plan if each.weight > Weight.NOTHING] if verdict is not Verdict.BITWISE else [],
        losses_compared=losses.compared,
        losses=losses.said,
    )


def default_tolerance(recorded: RecordedRun, *, workers: int) -> Tolerance:
    """What rounding can do to a training of this length and precision; for another world size, what chance can do.

    A difference of rounding begins at what one operation may differ by, and grows with each step that builds on it. No
    bound is known; that it grows no faster than the steps was seen with room to spare (docs/reproduce.md).
    """
    if workers != recorded.recipe["workers"] or recorded.recipe.get("changed_workers"):
        return Tolerance(
            STATISTICAL, "a tenth: with another world size only the outcome can be compared", statistical=True
        )
    steps, precision = max(1, recorded.recipe["last_step"]), str(recorded.facts.get("precision", "no"))
    one = OF_ONE_OPERATION.get(precision, LARGEST)
    kind = "float32" if precision == "no" else precision
    origin = f"{one:g}, which torch.testing allows one operation in {kind}, for each of {steps:,} steps"
    return Tolerance(min(LARGEST, one * steps), origin if one * steps <= LARGEST else f"{LARGEST:g} at most")


@dataclass(frozen=True)
class _Losses:
    compared: int
    apart: list[int]
    said: str


def _losses(ours: Mapping[int, str], theirs: Mapping[int, str], last_step: int) -> _Losses:
    """The steps at which the losses are not the same, or known of one run only."""
    steps = sorted(step for step in {*ours, *theirs} if step <= last_step)
    apart = [step for step in steps if ours.get(step) != theirs.get(step)]
    both = sum(step in ours and step in theirs for step in steps)
    if not steps:
        return _Losses(0, [], "the losses of single steps were not recorded")
    if both < len(steps):
        return _Losses(both, apart, f"the losses of {len(steps) - both} optimizer steps are known of one run only")
    told = "all are equal" if not apart else f"{len(apart)} are not equal"
    return _Losses(both, apart, f"of the losses of {both} optimizer steps {told}")


def _evaluated_rows(run: RecordedRun) -> list[int]:
    """The sizes of its evaluation datasets."""
    return [each["rows"] for each in run.facts.get("inputs", []) if each["context"] == "evaluation" and each["rows"]]


def _is_beyond(apart: Apart, tolerance: Tolerance, rows: Sequence[int]) -> bool:
    """Of what is counted in rows, an accuracy, one row may tip: it does so for the last bit of a logit."""
    if apart.theirs is None or not (math.isfinite(apart.ours) and math.isfinite(apart.theirs)):
        return True
    gap = abs(apart.ours - apart.theirs)
    if gap <= tolerance.relative * max(abs(apart.ours), abs(apart.theirs)) + tolerance.absolute:
        return False
    counted = (
        count
        for count in rows
        if all(abs(each * count - round(each * count)) < COUNTED for each in (apart.ours, apart.theirs))
    )
    return not any(gap <= (1 + COUNTED) / count for count in counted)


def _comparable(recorded: RecordedRun, repeated: RecordedRun) -> Curves:
    """What was reported; where a run was taken up again, without Transformers' mean loss of the steps since then."""
    if not (recorded.recipe["restarts"] or repeated.recipe["restarts"]):
        return recorded.curves
    return {name: points for name, points in recorded.curves.items() if name != MEAN_LOSS or len(points) > 1}


def _all_apart(ours: Curves, theirs: Curves) -> list[Apart]:
    """Every recorded number that was not reported again as it was."""
    found = []
    for metric, points in ours.items():
        for step, value in points.items():
            again = theirs.get(metric, {}).get(step)
            if again is None or not same_number(value, again):
                found.append(Apart(metric, step, value, again, _relative(value, again)))
    return found


def _relative(one: float, other: float | None) -> float:
    if other is None or not (math.isfinite(one) and math.isfinite(other)):
        return math.inf
    return abs(one - other) / max(abs(one), abs(other), sys.float_info.min)


def _weights(
    recorded: RecordedRun, repeated: RecordedRun, distance: WeightDistance | str
) -> tuple[bool | None, str]:  # fmt: skip
    """Whether the weights at the end are equal, as far as that is known, and how it is known."""
    last, end = recorded.recipe["last"], recorded.recipe["last_step"]
    known = distance if isinstance(distance, WeightDistance) else None
    if last is None or last["weights"] is None:
        return None, "not recorded"
    step, digest = last["step"], last["weights"]
    again = repeated.weights.get(step)
    if again is None:
        return None, f"the repetition has no checkpoint of step {step}"
    if again == digest or (known is not None and known.equal and known.step == step):
        how = "by their digest" if again == digest else "each of them"
        if step == end:
            return True, f"equal at step {step}, {how}"
        return None, f"equal at step {step}, {how}; those at the end, step {end}, were not recorded"
    if known is None:
        return False, f"not equal at step {step}, by their digest; how far apart is not known: {distance}"
    apart = f"largest difference {known.largest:.3g} in {known.tensor}, {known.relative:.3g} of their norm"
    return False, f"not equal at step {step}; at step {known.step}: {apart if known.largest else 'equal'}"
