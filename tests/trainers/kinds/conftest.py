"""Kinds of trainings, all of a module in one sweep: `USUAL` each time, the others of `EVERY` with the slow tests."""

from __future__ import annotations

import pytest

from tests.trainers.kinds import in_ranks


@pytest.fixture(scope="module")
def usual(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> in_ranks.Compared:
    module = request.module
    return in_ranks.compared(module.USUAL, module.SAME, tmp_path_factory.mktemp("usual"))


@pytest.fixture(scope="module")
def others(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> in_ranks.Compared:
    module = request.module
    kinds = [kind for kind in module.EVERY if kind not in module.USUAL]
    return in_ranks.compared(kinds, module.SAME, tmp_path_factory.mktemp("others"))


@pytest.fixture
def found(kind: str, request: pytest.FixtureRequest) -> in_ranks.Compared:
    name = "usual" if kind in request.module.USUAL else "others"
    compared: in_ranks.Compared = request.getfixturevalue(name)
    assert str(compared.trials[kind].state) == "completed", compared.trials[kind].failure
    assert compared.trials[kind].workers_lost is None
    return compared
