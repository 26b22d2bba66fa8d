"""Learning-rate schedules, and the optimizers that follow them."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from maskfleet.config import TrainConfig


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to ``peak`` over ``warmup_steps``, then ``shape`` until ``total_steps``; a tensor for a step.

    Steps count from 0. The warm-up's first step already moves: step s has the rate peak (s + 1) / warmup_steps.
    """

    def __init__(self, shape: str, peak: float, warmup_steps: float, total_steps: int) -> None:
        self.shape = shape
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """``step``: an integer scalar -> float32 scalar."""
        step = tf.cast(step, tf.float32)
        warmth = tf.minimum(1.0, (step + 1) / max(1.0, self.warmup_steps))
        done = (step - self.warmup_steps) / max(1.0, self.total_steps - self.warmup_steps)
        return self.peak * warmth * self._shape(tf.clip_by_value(done, 0.0, 1.0))

    def _shape(self, done: tf.Tensor) -> tf.Tensor:
        """Share of the peak after the share ``done`` of the steps that follow the warm-up."""
        match self.shape:
            case "constant":
                return tf.ones_like(done)
            case "cosine":  # Loshchilov, Hutter, "SGDR", ICLR 2017, without restarts
                return (1 + tf.cos(math.pi * done)) / 2
            case "polynomial":  # the power of DeepLab, Chen et al., PAMI 2018
                return (1 - done) ** 0.9
            case "step":
                return tf.where(done < 0.5, 1.0, tf.where(done < 0.75, 0.1, 0.01))
        raise ValueError(f"no schedule {self.shape!r}")

    def get_config(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
        }


class Sweep(keras.optimizers.schedules.LearningRateSchedule):
    """From ``lowest`` to ``highest`` in ``steps`` steps, each by the same factor."""

    def __init__(self, lowest: float, highest: float, steps: int) -> None:
        self.lowest = lowest
        self.highest = highest
        self.steps = steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """``step``: an integer scalar -> float32 scalar."""
        factor = math.log(self.highest / self.lowest) / max(1, self.steps - 1)
        return self.lowest * tf.exp(tf.cast(step, tf.float32) * factor)

    def rate(self, step: int) -> float:
        """The same in plain numbers."""
        return float(self.lowest * (self.highest / self.lowest) ** (step / max(1, self.steps - 1)))

    def get_config(self) -> dict[str, Any]:
        return {"lowest": self.lowest, "highest": self.highest, "steps": self.steps}


def learning_rate(config: TrainConfig, *, steps_per_epoch: float, total_steps: int, scale: float) -> LearningRate:
    """The schedule of a run of ``total_steps``; ``scale`` multiplies ``config.learning_rate`` (several replicas)."""
    return LearningRate(
        config.schedule,
        config.learning_rate * scale,
        config.warmup_epochs * steps_per_epoch,
        total_steps,
    )
