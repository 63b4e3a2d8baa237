#!/usr/bin/env bash
# Most would guess: a Ray actor that starts while idle worker processes wait (the same node, job and environment) gets
# one of them. Imports can then be paid ahead: run a task that imports torch in a few processes, and actors that begin
# later find it imported.
#
# Seen: a process that has run a task is not given to an actor, though it is idle: the actor gets another one, which
# imports anew. A second task does get the first one's process.
#
# Versions: ray 2.60.0, Python 3.11. Date: 2026-11-28.
# Whom it hurts: who warms up processes for actors (trials of Ray Tune, replicas, pools) with tasks, and measures a start
# that is as slow as before: 9 s instead of none for a trial on a machine with an H100, where the imports took that long.
# What helps: start the actors themselves ahead, and give them their work later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ray==2.60.0
cd "$folder"
RAY_USAGE_STATS_ENABLED=0 "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import os
import sys
import time

import ray

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


@ray.remote(num_cpus=0)
def task():
    time.sleep(1)
    return os.getpid()


@ray.remote(num_cpus=0)
class Actor:
    def process(self):
        return os.getpid()


print("ray", ray.__version__, "python", sys.version.split()[0])
tasks = set(ray.get([task.remote() for _ in range(4)]))
second = ray.get(task.remote())
actors = [Actor.remote() for _ in range(4)]
processes = set(ray.get([actor.process.remote() for actor in actors]))
print("processes of tasks:", len(tasks), "- a second task had one of them:", second in tasks)
print("processes of actors:", len(processes), "- of these had run a task:", len(processes & tasks))
assert second in tasks
assert not processes & tasks
print("as found: no actor gets a process that has run a task")
PYTHON
