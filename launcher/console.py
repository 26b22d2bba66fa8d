"""What a person sees: lines of the workers, and one progress display where there is a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import rich.console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


class Console:
    """Prints whole lines above a progress bar; plain lines alone where standard output is no terminal.

    Args:
        workers: with more than one, each worker's lines get a prefix.
    """

    def __init__(self, workers: int):
        self._workers = workers
        self._console = rich.console.Console(highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"), console=self._console,
            transient=True, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=None, facts="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """A line of the launcher's own."""
        if text:
            self._console.print(text, markup=False)

    def worker_line(self, worker: int, line: str) -> None:
        """A line that a worker has printed."""
        if self._workers == 1:
            self._console.print(line, markup=False)
        else:
            prefix = Text(f"worker-{worker} | ", style=COLOURS[worker % len(COLOURS)])
            self._console.print(prefix + line)

    def progress(self, progress: Mapping[str, Any]) -> None:
        """Shows the content of progress.json."""
        if not progress:
            return
        facts = [
            f"step {progress['step']}/{progress['steps']}",
            _fact(progress["images_per_second"], "{:.1f} images/s"),
            _fact(progress["loss"], "loss {:.3f}"),
            _fact(progress["miou"], "mIoU {:.3f}"),
            _fact(progress["eta_seconds"], "ETA {:.0f} s"),
        ]
        self._bar.update(
            self._task,
            description=f"epoch {progress['epoch']}/{progress['epochs']}",
            completed=progress["step"],
            total=progress["steps"],
            facts="  ".join(filter(None, facts)),
        )


def _fact(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
