"""TensorFlow's profiler over a window of steps, for the profile page of TensorBoard."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf


class Profiler:
    """Records the steps ``first`` to ``last``, both included and counted from 1, into ``logdir``/plugins/profile."""

    def __init__(self, logdir: Path, first: int, last: int) -> None:
        self._logdir = logdir
        self._first = first
        self._last = last
        self._records = False

    def before(self, first: int, last: int) -> None:
        """To be called before each call that takes the steps ``first`` to ``last``, both included."""
        if self._records and first > self._last:
            self.stop()
        elif not self._records and first <= self._last and last >= self._first:
            tf.profiler.experimental.start(str(self._logdir))
            self._records = True

    def stop(self) -> None:
        """Writes what was recorded, if the window was not passed already."""
        if self._records:
            self._records = False
            tf.profiler.experimental.stop()
