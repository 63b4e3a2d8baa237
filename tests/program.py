"""Programs of their own beside the tests, on the tests' Ray session: to be signalled, killed, asked."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil
import ray
import requests


def start(*arguments: str, output: int | IO[str] = subprocess.PIPE, **environment: str) -> subprocess.Popen[str]:
    """Python with these arguments, in the working directory; output and errors are kept.

    Args:
        output: where they go instead: a pipe that nobody reads stops whoever says much.
    """
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=output,
        stderr=output,
        text=True,
        start_new_session=True,
        env=os.environ
        | ({"RAY_ADDRESS": ray.get_runtime_context().gcs_address} if ray.is_initialized() else {})
        | environment,
    )


def hfsuite(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The command."""
    return start("-c", "from hfsuite.cli import main; main()", *arguments, **environment)


def wait_for(
    what: Callable[[], object],
    program: subprocess.Popen[str],
    timeout_s: float = 120,
    progress: Callable[[], object] = lambda: None,
) -> None:
    """Waits until something is true while the program runs; shows its output if it ends before.

    Args:
        timeout_s: counted from the last time that `progress` returned something else.
    """
    seen, since = progress(), time.monotonic()
    while not what():
        if (now := progress()) != seen:
            seen, since = now, time.monotonic()
        if program.poll() is not None or time.monotonic() > since + timeout_s:
            program.kill()
            raise AssertionError("\n".join(filter(None, program.communicate())) or "it said nothing here")
        time.sleep(0.1)


def wait_for_lines(path: Path, count: int, program: subprocess.Popen[str]) -> None:
    """Waits until a file has so many lines, for as long as the program writes anything in the working directory."""
    wait_for(lambda: has_lines(path, count), program, progress=last_written)


def last_written() -> int:
    """When a file in the working directory was."""
    times = [0]
    for folder, _, names in os.walk("."):
        for name in names:
            with suppress(OSError):  # it is gone
                times.append(os.stat(os.path.join(folder, name)).st_mtime_ns)
    return max(times)


def said_until(program: subprocess.Popen[str], words: str) -> str:
    """What a program prints up to the line with these words in it, or up to its end."""
    assert program.stdout is not None
    said = ""
    for line in program.stdout:
        said += line
        if words in line:
            break
    return said


def output(program: subprocess.Popen[str], timeout_s: float = 120) -> tuple[str, str]:
    """Standard output and standard error of a program that is about to end; one that does not is killed."""
    try:
        return program.communicate(timeout=timeout_s)
    finally:
        program.kill()


def wait_for_free_cpus(timeout_s: float = 30) -> None:
    """Waits until no worker is left on the tests' Ray session."""
    deadline = time.monotonic() + timeout_s
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, "there are workers still"
        time.sleep(0.1)


def worker_processes() -> set[int]:
    """Processes of this session in which a trial or one of its ranks runs, or has run, and all that they started."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith(("ray::TrialWorke", "ray::Accelerate", "ray::Transforme", "ray::hfsuite")):
                found |= {process.pid, *(child.pid for child in process.children(recursive=True))}
    return found


def placement_groups() -> int:
    """Placement groups that are there, or wait to be."""
    return sum(group["state"] != "REMOVED" for group in ray.util.placement_group_table().values())


def wait_until_ended(*processes: int, timeout_s: float = 30) -> None:
    """Waits until none of these processes runs any more."""
    deadline = time.monotonic() + timeout_s
    while running := list(filter(is_running, processes)):
        assert time.monotonic() < deadline, f"still running: {running}"
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def has_lines(path: Path, count: int) -> bool:
    return path.exists() and len(path.read_text().splitlines()) >= count


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, path: str = "health") -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/{path}", timeout=5).ok
    except requests.RequestException:
        return False
