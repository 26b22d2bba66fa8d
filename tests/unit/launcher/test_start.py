"""The launcher answers at once, since it imports nothing that is slow."""

import subprocess
import sys

import pytest

from launcher.cli import COMMANDS

SLOW = ("tensorflow", "keras", "tensorflow_datasets", "kubernetes", "google.cloud.storage", "obstore", "pydantic")


def imported(*arguments: str) -> tuple[str, set[str]]:
    """What a launcher command prints, and the modules that it imports."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "launcher.cli", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout, {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}


def test_help_imports_nothing_slow():
    output, modules = imported("--help")
    assert all(command in output for command in COMMANDS)
    assert not modules & set(SLOW)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_no_tensorflow(command):
    output, modules = imported(command, "--help")
    assert f"launcher.cli {command} [OPTIONS]" in output
    assert not modules & {"tensorflow", "keras", "kubernetes"}


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("run", "build")])
def test_the_help_of_a_command_imports_nothing_of_what_it_does(command):
    _, modules = imported(command, "--help")
    assert not [name for name in modules if name.startswith(("launcher.operations.", "launcher.cluster."))]
