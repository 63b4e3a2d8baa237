"""What is said of a repetition is never more than the evidence holds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hfsuite.reproduce.plan import Difference, Weight
from hfsuite.reproduce.recorded import RecordedRun
from hfsuite.reproduce.verdict import Tolerance, Verdict, default_tolerance, judge
from hfsuite.reproduce.weights import WeightDistance

EXACT = Tolerance(1e-3, "given")
CURVES = {"loss": {10: 0.5, 20: 0.25}, "accuracy": {10: 0.75, 20: math.nan}}


def run(
    curves: Any = CURVES, *, weights: str | None = "abc", bits: Any = None, workers: int = 1, **recipe: Any
) -> RecordedRun:
    snapshot = {"step": 20, "weights": weights}
    return RecordedRun(
        run_id="r", title="t", tags={}, facts={}, environment={}, packages={}, source=None, diff=None, curves=curves,
        changed_settings=(), experiment_name="e",
        recipe={
            "last_step": 20, "workers": workers, "best": snapshot, "last": snapshot if weights else None, "config": {},
            "loss_bits": {str(step): digest for step, digest in (bits or {10: "a", 20: "b"}).items()}, **recipe,
        },
    )  # fmt: skip


def test_all_equal_is_bitwise() -> None:
    found = judge(run(), run(), [], EXACT)
    assert (found.verdict, found.compared, found.losses_compared) == (Verdict.BITWISE, 4, 2)
    assert (found.largest, found.began_at, found.left_at) == (None, None, None)


@pytest.mark.parametrize(
    "again",
    [
        run(weights=None),
        run(weights="other"),
        run(bits={10: "a", 20: "other"}),
        run(workers=2),
        run({**CURVES, "loss": {10: 0.5, 20: math.nextafter(0.25, 1)}}),
    ],
    ids=["no weights", "other weights", "another loss", "another world size", "the last bit"],
)
def test_less_than_all_equal_is_not(again: RecordedRun) -> None:
    assert judge(run(), again, [], EXACT).verdict is Verdict.WITHIN_TOLERANCE
    assert judge(again, run(), [], EXACT).verdict is Verdict.WITHIN_TOLERANCE


def test_what_leaves_the_tolerance_has_diverged_at_the_first_such_step() -> None:
    causes = [Difference("seed", "1", "2", Weight.RESULT, ""), Difference("cores", "1", "2", Weight.NOTHING, "")]
    again = run({**CURVES, "loss": {10: 0.5001, 20: 0.3}}, bits={5: "x", 10: "x", 20: "y"})
    found = judge(run(), again, causes, EXACT)
    assert found.verdict is Verdict.DIVERGED
    assert found.began_at == 10
    assert found.left_at is not None
    assert (found.left_at.metric, found.left_at.step) == ("loss", 20)
    assert found.left_at.relative == pytest.approx(0.05 / 0.3)
    assert [each.subject for each in found.causes] == ["seed"]


@pytest.mark.parametrize(
    "curves",
    [
        {"loss": {10: 0.5}, "accuracy": CURVES["accuracy"]},
        {"loss": CURVES["loss"]},
        {**CURVES, "loss": {10: 0.5, 20: math.nan}},
    ],
    ids=["a step", "a metric", "a number"],
)
def test_what_is_missing_has_diverged(curves: Any) -> None:
    assert judge(run(), run(curves), [], EXACT).verdict is Verdict.DIVERGED


def test_weights_that_are_the_same_under_another_digest_are_equal() -> None:
    found = judge(run(), run(weights="other file"), [], EXACT, WeightDistance(20, 0.0, 0.0, ""))
    assert found.verdict is Verdict.BITWISE


def test_the_tolerance_says_where_it_comes_from() -> None:
    found = default_tolerance(run(), workers=1)
    assert found.relative == pytest.approx(20 * 1.3e-6)
    assert "torch.testing" in found.origin
    assert default_tolerance(run(config={"precision": "bf16"}), workers=1).relative > 1e-2
    assert "world size" in default_tolerance(run(), workers=2).origin
