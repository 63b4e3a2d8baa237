"""One Ray session for all tests, offline, on four logical CPUs."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.05"  # `fit()` polls every 2 s otherwise
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # six processes that no test needs, and a leftover each
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("MLFLOW_EXPERIMENT_NAME", None)

import pytest
import ray
import ray.data

from hfsuite.tracking import store

CPUS = 4
# A shell that starts the tests in the background has them ignore Ctrl-C, and so would the sweeps that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
make_database = store._make_database


@pytest.fixture(scope="session", autouse=True)
def ray_session() -> Iterator[None]:
    """The session that every test shares; started even for tests that never use it, so that order does not matter."""
    ray.init(num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a directory of its own: results, tracking store and artifacts go there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def copied_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """MLflow takes seconds to make its tables: it does so once, and other tests of this process get a copy."""
    made = tmp_path_factory.mktemp("tracking") / "mlflow.db"

    def copy(path: Path) -> None:
        if not made.exists():
            make_database(made)
        draft = path.with_name(f".{path.name}.copy")
        shutil.copyfile(made, draft)
        os.replace(draft, path)

    return copy


@pytest.fixture(autouse=True)
def tracking_store(copied_database: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A new store, as the first sweep of a newcomer makes it."""
    monkeypatch.setattr(store, "_make_database", copied_database)
