"""What all unit tests have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches of this process alone: what other runs of this machine write and delete must not matter."""
    before = os.environ.get("MASKFLEET_CACHE")
    os.environ["MASKFLEET_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["MASKFLEET_CACHE"]
    else:
        os.environ["MASKFLEET_CACHE"] = before
