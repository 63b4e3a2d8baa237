"""Where goes what a training function logs with MLflow itself: to its trial's run. Runs in ranks."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock
from urllib.parse import urlencode

from hfsuite.tracking.trial_store import ADDRESS, SCHEME, opened, reported

URI, REGISTRY_URI = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
JOINED = "also_logged_with_mlflow"  # in a report: names whose curves hold values that were logged before it
RAYS_OWN = ("training_iteration", "time_total_s")  # in every report


@contextmanager
def logged_to(
    rank: int, *, address: str, experiment: str, sweep_id: str, trial_id: str
) -> Iterator[Callable[[Mapping[str, Any]], dict[str, str]]]:
    """What is logged with MLflow meanwhile goes to the trial's run. Runs in a rank, around the training function.

    Yields what is to be told of each report, and answers with what is to be added to it: which of its names hold values
    that were logged before.

    Args:
        rank: world rank. What others than 0 log is dropped, or a trial would have each value once a rank.
        address: of the sweep's store, without credentials: a rank that needs some has them in its environment.
        experiment: the name of MLflow's.
        sweep_id: the sweep's.
        trial_id: Ray Tune's.
    """
    from hfsuite.tracking.secrets import without_credentials

    own = os.environ.get(URI, "")
    whole = own if without_credentials(own) == address else address
    asked = urlencode({
        "experiment": experiment, "sweep_id": sweep_id, "trial_id": trial_id, "rank": rank,
        "attempt": uuid.uuid4().hex,  # MLflow keeps a store for each address, and would give a closed one again
    })  # fmt: skip
    variables = {
        URI: f"{SCHEME}:?{asked}",
        ADDRESS: whole,
        REGISTRY_URI: os.environ.get(REGISTRY_URI) or whole,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",  # a training function need not end where a server starts anew
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    }
    reported.update(RAYS_OWN)
    with mock.patch.dict(os.environ, variables):
        try:
            yield _met
        finally:
            left = list(opened)
            opened.clear()
            reported.clear()
            for store in left:
                store.close()


def _met(report: Mapping[str, Any]) -> dict[str, str]:
    from hfsuite.tracking.names import flat, mlflow_name

    reported.update(map(mlflow_name, flat(report)))
    joined = {name for store in opened for name in store.logged_before(reported)}
    return {JOINED: ", ".join(sorted(joined))} if joined else {}
