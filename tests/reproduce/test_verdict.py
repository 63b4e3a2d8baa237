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
    curves: Any = CURVES,
    *,
    weights: str | None = "abc",
    bits: Any = None,
    workers: int = 1,
    facts: Any = None,
    **recipe: Any,
) -> RecordedRun:
    snapshot = {"step": 20, "weights": weights}
    return RecordedRun(
        run_id="r", title="t", tags={}, facts=facts or {}, environment={}, packages={}, source=None, diff=None,
        curves=curves, changed_settings=(), resumed=(), experiment_name="e",
        recipe={
            "last_step": 20, "workers": workers, "best": snapshot, "last": snapshot if weights else None, "config": {},
            "restarts": [], "state": "completed",
            "loss_bits": {str(step): digest for step, digest in (bits or {10: "a", 20: "b"}).items()},
            **recipe,
        },
    )  # fmt: skip


def test_all_equal_is_bitwise() -> None:
    found = judge(run(), run(), [], EXACT)
    assert (found.verdict, found.compared, found.losses_compared) == (Verdict.BITWISE, 4, 2)
    assert found.losses == "of the losses of 2 optimizer steps all are equal"
    assert (found.largest, found.began_at, found.left_at) == (None, None, None)


@pytest.mark.parametrize(
    "again",
    [
        run(weights=None),
        run(weights="other"),
        run(bits={10: "a", 20: "other"}),
        run(bits={10: "a"}),
        run({**CURVES, "loss": {10: 0.5, 20: math.nextafter(0.25, 1)}}),
        run({**CURVES, "zero": {10: 0.0}}),
    ],
    ids=["no weights", "other weights", "another loss", "a loss of one only", "the last bit", "the sign of zero"],
)
def test_less_than_all_equal_is_not(again: RecordedRun) -> None:
    one = run({**CURVES, "zero": {10: -0.0}}) if "zero" in again.curves else run()
    assert judge(one, again, [], EXACT).verdict is Verdict.WITHIN_TOLERANCE
    assert judge(again, one, [], EXACT).verdict is Verdict.WITHIN_TOLERANCE


def test_the_mean_loss_since_an_interruption_is_not_compared() -> None:
    one, other = {**CURVES, "train_loss": {20: 0.4}}, {**CURVES, "train_loss": {20: 0.6}}
    assert judge(run(one, restarts=[10]), run(other), [], EXACT).verdict is Verdict.BITWISE
    assert judge(run(one), run(other), [], EXACT).verdict is Verdict.DIVERGED
    theirs = {"train_loss": {10: 0.4, 20: 0.4}}  # a loop's own metric of that name
    assert (
        judge(run(theirs, restarts=[10]), run({"train_loss": {10: 0.4, 20: 0.6}}), [], EXACT).verdict
        is Verdict.DIVERGED
    )


def test_another_world_size_is_statistical_at_best() -> None:
    tolerance = default_tolerance(run(), workers=2)
    assert tolerance.statistical
    assert judge(run(), run(workers=2), [], tolerance).verdict is Verdict.WITHIN_TOLERANCE


def test_weights_of_an_earlier_step_say_nothing_of_the_end() -> None:
    early = {"step": 10, "weights": "abc"}
    one = run(best=early, last=early)
    found = judge(one, one, [], EXACT)
    assert (found.verdict, found.weights_equal) == (Verdict.WITHIN_TOLERANCE, None)
    assert "those at the end, step 20, were not recorded" in found.weights


@pytest.mark.parametrize(
    ("relative", "verdict"), [(5e-3, Verdict.WITHIN_TOLERANCE), (0.5, Verdict.DIVERGED), (math.inf, Verdict.DIVERGED)]
)
def test_weights_that_are_far_apart_have_diverged_whatever_the_numbers_say(relative: float, verdict: Verdict) -> None:
    apart = WeightDistance(20, equal=False, largest=relative, relative=relative, tensor="w")
    assert judge(run(), run(weights="other"), [], EXACT, apart).verdict is verdict


def test_one_row_of_an_accuracy_may_tip() -> None:
    facts = {"inputs": [{"context": "evaluation", "rows": 300}]}
    one, tipped, two = (run({"accuracy": {20: count / 300}}, facts=facts) for count in (250, 251, 252))
    assert judge(one, tipped, [], EXACT).verdict is Verdict.WITHIN_TOLERANCE
    assert judge(one, two, [], EXACT).verdict is Verdict.DIVERGED
    loss, other = (run({"loss": {20: value}}, facts=facts) for value in (0.8333, 0.8353))
    assert judge(loss, other, [], EXACT).verdict is Verdict.DIVERGED, "no count of rows"


def test_what_leaves_the_tolerance_has_diverged_at_the_first_such_step() -> None:
    causes = [Difference("seed", "1", "2", Weight.RESULT, ""), Difference("cores", "1", "2", Weight.NOTHING, "")]
    again = run({**CURVES, "loss": {10: 0.5001, 20: 0.3}}, bits={10: "x", 20: "y"})
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
    found = judge(
        run(),
        run(weights="other file"),
        [],
        EXACT,
        WeightDistance(20, equal=True, largest=0.0, relative=0.0, tensor=""),
    )
    assert found.verdict is Verdict.BITWISE


def test_the_tolerance_says_where_it_comes_from() -> None:
    found = default_tolerance(run(), workers=1)
    assert found.relative == pytest.approx(20 * 1.3e-6)
    assert "torch.testing" in found.origin
    assert default_tolerance(run(facts={"precision": "bf16"}), workers=1).relative == 1.6e-2, "at most"
    assert "world size" in default_tolerance(run(), workers=2).origin
