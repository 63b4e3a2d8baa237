"""Tasks beside the classification of texts: on two workers the same numbers as without this project, or it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfsuite.tracking import store
from tests.trainers.kinds import in_ranks

SAME = [
    "tasks.tags", "tasks.answers", "tasks.answers_from_the_start", "tasks.several_sets", "tasks.summaries",
    "media.images", "media.sounds", "media.spectrograms", "media.spoken",
]  # fmt: skip
DEPENDS = ["tasks.answers_padded_by_batch", "tasks.weighted", "tasks.weighted_unprepared", "media.spoken_added_up"]
ONLY_RUN = ["media.images_flipped_by_chance"]
USUAL = ["tasks.tags", "tasks.several_sets", "tasks.weighted_unprepared"]
EVERY = [*SAME, *DEPENDS, *ONLY_RUN]


@pytest.mark.parametrize("kind", in_ranks.marked(SAME, USUAL))
def test_the_numbers_are_those_of_one_process_without_this_project(kind: str, found: in_ranks.Compared) -> None:
    in_ranks.assert_same(in_ranks.reports_of(found.trials[kind]), found.alone[kind])
    assert "reported.eval_loss_depends_on" not in found.tags[kind]


@pytest.mark.parametrize("kind", in_ranks.marked(DEPENDS, USUAL))
def test_a_loss_that_depends_on_the_batches_is_said_to(kind: str, found: in_ranks.Compared) -> None:
    assert found.tags[kind]["reported.loss_is_mean_over"] == "neither"
    assert "the number of workers" in found.tags[kind]["reported.eval_loss_depends_on"]


def test_rows_of_a_loader_that_nobody_has_prepared_are_said_to_be_every_workers(usual: in_ranks.Compared) -> None:
    assert "a loader was not prepared" in usual.tags["tasks.weighted_unprepared"]["hfsuite.rows_depend_on"]
    assert "hfsuite.rows_depend_on" not in usual.tags["tasks.tags"]


@pytest.mark.slow
def test_a_transform_that_draws_is_no_matter_of_the_evaluation(others: in_ranks.Compared) -> None:
    assert "reported.eval_loss_depends_on" not in others.tags["media.images_flipped_by_chance"]
    assert others.trials["tasks.weighted"].metrics["samples"] == 10, "a sampler of one's own is dealt"


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        pytest.param("tasks.tags", "eval_PER.f1", marks=pytest.mark.slow),
        pytest.param("tasks.tags", "eval_overall_f1", marks=pytest.mark.slow),
        pytest.param("tasks.several_sets", "eval_b_loss", marks=pytest.mark.slow),
    ],
)
def test_what_is_optimised_may_be_in_a_group_or_of_one_set(own_directory: Path, kind: str, metric: str) -> None:
    trial = in_ranks.experiment([kind], metric=metric, mode="max").train()
    reports = [in_ranks.comparable(each) for each in in_ranks.reports_of(trial)]
    client = store.open_store()
    run = client.get_run(trial.run_id)
    points = sorted(client.get_metric_history(trial.run_id, metric), key=lambda each: each.step)
    assert [point.value for point in points] == pytest.approx([each[metric] for each in reports])
    assert run.data.metrics[f"best_{metric}"] == max(each[metric] for each in reports)
    assert trial.metrics[metric] == max(each[metric] for each in reports)
