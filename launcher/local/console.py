"""What a person sees: lines of the workers, and one progress display where there is a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import rich.console
import rich.progress
from rich.text import Text

from maskfleet.records import Progress
from maskfleet.text import printable

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


class Console:
    """Prints whole lines above a progress bar; plain lines alone where standard output is no terminal.

    Nobody has to read them: once standard output can't be written, they are dropped.

    Args:
        workers: with more than one, each worker's lines get a prefix.
    """

    def __init__(self, workers: int):
        self._workers = workers
        self._console = rich.console.Console(highlight=False, soft_wrap=True)
        text, bar = rich.progress.TextColumn, rich.progress.BarColumn
        self._bar = rich.progress.Progress(
            text("{task.description}"), bar(), text("{task.fields[facts]}"), console=self._console,
            transient=True, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=None, facts="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._unread():
            self._bar.stop()

    def report_line(self, text: str) -> None:
        """A line of the launcher's own."""
        if text:
            self._print(text)

    def worker_line(self, worker: int, line: str) -> None:
        """A line that a worker has printed."""
        if self._workers == 1:
            self._print(printable(line))
        else:
            self._print(Text(f"worker-{worker} | ", style=COLOURS[worker % len(COLOURS)]) + printable(line))

    def progress(self, progress: Progress | None) -> None:
        """Shows where the run is, once it is known."""
        if progress is None:
            return
        facts = [
            f"step {progress.step}/{progress.steps}",
            _fact(progress.images_per_second, "{:.1f} images/s"),
            _fact(progress.loss, "loss {:.3f}"),
            _fact(progress.miou, "mIoU {:.3f}"),
            _fact(progress.eta_seconds, "ETA {:.0f} s"),
        ]
        self._bar.update(
            self._task,
            description=f"epoch {progress.epoch}/{progress.epochs}",
            completed=progress.step,
            total=progress.steps,
            facts="  ".join(filter(None, facts)),
        )

    def _print(self, line: str | Text) -> None:
        with self._unread():
            self._console.print(line, markup=False)

    @contextlib.contextmanager
    def _unread(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SystemExit):  # a terminal that has hung up; a pipe without a reader, for which rich leaves
            self._console.quiet = True
            with Path(os.devnull).open("wb") as nothing:  # takes what is buffered, at the latest when Python ends
                os.dup2(nothing.fileno(), sys.stdout.fileno())


def _fact(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
