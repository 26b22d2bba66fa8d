"""The clock of the machine may be set back and forth while a run goes on: all durations are by another one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.helpers.processes import SETTINGS, LocalRun, inspect

WOBBLING = """
import time

def wobbling(real=time.time, steady=time.monotonic):
    return real() + (0, -7200, 3600, -86400)[int(steady() * 2) % 4]

time.time = wobbling
time.time_ns = lambda: int(wobbling() * 1e9)
"""


@pytest.mark.long
def test_a_run_and_its_streamer_do_not_mind_the_clock(
    tmp_path: Path, undisturbed_state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice a second, in every process of the run: Python starts each with this module."""
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(WOBBLING)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'clock'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    destination = tmp_path / "destination"
    started = time.monotonic()
    path = tmp_path / "run"
    arguments = (f"--run-dir={path}", "--workers=2", f"--output={destination}", "--", *SETTINGS)
    with LocalRun(path, *arguments) as run:
        run.wait_for_step(7)
        run.training_process(1).kill()
        assert run.wait() == 0, run.output.read_text()
    output = run.output.read_text()
    assert inspect(run.directory)["sha256"] == undisturbed_state
    assert f"copied to:   {destination}" in output
    assert (destination / "checkpoints" / "manifests" / "step-00000040.json").exists()
    assert "warning" not in output
    assert time.monotonic() - started < 300
