"""One trial under Ray Tune. In the trial's actor."""

from hfsuite.trials.ray_version import check_ray_version

check_ray_version()
