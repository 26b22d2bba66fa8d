"""A value that changes while it is measured."""

from __future__ import annotations


class MovingAverage:
    """Of the values so far, the newer ones weighing more; 0 before the first. One thread at a time may add.

    Args:
        weight: of the newest one; 1 / weight is about the number of those that count.
    """

    def __init__(self, weight: float):
        self.value = 0.0
        self._weight, self._is_empty = weight, True

    def add(self, value: float) -> None:
        self.value += (1.0 if self._is_empty else self._weight) * (value - self.value)
        self._is_empty = False
