#!/usr/bin/env bash
# Runs what needs GPUs, prints one table of tests and one of measures, and leaves both as JSON.
#
#   tests/gpu/run.sh [OUT_DIR] [--tests [arguments of pytest] | --bench [names of measures]]
#
# Without `make install-test` it takes the python3 of the machine, with PYTHONPATH for what that lacks.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
out=gpu-results
if [[ $# -gt 0 && $1 != -* ]]; then out=$1; shift; fi
out=$(mkdir -p "$out" && cd "$out" && pwd) || exit 2
what=all
case ${1:-} in
  --tests | --bench) what=${1#--}; shift ;;
  -*) sed -n 2,6p "$root/tests/gpu/run.sh"; exit 2 ;;
esac
python=$root/.venv/bin/python
[[ -x $python ]] || python=python3
cd "$root"
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 HFSUITE_GPU_REPORT=$out/tests.json
status=0
if [[ $what != bench ]]; then
  "$python" -m pytest tests/gpu -m gpu "$@" || status=$?
fi
if [[ $what != tests ]]; then
  names=("$@")
  [[ $what == bench && ${#names[@]} -gt 0 ]] || names=(gpu_turnaround gpu_pack_{1,1_mps,2,ray_pattern,large,mixed} gpu_share_{0,1,ray_pattern} gpu_checkpoints gpu_stops gpu_tokens_{1,2,4,4_few_rows})
  "$python" -W ignore -m tests.benchmarks.bench --only "${names[@]}" --out "$out/measures.json" || status=$?
fi
exit $status
