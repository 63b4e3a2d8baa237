#!/usr/bin/env bash
# Ray: the workers of a trial that take half a GPU each come onto the same GPU, also with SPREAD, though another is free.
#
# Most would guess: a placement group with two bundles of half a GPU and the strategy SPREAD has one on each of a node's two
#   GPUs, so that two such trainings of two workers share the two GPUs.
# Seen: strategies place bundles on nodes, not on GPUs. Within a node each part of a GPU goes to the fullest GPU that has room
#   for it: both bundles have GPU 0, with PACK, SPREAD and STRICT_PACK, and the workers of ScalingConfig(num_workers=2,
#   resources_per_worker={"GPU": 0.5}) with them. NCCL refuses two ranks of a process group on one GPU.
# Versions: ray 2.60.0, on a machine with or without GPUs (Ray believes how many there are). Date: 2026-11-28.
# Hurts: whoever gives each worker of a data-parallel trial a part of a GPU, to run several trials on the same GPUs.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ray==2.60.0
cd "$folder"
venv/bin/python - 2> log <<'PY' || { cat log; exit 1; }
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

print("ray", ray.__version__)
ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


@ray.remote(num_gpus=0.5, num_cpus=0)
class Rank:
    def gpu(self):
        return ray.get_runtime_context().get_accelerator_ids()["GPU"]


for strategy in ("PACK", "SPREAD", "STRICT_PACK"):
    group = placement_group([{"GPU": 0.5}, {"GPU": 0.5}], strategy)
    ray.get(group.ready())
    ranks = [Rank.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, index)).remote() for index in range(2)]
    gpus = ray.get([rank.gpu.remote() for rank in ranks])
    print(f"{strategy}: rank 0 has GPU {gpus[0]}, rank 1 has GPU {gpus[1]}, of two")
    assert gpus[0] == gpus[1]
    for rank in ranks:
        ray.kill(rank)
    remove_placement_group(group)
print("As seen: both ranks are on one GPU.")
PY
