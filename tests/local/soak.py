"""``python -m tests.local.soak --kills 100``: kills a run's processes at random, and compares the bits at the end."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from maskfleet.phase_log import ledger_of
from tests.helpers.processes import LocalRun, inspect, leftovers

SETTINGS = ("--epochs=15", "--max-restarts=1000000")
LONGEST_PAUSE = 12.0
"""Seconds between two kills at most: some come while the processes start, some while they train."""
LAUNCHER_SECONDS = 2.0
"""For Python to start and end around what a run can tell of."""


def soak(folder: Path, kills: int, seed: int, also: Sequence[str] = ()) -> list[str]:
    """Runs twice, once with ``kills`` random SIGKILLs and the settings ``also``; returns what went wrong."""
    chance = random.Random(seed)
    with LocalRun.start(folder / "undisturbed", *SETTINGS) as undisturbed:
        if undisturbed.wait() != 0:
            return [undisturbed.output.read_text()]
    done, began = 0, time.monotonic()
    with LocalRun.start(folder / "soaked", *SETTINGS, *also) as run:
        run.wait_for_step(1)
        while done < kills and not run.is_finished:
            time.sleep(chance.uniform(0, LONGEST_PAUSE))
            victims = [process for process in run.descendants() if process.is_running()]
            if victims:
                chance.choice(victims).kill()
                done += 1
        if run.wait() != 0:
            return [run.output.read_text()]
    wall, spent = time.monotonic() - began, ledger_of(run.directory).seconds
    problems = []
    if abs(sum(spent.values()) - wall) > LAUNCHER_SECONDS + 0.01 * wall:
        problems.append(f"of {wall:.1f} s another time is booked: {spent}")
    if done < kills:
        problems.append(f"the run was over after {done} of {kills} kills")
    if inspect(run.directory)["sha256"] != inspect(undisturbed.directory)["sha256"]:
        problems.append("the final state differs from that of the undisturbed run")
    return problems + leftovers(run.directory)


@click.command()
@click.option("--kills", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(kills: int, seed: int) -> None:
    """Soak a run of two workers in random kills."""
    with tempfile.TemporaryDirectory() as folder:
        problems = soak(Path(folder), kills, seed)
    click.echo("\n".join(problems) or f"{kills} kills: the same bits, nothing left over")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
