"""Runs that several tests compare with."""

from pathlib import Path

import pytest

from maskfleet.run_directory import RunDirectory
from tests.helpers.processes import LocalRun, inspect


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of two workers that nobody disturbed."""
    path: Path = tmp_path_factory.mktemp("undisturbed") / "run"
    with LocalRun.start(path) as run:
        assert run.wait() == 0, run.output.read_text()
    return run.directory


@pytest.fixture(scope="session")
def undisturbed_state(undisturbed: RunDirectory) -> str:
    """The SHA-256 over the undisturbed run's final state."""
    return str(inspect(undisturbed)["sha256"])
