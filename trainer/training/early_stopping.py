"""When to stop because training does not get better any more. Pure; imports no TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """The best validation so far, and how many came after it.

    Higher is better. The state of a run: two numbers to be kept in its checkpoints, so that a resumed run
    stops at the same epoch.
    """

    best: float = -math.inf
    since_best: int = 0

    def after(self, value: float) -> Progress:
        """With one more validation; nan is worse than anything."""
        return Progress(value, 0) if value > self.best else Progress(self.best, self.since_best + 1)

    def is_exhausted(self, patience: int) -> bool:
        """Whether ``patience`` validations have not been better than the best; never with a patience of 0."""
        return 0 < patience <= self.since_best
