"""A Ray outside the tested range is refused with one clear sentence."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

import pytest
import ray

import hfsuite
from hfsuite.errors import ConfigurationError
from hfsuite.trials.ray_version import check_ray_version
from tests import program


def test_an_untested_ray_is_refused_and_can_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    check_ray_version()
    monkeypatch.setattr(ray, "__version__", "3.1.0")
    with pytest.raises(ConfigurationError, match=r"Ray 3\.1\.0 is installed, and hfsuite was tested with Ray .*>=2"):
        check_ray_version()
    monkeypatch.setenv("HFSUITE_ANY_RAY", "1")
    check_ray_version()


def test_a_source_tree_that_is_not_installed_works(own_directory: Path) -> None:
    tree = own_directory / "tree"
    shutil.copytree(Path(hfsuite.__file__).parent, tree / "hfsuite", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(hfsuite.__file__).parents[1] / "pyproject.toml", tree)
    asked = textwrap.dedent("""
        import importlib.metadata as metadata
        import sys

        real = metadata.distribution

        def without_hfsuite(name):
            if name == "hfsuite":
                raise metadata.PackageNotFoundError(name)
            return real(name)

        metadata.distribution = without_hfsuite
        sys.path.insert(0, "tree")
        from hfsuite.checkpoints import manifest
        from hfsuite.trials import ray_version

        ray_version.check_ray_version()
        assert any(each.startswith("ray") for each in ray_version._requirements())
        assert "hfsuite" not in manifest.versions() and "tree" in ray_version.__file__
    """)
    running = program.start("-c", asked)
    said = running.communicate()
    assert running.returncode == 0, said
