"""The cost model of ``launcher estimate``, held against runs of 1, 2 and 4 workers of as much CPU each."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from launcher.estimate import Link, Measured, estimate
from tests.benchmarks.all_reduce import gradient_sizes, seconds_of
from tests.benchmarks.cpu_share import equal_shares, put_into
from tests.benchmarks.row import Row
from tests.helpers.processes import LocalRun

COUNTS = (1, 2, 4)
BATCH = 16
"""Of each worker."""
SETTINGS = ("--image-size=128", "--epochs=3", "--checkpoint-steps=0")
TURNS = 3


def rows() -> Iterable[Row]:
    with equal_shares(max(COUNTS)) as shares:
        measured: dict[int, list[Measured]] = {count: [] for count in COUNTS}
        for _ in range(TURNS):
            for count in COUNTS:
                measured[count].append(_run(shares[:count]))
        link = _link(shares[:2])
    seconds = {count: statistics.median(run.step_seconds for run in runs) for count, runs in measured.items()}
    for origin in (min(COUNTS), max(COUNTS)):
        run = dataclasses.replace(measured[origin][0], step_seconds=seconds[origin])
        for each in estimate(run, [count for count in COUNTS if count != origin], link):
            found = each.global_batch / seconds[each.workers]
            yield Row(
                f"launcher estimate of {each.workers} workers from a run of {origin} / measured",
                each.images_per_second / found,
                "x",
                f"{each.images_per_second:.1f} for {found:.1f} images/s; 1 is wanted",
            )


def _run(shares: Sequence[Path]) -> Measured:
    """One worker for each share of a CPU."""
    with tempfile.TemporaryDirectory() as folder:
        settings = (*SETTINGS, f"--global-batch={BATCH * len(shares)}")
        with LocalRun.start(Path(folder) / "run", *settings, workers=len(shares)) as run:
            for worker, share in enumerate(shares):
                put_into(share, run.training_process(worker).pid)
            assert run.wait() == 0, run.output.read_text()
        return Measured.of(run.directory)


def _link(shares: Sequence[Path]) -> Link:
    """Between two workers of such a share: what one byte takes, and what a message without many."""
    sizes = gradient_sizes()
    whole = seconds_of(sizes, shares=shares)["list"]
    few = seconds_of([1] * len(sizes), shares=shares)["list"]
    latency = few / 2  # two messages each in a ring of two
    return Link(4 * sum(sizes) / (whole - few), latency)
