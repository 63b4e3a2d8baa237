"""How busy the driver's machine is while a sweep runs: MLflow's own measures, on the sweep's run.

MLflow's `SystemMetricsMonitor` ends itself at the first call that the store does not answer. So its monitors measure
here, and the sweep's writer hands the points over when the store takes them. Driver, in a thread of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from hfsuite.tracking.points import Point

EVERY_S = 10.0  # unless MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL says otherwise
PREFIX = "system/"  # by which MLflow's interface finds them


class SystemMetrics:
    """Measures now and then, until `close`.

    Args:
        began_at: of the sweep, milliseconds since 1970. The step of a point is in seconds since then.
    """

    def __init__(self, began_at: int) -> None:
        self._began_at = began_at
        self._points: list[Point] = []
        self._is_closed, self._turn = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._measure, name="system-metrics", daemon=True)

    def begin(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def take(self) -> list[Point]:
        """What was measured since the last call."""
        with self._turn:
            taken, self._points = self._points, []
        return taken

    def close(self) -> None:
        """Measures no more."""
        self._is_closed.set()

    def _measure(self) -> None:
        from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL

        every_s = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or EVERY_S
        monitors = list(_monitors())
        for monitor in monitors:
            monitor.collect_metrics()  # shares and rates are since the call before
            monitor.clear_metrics()
        while not self._is_closed.wait(every_s):
            now = int(time.time() * 1_000)
            step = max(0, now - self._began_at) // 1_000
            for monitor in monitors:
                monitor.collect_metrics()
            measured = {name: value for each in monitors for name, value in each.aggregate_metrics().items()}
            with self._turn:
                self._points += [(PREFIX + name, float(value), now, step) for name, value in measured.items()]
            for monitor in monitors:
                monitor.clear_metrics()


def _monitors() -> Iterator[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    yield from (CPUMonitor(), DiskMonitor(), NetworkMonitor())
    try:
        yield GPUMonitor()
    except RuntimeError:  # no GPU
        return
