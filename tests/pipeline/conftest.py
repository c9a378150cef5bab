"""Fixtures of the tests of builds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.forked import BUILDING, Forking, forking


@pytest.fixture(scope="session")
def building(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    """Runs code in new processes that have loaded what a build needs."""
    with forking(tmp_path_factory.mktemp("building"), BUILDING) as server:
        yield server
