"""The streamer beside a local run: it is watched, and its end is told at once with its own reason."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from launcher.local import streamer_process
from launcher.local.streamer_process import NotStreamed, StreamerProcess
from maskfleet.run_directory import RunDirectory
from tests.helpers.processes import until


class Beside:
    """A run directory with a file to copy, a destination, and what the user was told."""

    def __init__(self, folder: Path) -> None:
        self.run = RunDirectory(folder / "run")
        self.run.path.mkdir()
        self.run.config.write_text("{}")
        self.destination = folder / "destination"
        self.lines: list[str] = []
        # Of an earlier beginning of the run, whose streamer had no trouble.
        self.run.streamer_log.write_text("2026-11-26 10:00:00,000 launcher.streaming.upload.streamer: drained: 0 s\n")
        self.streamer = StreamerProcess(self.run, str(self.destination), self.lines.append)

    def process(self) -> psutil.Process:
        """The streamer, once it has told its metrics and can be told to end."""
        until(lambda: " behind, " in self.run.streamer_log.read_text(), "a streamer that looks at the run")
        return until(self.child, "a streamer")

    def child(self) -> psutil.Process | None:
        found = []
        for each in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie too, of another test
                found += [each] if "stream" in each.cmdline() else []
        return found[0] if found else None

    def told(self, words: str) -> bool:
        return any(words in line for line in self.lines)


@pytest.fixture
def beside(tmp_path: Path) -> Beside:
    return Beside(tmp_path)


def test_a_killed_streamer_is_named_at_once_and_started_again(beside: Beside) -> None:
    with beside.streamer:
        beside.streamer.start()
        first = beside.process()
        first.kill()
        killed = time.monotonic()
        until(lambda: beside.lines, "a line")
        assert time.monotonic() - killed < 1
        assert beside.lines[0].startswith(
            f"warning: nothing is copied to {beside.destination}: the streamer was killed by"
        )
        assert beside.told("killed by SIGKILL; it is started again in 1 s")
        second = until(beside.child, "the next streamer")
        assert second.pid != first.pid
        (beside.run.path / "metrics.jsonl").write_text("{}\n")
    assert beside.lines[1:] == [f"copying the rest to {beside.destination}", beside.lines[-1]]
    assert beside.lines[-1].startswith(f"copied to:   {beside.destination}")
    assert (beside.destination / "metrics.jsonl").exists()
    assert not second.is_running()


def test_what_a_killed_streamer_left_is_copied_at_the_end(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends while the next streamer is still waited for."""
    monkeypatch.setattr(streamer_process, "FIRST_PAUSE", 600.0)
    with beside.streamer:
        beside.streamer.start()
        beside.process().kill()
        until(lambda: beside.lines, "a line")
        (beside.run.path / "metrics.jsonl").write_text("{}\n")
    assert beside.told("copied to: ")
    assert (beside.destination / "metrics.jsonl").exists()


def test_a_streamer_that_is_killed_while_it_drains_leaves_nothing(beside: Beside) -> None:
    def kill(line: str) -> None:
        beside.lines.append(line)
        if line.startswith("copying the rest"):
            child.kill()

    beside.streamer = StreamerProcess(beside.run, str(beside.destination), kill)
    with beside.streamer:
        beside.streamer.start()
        child = beside.process()
        (beside.run.path / "metrics.jsonl").write_text("{}\n")
    assert beside.told("copied to: ")
    assert (beside.destination / "metrics.jsonl").exists()


def test_a_streamer_that_ends_by_itself_says_why_and_is_not_started_again(beside: Beside) -> None:
    beside.destination.write_text("a file")
    beside.streamer.start()
    until(lambda: beside.lines, "a line")
    time.sleep(1)
    assert beside.child() is None
    with pytest.raises(NotStreamed, match=r"not all of .* is in .*: .*destination.*; mend it and run") as caught:
        beside.streamer.__exit__(None, None, None)
    assert len([line for line in beside.lines if line.startswith("warning: nothing is copied to")]) == 1
    assert beside.lines[0].endswith("; the training goes on without it")
    for line in (beside.lines[0], str(caught.value)):
        assert "drained" not in line, "the words of an earlier streamer"
        assert "not a directory" in line.lower()


def test_a_streamer_is_not_started_again_for_ever(
    beside: Beside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing = tmp_path / "crashing"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(streamer_process, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(streamer_process, "MAX_RESTARTS", 3)
    monkeypatch.setattr(sys, "executable", str(crashing))
    beside.streamer.start()
    until(lambda: beside.told("the training goes on without it"), "the last line")
    with pytest.raises(NotStreamed, match="the streamer was killed by SIGSEGV"):
        beside.streamer.__exit__(None, None, None)
    assert sum("it is started again" in line for line in beside.lines) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_streamer_ends_with_the_launcher(beside: Beside, number: signal.Signals) -> None:
    program = (
        "import sys, time; from pathlib import Path; from maskfleet.run_directory import RunDirectory\n"
        "from launcher.local.streamer_process import StreamerProcess\n"
        "StreamerProcess(RunDirectory(Path(sys.argv[1])), sys.argv[2], print).start(); time.sleep(600)"
    )
    parent = psutil.Popen([sys.executable, "-c", program, str(beside.run.path), str(beside.destination)])
    until(lambda: "behind" in beside.run.streamer_log.read_text(), "a streamer")
    children = parent.children()
    parent.send_signal(number)
    parent.wait(10)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert (beside.destination / "config.json").exists()
