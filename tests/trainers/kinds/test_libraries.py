"""Trainers of libraries that stand on Transformers: the same numbers as without this project, or it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfsuite.checkpoints import manifest
from tests.trainers.kinds import in_ranks

TUNED = ["libraries.tuned", "libraries.tuned_on_packed_rows", "libraries.tuned_with_an_adapter"]
EMBEDDED = ["libraries.similar", "libraries.ranked_in_batch"]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> in_ranks.Compared:
    pytest.importorskip("trl")
    return in_ranks.compared(TUNED, TUNED, tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> in_ranks.Compared:
    pytest.importorskip("sentence_transformers")
    return in_ranks.compared(EMBEDDED, [], tmp_path_factory.mktemp("embedded"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", TUNED)
def test_a_language_model_that_trl_tunes_has_the_same_losses(kind: str, tuned: in_ranks.Compared) -> None:
    trial = tuned.trials[kind]
    assert str(trial.state) == "completed", trial.failure
    reports, alone = in_ranks.reports_of(trial), tuned.alone[kind]
    if kind == "libraries.tuned_on_packed_rows":  # TRL counts the tokens of a row that only stands in
        reports, alone = ([{name: value for name, value in each.items() if name != "eval_num_tokens"} for each in one]
                          for one in (reports, alone))  # fmt: skip
    in_ranks.assert_same(reports, alone)
    assert "reported.eval_loss_depends_on" not in tuned.tags[kind]


@pytest.mark.slow
def test_a_checkpoint_of_trls_has_its_arguments_and_its_adapter(tuned: in_ranks.Compared) -> None:
    from trl import SFTConfig

    trial = tuned.trials["libraries.tuned_with_an_adapter"]
    manifest.verify(trial.checkpoint)
    assert isinstance(trial.checkpoint.get_training_arguments(), SFTConfig)
    assert Path(trial.checkpoint.path, "adapter_model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", EMBEDDED)
def test_batches_that_sentence_transformers_makes_are_said_to_be_dealt_otherwise(
    kind: str, embedded: in_ranks.Compared
) -> None:
    trial = embedded.trials[kind]
    assert str(trial.state) == "completed", trial.failure
    assert [each["step"] for each in in_ranks.reports_of(trial)] == [1, 2, 3]
    assert all(each["eval_loss"] > 0 for each in in_ranks.reports_of(trial))
    assert "a loader makes batches in a way of its own" in embedded.tags[kind]["hfsuite.rows_depend_on"]
    if kind == "libraries.ranked_in_batch":
        assert embedded.tags[kind]["reported.loss_is_mean_over"] == "neither"
    else:
        assert -1 <= trial.metrics["eval_spearman_cosine"] <= 1


@pytest.mark.slow
def test_a_checkpoint_of_sentence_transformers_is_read_by_them(embedded: in_ranks.Compared) -> None:
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments

    checkpoint = embedded.trials["libraries.similar"].checkpoint
    assert SentenceTransformer(checkpoint.path, device="cpu").encode(["4 5 6"]).shape == (1, 16)
    assert isinstance(checkpoint.get_training_arguments(), SentenceTransformerTrainingArguments)
