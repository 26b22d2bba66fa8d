"""What becomes of a run's output that nobody can read any more."""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Callable

import pytest

from launcher.local.console import Console


@pytest.mark.parametrize("ends", [os.pipe, pty.openpty], ids=["a pipe", "a terminal"])
def test_lines_without_a_reader_are_dropped(
    ends: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = ends()
    with os.fdopen(writing, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        console = Console(2)
        console.report_line("read")
        assert os.read(reading, 100).startswith(b"read")
        os.close(reading)
        with console:
            console.report_line("unread")
            console.worker_line(1, "unread")
