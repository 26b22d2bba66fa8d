"""``python -m tests.local.soak --kills 100``: kills a run's processes at random, and compares the bits at the end.

An hour or so with a kill each five minutes, of steps as long as those of a real run:
``--kills 12 --every 300 --workers 1 --goodput 0.95 -- --epochs=200 --image-size=96 --checkpoint-seconds=auto``.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from maskfleet.goodput import goodput, goodput_line
from maskfleet.phase_log import ledger_of
from maskfleet.run_directory import RunDirectory
from tests.helpers.processes import LocalRun, inspect, leftovers

LAUNCHER_SECONDS = 2.0
"""For Python to start and end around what a run can tell of."""


@dataclass(frozen=True)
class Soak:
    """What is run, and what happens to it.

    Attributes:
        every: seconds between two kills, on average; some come while the processes start, some while they train.
        settings: more settings of both runs.
        also: more settings of the run that is killed.
        least: the goodput that it has to come to.
    """

    kills: int = 20
    every: float = 6.0
    seed: int = 0
    workers: int = 2
    settings: Sequence[str] = ()
    also: Sequence[str] = ()
    least: float = 0.0

    def start(self, path: Path, *also: str) -> LocalRun:
        settings = ("--epochs=15", "--max-restarts=1000000", *self.settings, *also)
        return LocalRun.start(path, *settings, workers=self.workers)

    def undisturbed(self, path: Path) -> list[str]:
        with self.start(path) as run:
            return [] if run.process.wait() == 0 else [run.output.read_text()]

    def disturbed(self, path: Path) -> list[str]:
        """Runs with random SIGKILLs; returns what went wrong."""
        chance = random.Random(self.seed)
        done, began = 0, time.monotonic()
        with self.start(path, *self.also) as run:
            run.wait_for_step(1)
            while done < self.kills and not run.is_finished:
                time.sleep(chance.uniform(0, 2 * self.every))
                victims = [process for process in run.descendants() if process.is_running()]
                if victims:
                    chance.choice(victims).kill()
                    done += 1
            if run.process.wait() != 0:
                return [run.output.read_text()]
        wall, spent = time.monotonic() - began, ledger_of(run.directory).seconds
        problems = leftovers(run.directory)
        print(f"{done} kills in {wall:.1f} s, of which {sum(spent.values()):.1f} s are booked: {goodput_line(spent)}")
        if abs(sum(spent.values()) - wall) > LAUNCHER_SECONDS + 0.01 * wall:
            problems.append(f"of {wall:.1f} s another time is booked: {spent}")
        if (share := goodput(spent) or 0.0) < self.least:
            problems.append(f"the goodput is {share:.3f}, below {self.least:g}")
        if done < self.kills:
            problems.append(f"the run was over after {done} of {self.kills} kills")
        return problems


def soak(folder: Path, asked: Soak) -> list[str]:
    """Runs twice, once with kills; returns what went wrong."""
    quiet, killed = folder / "undisturbed", folder / "soaked"
    if problems := asked.undisturbed(quiet) or asked.disturbed(killed):
        return problems
    return difference(quiet, killed)


def difference(undisturbed: Path, disturbed: Path) -> list[str]:
    """What is wrong if the two runs have not ended with the same bits."""
    first, second = (inspect(RunDirectory(path))["sha256"] for path in (undisturbed, disturbed))
    return [] if first == second else ["the final state differs from that of the undisturbed run"]


@click.command()
@click.option("--kills", default=Soak.kills, show_default=True)
@click.option("--every", default=Soak.every, show_default=True, help="Seconds between two kills, on average.")
@click.option("--workers", default=Soak.workers, show_default=True)
@click.option("--seed", default=Soak.seed, show_default=True)
@click.option("--goodput", "least", default=Soak.least, show_default=True, help="It has to come to this.")
@click.argument("settings", nargs=-1, type=click.UNPROCESSED)
def main(kills: int, every: float, workers: int, seed: int, least: float, settings: tuple[str, ...]) -> None:
    """Soak a run with SETTINGS in random kills."""
    asked = Soak(kills, every, seed, workers, settings, least=least)
    with tempfile.TemporaryDirectory() as folder:
        problems = soak(Path(folder), asked)
    click.echo("\n".join(problems) or f"{kills} kills: the same bits, nothing left over")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
