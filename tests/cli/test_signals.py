"""Ctrl-C and SIGTERM: the sweep ends in order, says so everywhere, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from hfsuite.sweeps.interruption import Interruption
from hfsuite.tracking import runs, store
from hfsuite.tracking.directory import SweepDirectory
from hfsuite.tracking.state import TrialState
from tests import program


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_ends_in_order(own_directory: Path, number: signal.Signals) -> None:
    diary = own_directory / "diary"
    sweep = program.hfsuite(
        "sweep", "tests.toy", "--trials", "5", "--trial-scheduler", "fifo", "--name", "cut", "--json",
        "--set", "reports=100000", "--set", "checkpoints=false", "--set", f"diary={diary}",
    )  # fmt: skip
    program.wait_for(lambda: program.has_lines(diary, 20), sweep)
    sweep.send_signal(number)
    out, err = program.output(sweep)

    assert sweep.returncode == 130, err
    said = json.loads(out)
    assert said["interrupted"] is True
    assert {trial["state"] for trial in said["trials"]} == {"stopped"}
    client = store.open_store()
    parent = runs.find_sweep(client, "cut")
    assert parent is not None
    recorded = [parent, *runs.children(client, parent)]
    assert len(recorded) == 1 + len(said["trials"]), "also a trial that never started has its run"
    assert {(run.info.status, run.data.tags[runs.STATE]) for run in recorded} == {("KILLED", "stopped")}

    program.wait_for_free_cpus()
    written = diary.read_text()
    time.sleep(0.5)
    assert diary.read_text() == written, "nothing trains on"


@pytest.mark.slow
def test_a_second_ctrl_c_cuts_the_end_short_and_the_records_are_true(own_directory: Path) -> None:
    diary = own_directory / "diary"
    sweep = program.hfsuite(
        "sweep", "tests.toy", "--trial-scheduler", "fifo", "--name", "cut",
        "--set", "reports=100000", "--set", "checkpoints=false", "--set", f"diary={diary}",
    )  # fmt: skip
    program.wait_for(lambda: program.has_lines(diary, 20), sweep)
    sweep.send_signal(signal.SIGINT)
    time.sleep(0.1)
    sweep.send_signal(signal.SIGINT)
    _, err = program.output(sweep)
    assert sweep.returncode == 130, err
    client = store.open_store()
    parent = runs.find_sweep(client, "cut")
    assert parent is not None
    assert {run.info.status for run in [parent, *runs.children(client, parent)]} == {"KILLED"}
    program.wait_for_free_cpus()


@pytest.mark.slow
def test_an_interrupted_training_exits_with_130(own_directory: Path) -> None:
    diary = own_directory / "diary"
    training = program.hfsuite(
        "train", "tests.toy", "--set", "reports=100000", "--set", "checkpoints=false", "--set", f"diary={diary}"
    )
    program.wait_for(lambda: program.has_lines(diary, 4), training)
    training.send_signal(signal.SIGINT)
    out, err = program.output(training)
    assert (training.returncode, out) == (130, "")
    assert "Take the training up again: hfsuite resume" in err
    assert "Interrupted." in err
    assert "Traceback" not in err


def test_a_cluster_that_is_not_there_is_named(own_directory: Path) -> None:
    sweep = program.hfsuite("sweep", "tests.toy", RAY_ADDRESS="127.0.0.1:9")
    out, err = program.output(sweep)
    assert (sweep.returncode, out) == (2, "")
    assert "The Ray cluster RAY_ADDRESS=127.0.0.1:9 cannot be reached" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_signal_that_ends_ray_too_leaves_true_records(own_directory: Path) -> None:
    diary = own_directory / "diary"
    sweep = program.hfsuite(  # with a Ray of its own
        "sweep", "tests.toy", "--trial-scheduler", "fifo", "--name", "cut", "--workers", "1",
        "--set", "reports=100000", "--set", "checkpoints=false", "--set", f"diary={diary}", RAY_ADDRESS="",
    )  # fmt: skip
    program.wait_for(lambda: program.has_lines(diary, 20), sweep)
    os.killpg(sweep.pid, signal.SIGTERM)
    client = store.open_store()
    parent = runs.find_sweep(client, "cut")
    assert parent is not None

    def states() -> set[tuple[str, str]]:
        recorded = [client.get_run(parent.info.run_id), *runs.children(client, parent)]
        return {(run.info.status, run.data.tags[runs.STATE]) for run in recorded}

    program.wait_for(lambda: states() == {("KILLED", "stopped")}, sweep, timeout_s=30)
    os.killpg(sweep.pid, signal.SIGKILL)  # as a batch system does, after its patience
    program.output(sweep)
    assert states() == {("KILLED", "stopped")}
    directory = SweepDirectory.at("results", "cut")
    assert {each.state for each in [directory.read_sweep(), *directory.read_trials()]} == {TrialState.STOPPED}


def test_a_signal_that_was_ignored_stays_so() -> None:
    """As of a background job of a script, in which Ctrl-C is meant for others."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with (interruption := Interruption()):
            signal.signal(signal.SIGINT, lambda *_: None)  # Ray Tune's
            interruption.setup()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
