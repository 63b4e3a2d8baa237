"""When a sweep ends since its metric is not reported, and what is said then."""

from __future__ import annotations

from typing import Any

import pytest

from hfsuite.errors import MetricNotReported
from hfsuite.report import TRAINING_FINISHED, UNEVALUATED
from hfsuite.sweeps.metric_check import MetricIsReported, set_aside


def asked(metric: str, *reports: dict[str, Any]) -> MetricIsReported:
    stopper = MetricIsReported(metric)
    for number, report in enumerate(reports, start=1):
        stopper("trial", {"training_iteration": number, **report})
    return stopper


@pytest.mark.parametrize(
    ("metric", "reports", "message"),
    [
        ("eval_loss", [{"loss": 1.0}], "No evaluation was made.*`eval_strategy`"),
        ("eval_f1", [{"eval_f2": 1.0}], "Did you mean 'eval_f2'"),
        ("loss", [{"loss": "low"}, {"loss": 1.0}], "Its value was 'low', not a number"),
        ("loss", [{"loss": [1.0]}, {"loss": 1.0}], r"Its value was \[1.0\], not a number"),
        ("quality", [{"loss": 1.0}], "is not in the trial's report. Reported: loss, training_iteration"),
        ("eval_loss", [{"loss": 1.0, UNEVALUATED: True, TRAINING_FINISHED: True}], "No evaluation was made"),
        ("loss", [{"loss": "low"}], "Its value was 'low', not a number"),
    ],
)
def test_a_missing_metric_is_explained(metric: str, reports: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(MetricNotReported, match=message) as caught:
        asked(metric, *reports).at_end()
    assert str(caught.value).count("training_iteration") <= 1, "names are listed once"


@pytest.mark.parametrize(
    "reports",
    [
        [{"loss": 1.0, UNEVALUATED: True}, {"eval_loss": 1.0}],
        [{"eval_loss": None}, {"eval_loss": 1.0}],
        [{"eval_loss": 1.0}, {"loss": 1.0}],
    ],
)
def test_a_metric_that_comes_later_is_not_missing(reports: list[dict[str, Any]]) -> None:
    asked("eval_loss", *reports).at_end()


@pytest.mark.parametrize("metric", ["eval_PER.f1", "eval_PER/f1", "eval.f1"])
def test_a_metric_may_stand_in_a_group(metric: str) -> None:
    result = {"eval_PER": {"f1": 0.3}, "eval.f1": 0.2}
    set_aside(result, metric, "max")
    assert result[metric] == (0.2 if metric == "eval.f1" else 0.3)


@pytest.mark.parametrize("metric", ["eval_cls.0.f1", "eval_cls/0/f1", "eval_cls.a.b"])
def test_names_in_groups_may_be_numbers_and_have_dots(metric: str) -> None:
    result = {"eval_cls": {0: {"f1": 0.3}, "a.b": 0.3}}
    set_aside(result, metric, "max")
    assert result[metric] == 0.3
