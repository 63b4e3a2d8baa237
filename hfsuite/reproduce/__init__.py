"""Runs a recorded trial again, out of MLflow alone, and judges whether the same came out: plan, rerun, compare."""
