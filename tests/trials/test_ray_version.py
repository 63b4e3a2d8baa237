"""A Ray outside the tested range is refused with one clear sentence."""

from __future__ import annotations

import pytest
import ray

from hfsuite.errors import ConfigurationError
from hfsuite.trials.ray_version import check_ray_version


def test_an_untested_ray_is_refused_and_can_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    check_ray_version()
    monkeypatch.setattr(ray, "__version__", "3.1.0")
    with pytest.raises(ConfigurationError, match=r"Ray 3\.1\.0 is installed, and hfsuite was tested with Ray .*>=2"):
        check_ray_version()
    monkeypatch.setenv("HFSUITE_ANY_RAY", "1")
    check_ray_version()
