"""One trial under Ray Tune."""

from hfsuite.trials.ray_version import check_ray_version

check_ray_version()
