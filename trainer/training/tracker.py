"""Who is told of a run beside TensorBoard: a tracker of the user's own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from maskfleet.child_processes import report_line
from maskfleet.errors import BadInput
from trainer.own_code import load, refuse, users_code


class Tracker(Protocol):
    """What ``--tracker MODULE:FUNCTION`` makes: FUNCTION() gives one. It lives in the process of worker 0."""

    def start(self, run: Path, settings: Mapping[str, Any]) -> None:
        """At each start of the run in the folder ``run``, also when it goes on after a stop."""

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """After each validation, and at the end with names that begin with ``final/``.

        A score that is not known is left out. After a stop, steps may come again.
        """

    def end(self, state: str) -> None:
        """``done``, ``stopped`` or ``failed``. A process that is killed says nothing."""


class Tracking:
    """The tracker that ``--tracker`` names. Once it has failed, training goes on without it, and a line says so."""

    def __init__(self, name: str, run: Path, settings: Mapping[str, Any]):
        self._said = f"--tracker {name}"
        function = load("--tracker", name)
        with users_code(self._said):
            self._tracker: Tracker | None = function()
        if missing := [each for each in ("start", "scores", "end") if not callable(getattr(self._tracker, each, None))]:
            raise refuse(self._said, function, f"expected an object with start, scores and end, found no {missing[0]}")
        with users_code(self._said):
            self._tracker.start(run, settings)

    def scores(self, step: int, values: Mapping[str, float | None]) -> None:
        known = {name: float(value) for name, value in values.items() if value is not None and not math.isnan(value)}
        with self._unless_failed() as tracker:
            tracker.scores(step, known)

    def end(self, state: str) -> None:
        with self._unless_failed() as tracker:
            tracker.end(state)

    @contextmanager
    def _unless_failed(self) -> Iterator[Any]:
        try:
            with users_code(self._said):
                yield self._tracker or _Nobody()
        except BadInput as error:
            self._tracker = None
            report_line(f"warning: {error}; the tracker is told no more")


class _Nobody:
    """Listens to nothing."""

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def end(self, state: str) -> None:
        pass
