"""How many steps a run has, and which of them end an epoch. Imports no TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass

from maskfleet.errors import BadSettings


@dataclass(frozen=True)
class Plan:
    """The steps of a run.

    The examples form one endless stream, epoch after epoch, that is cut into global batches: all batches are
    full, and one that an epoch's end falls into holds examples of both epochs. An epoch ends with the step
    that trains on its last example.

    Attributes:
        examples: in the training split.
        global_batch: examples per step over all workers.
        epochs: passes over the examples.
        slices: each worker's part of the global batch.
    """

    examples: int
    global_batch: int
    epochs: int
    slices: tuple[slice, ...]

    def __post_init__(self) -> None:
        if self.global_batch > self.examples:
            raise BadSettings(
                f"the global batch of {self.global_batch} is larger than the data's {self.examples} training "
                "examples; choose a smaller --batch-per-replica, --accumulate or --global-batch"
            )

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self._last_step(self.epochs)

    def local_batch(self, worker: int) -> int:
        """Examples of one worker per step."""
        return int(self.slices[worker].stop - self.slices[worker].start)

    def epoch(self, step: int) -> int:
        """Epochs that have ended after ``step`` steps."""
        return min(step * self.global_batch // self.examples, self.epochs)

    def ends_epoch(self, step: int) -> bool:
        return step > 0 and self.epoch(step) > self.epoch(step - 1)

    def examples_in_epoch_ending(self, step: int) -> int:
        """Examples of the steps since the epoch before the one that ends with ``step``."""
        return (step - self._last_step(self.epoch(step) - 1)) * self.global_batch

    def steps_at_once(self, step: int, most: int, checkpoint_steps: int) -> int:
        """How many steps, ``most`` at most, may follow ``step`` without a look at them before the last.

        An epoch's end is validated, and every ``checkpoint_steps``-th step is saved (0: none).
        """
        ends = [step + most, self._last_step(self.epoch(step) + 1)]
        if checkpoint_steps:
            ends.append((step // checkpoint_steps + 1) * checkpoint_steps)
        return min(ends) - step

    def _last_step(self, epoch: int) -> int:
        return math.ceil(epoch * self.examples / self.global_batch)
