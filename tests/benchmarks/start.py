"""From the command to the first step, and the memory it takes, against the tutorial's plain Keras script."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from tests.benchmarks.row import Row
from tests.helpers.processes import LocalRun

TURNS = 3


def rows() -> Iterable[Row]:
    seconds: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for turn in range(TURNS + 1):
        measured = {"plain Keras": plain_script()}
        measured["launcher run --preset tutorial"] = our_run("--preset=tutorial", "--unfreeze-from=none")
        measured["launcher run --preset default"] = our_run()
        for name, (start, peak) in measured.items():
            if turn:  # the first one fills the caches
                seconds.setdefault(name, []).append(start)
                memory.setdefault(name, []).append(peak)
    for name, taken in seconds.items():
        wanted = "10 or less is wanted" if name.startswith("launcher") else "same data, from its cache"
        yield Row(f"start to the end of the first step, {name}", statistics.median(taken), "s", wanted)
    peaks = {name: statistics.median(found) for name, found in memory.items()}
    theirs = peaks.pop("plain Keras")
    for name, peak in peaks.items():
        yield Row(f"peak memory, {name}", peak / theirs, "x", f"{peak / 2**20:.0f} against {theirs / 2**20:.0f} MiB")


def plain_script() -> tuple[float, float]:
    """(seconds to the end of the first step, peak bytes of an epoch)."""
    command = [sys.executable, "-m", "tests.benchmarks.plain_keras", "1", "synthetic", "none"]
    began = time.time()
    with psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())["first_step"] - began
        return first, peak_memory(process)


def our_run(*recipe: str) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        settings = (*recipe, "--epochs=1", "--encoder-weights=none", "--no-export")
        began = time.time()
        with LocalRun(path, f"--run-dir={path}", "--", *settings) as run:
            run.wait_for_step(1)
            first = time.time() - began
            return first, peak_memory(run.process)


def peak_memory(process: psutil.Process) -> float:
    """Most bytes of their own that the process and those below it ever held until its end.

    Without mapped files: their pages are the kernel's to take back.
    """
    peak = 0
    while process.poll() is None:
        used = 0
        for each in (process, *process.children(recursive=True)):
            try:
                memory = each.memory_info()
            except psutil.NoSuchProcess:
                continue
            used += memory.rss - memory.shared
        peak = max(peak, used)
        time.sleep(0.05)
    return peak
