"""The GPU memory that a training step takes, and what would fit a card that has too little. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from maskfleet.config import TrainConfig
from maskfleet.text import format_bytes

LEAST = 0.9
"""Share of an estimate that a step surely takes: it is below what TensorFlow allocates, by nothing to a third."""
USABLE = 0.7
"""Share of a card that an estimate may take: CUDA and the kernels want some, and it is that much too low."""


@dataclass(frozen=True)
class StepMemory:
    """Estimate of one replica's, in bytes.

    Attributes:
        batch: examples at a time.
        kept: weights, what the optimizer keeps, and sums of gradients; the same for any batch.
        passing: what is there for a time, as good as proportional to the batch.
    """

    batch: int
    kept: int
    passing: int

    @property
    def least(self) -> int:
        """What it surely takes."""
        return int(LEAST * (self.kept + self.passing))

    def fitting(self, memory: int) -> int:
        """Examples at a time for a card of so many bytes; 0 if not one."""
        return max(0, math.floor((USABLE * memory - self.kept) * self.batch / self.passing))

    def trouble(self, memory: int, config: TrainConfig) -> str:
        """Why a card of so many bytes is surely too small, and what fits it; empty if it may do."""
        if self.least <= memory:
            return ""
        examples = f"{self.batch} examples" if self.batch > 1 else "one example"
        what = (
            f"a step takes {format_bytes(self.least)} or more, with {examples} of {config.image_size} pixels at a time"
        )
        if (most := min(self.fitting(memory), self.batch - 1)) < 1:
            return f"{what}: lower --image-size, or take a larger card"
        parts = f"--accumulate {config.accumulate * math.ceil(self.batch / most)}"
        way = parts if config.global_batch is not None else f"--batch-per-replica {most} {parts}"
        return f"{what}: some {most} fit, and {way} takes as many examples a step"
