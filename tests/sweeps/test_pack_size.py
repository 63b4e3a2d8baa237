"""How many trials share a GPU, from made-up speeds."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from ray import tune

from hfsuite.ranks.pace import Gpu, rate_of
from hfsuite.sweeps.gpu_memory import CONTEXT, GpuMemory, largest_size
from hfsuite.sweeps.pack_size import PackSize, sizes

GIGABYTE = 1 << 30


def found(throughput: dict[int, float], *, limit: float = 8, busy: float = 1.0, long_trials: bool = True) -> int:
    """The number that is settled on, where so many together do so many times as much as one; trials differ."""
    pack, draw = PackSize(), random.Random(0)
    pack.note_busy(busy)
    own = {f"trial {number}": draw.uniform(5, 50) for number in range(100)}
    begun = 0
    for _ in range(20):
        size = pack.size(limit)
        if long_trials:
            running = list(own)[:size]
        else:
            running, begun = list(own)[begun : begun + size], begun + size
        for trial in running:
            pack.note(trial, size, own[trial] * throughput[size] / size * draw.uniform(0.99, 1.01), 2.0)
    assert pack.is_settled(limit)
    return pack.size(limit)


@pytest.mark.parametrize(
    ("throughput", "size"),
    [
        ({1: 1.0, 2: 1.9, 4: 3.5, 8: 5.0}, 8),
        ({1: 1.0, 2: 1.7, 4: 2.6, 8: 2.62}, 4),
        ({1: 1.0, 2: 1.7, 4: 1.5, 8: 1.2}, 2),
        ({1: 1.0, 2: 0.97, 4: 0.9, 8: 0.8}, 1),
    ],
)
def test_the_number_grows_while_more_do_more(throughput: dict[int, float], size: int) -> None:
    assert found(throughput) == size


def test_a_gpu_that_is_idle_for_much_of_the_time_gets_four_at_once() -> None:
    assert list(sizes(8, 4)) == [4, 8]
    assert list(sizes(3, 4)) == [3]
    assert list(sizes(2, 4)) == [2]
    assert found({1: 1.0, 4: 2.6, 8: 2.62}, busy=0.6) == 4


def test_no_more_run_than_can() -> None:
    assert found({1: 1.0, 2: 1.9, 3: 2.7}, limit=3) == 3
    assert found({1: 1.0}, limit=1) == 1


def test_trials_too_short_to_have_been_in_both_companies_are_compared_with_others() -> None:
    pack = PackSize()
    for number in range(3):
        pack.note(f"alone {number}", 1, 10, 2)
        pack.note(f"two {number}", 2, 9, 2)
    assert pack.gain(1, 2) == pytest.approx(1.8)


def test_what_is_seen_later_corrects_what_was_decided() -> None:
    pack = PackSize()
    pack.note("a", 1, 10, 2)
    pack.note("a", 2, 9, 2)
    pack.note("b", 2, 9, 2)
    assert pack.size(8) == 4
    for trial in ("a", "b"):
        pack.note(trial, 1, 10, 20)
        pack.note(trial, 2, 4.5, 20)
    assert pack.size(8) == 1


def gpu(peak: float, *, held: float = 1.0, used: float | None = None, total: float = 80.0) -> Gpu:
    """What a rank sees, in gigabytes; alone, with its context."""
    return Gpu("GPU-0", *(int(each * GIGABYTE) for each in (held, peak, peak + 1 if used is None else used, total)))


def test_memory_holds_what_needs_most() -> None:
    memory = GpuMemory({"batch_size": tune.choice([8, 16, 64]), "learning_rate": tune.loguniform(1e-5, 1e-3)})
    assert memory.limit == 1, "nothing was measured"
    memory.note("a", {"batch_size": 8}, gpu(2), is_alone=True)
    assert memory.largest == pytest.approx((1 + 8 * 1) * GIGABYTE), "of 64 rows: eight times what 8 take beyond weights"
    assert memory.limit == (0.92 * 80 * GIGABYTE) // (1.1 * 9 * GIGABYTE + CONTEXT)
    memory.note("b", {"batch_size": 64}, gpu(5), is_alone=False)
    assert memory.largest == 5 * GIGABYTE, "which one with 64 rows has shown to be less"
    assert memory.limit == (0.92 * 80 * GIGABYTE) // (1.1 * 5 * GIGABYTE + CONTEXT)


def test_sizes_of_a_model_multiply_all_that_it_takes() -> None:
    memory = GpuMemory({"lora_rank": tune.lograndint(8, 65)})
    memory.note("a", {"lora_rank": 8}, gpu(4), is_alone=True)
    assert memory.largest == pytest.approx(8 * 4 * GIGABYTE)


def test_others_and_failures_count() -> None:
    memory = GpuMemory({})
    memory.note("a", {}, gpu(7, used=7 + 1 + 40), is_alone=True)
    assert memory.limit == (0.92 * 80 * GIGABYTE - 40 * GIGABYTE) // (1.1 * 7 * GIGABYTE + CONTEXT) == 3
    memory.note_out_of_memory(3)
    assert memory.limit == 2


def test_what_pytorch_has_not_reserved_counts_where_it_is_seen() -> None:
    memory = GpuMemory({})
    seen = replace(gpu(2, used=7), process=7 * GIGABYTE)  # a library of its own takes 4 GB beside the context
    memory.note("a", {}, seen, is_alone=True)
    assert memory.limit == (0.92 * 80 * GIGABYTE) // (1.1 * 2 * GIGABYTE + 5 * GIGABYTE)


@pytest.mark.parametrize(
    ("name", "domain", "largest"),
    [
        ("per_device_train_batch_size", tune.choice([4, 32]), 32),
        ("hidden_size", tune.randint(64, 129), 128),
        ("max_length", tune.qrandint(64, 256, 64), 256),
        ("rank", tune.grid_search([4, 16]), 16),
        ("learning_rate", tune.loguniform(1e-5, 1e-3), None),
        ("model", tune.choice(["small", "large"]), None),
        ("gradient_checkpointing", tune.choice([True, False]), None),
        ("num_train_epochs", tune.choice([1, 5]), None),
        ("warmup_steps", tune.randint(0, 500), None),
        ("seed", tune.randint(0, 2**31), None),
    ],
)
def test_which_settings_are_sizes(name: str, domain: object, largest: int | None) -> None:
    assert largest_size(name, domain) == largest


def test_a_rate_is_of_steps_alone() -> None:
    moments = [0.0, 0.1, 0.2, 0.3, 5.0, 5.1, 5.2]
    assert rate_of(moments) == pytest.approx(10), "an evaluation lies between two of them"
    assert rate_of([1.0]) == 0
