"""A loss of the user's own: what its function is called with, and what it has to give."""

from __future__ import annotations

from typing import Protocol, cast

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.own_code import load, refuse, users_code

_TOLERANCE = 1e-4
"""By how much, relatively, an example's loss may differ with the batch that it is in."""


class OwnLoss(Protocol):
    """``--loss MODULE:FUNCTION``, alone or in a sum with others."""

    def __call__(self, masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Masks int32 [b, H, W] of classes, 255 where a pixel does not count, and logits float32 [b, H, W, classes] ->
        the loss of each example, float32 [b].

        An example's loss is about its own pixels alone, so that it is the same however examples are spread over
        workers. Called inside tf.function.
        """


class OwnTerm:
    """The function that ``--loss`` names, checked as it is called."""

    def __init__(self, name: str):
        self._said = f"--loss {name}"
        self._function = cast(OwnLoss, load("--loss", name))

    def __call__(self, masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Raises BadSettings if it fails, or gives no losses."""
        with users_code(self._said):
            loss = self._function(tf.cast(masks, tf.int32), logits)
        expected = "expected the loss of each example, float32 [b]"
        if not tf.is_tensor(loss):
            raise refuse(self._said, self._function, f"{expected}, found {type(loss).__name__}")
        if loss.dtype != tf.float32:
            raise refuse(self._said, self._function, f"{expected}, found {loss.dtype.name}")
        if loss.shape.rank != 1 or not loss.shape.is_compatible_with(logits.shape[:1]):
            raise refuse(self._said, self._function, f"{expected}, found {loss.shape}")
        return loss

    def check(self, masks: NDArray[np.uint8], classes: int) -> None:
        """Tries it on two examples.

        Raises:
            BadSettings: it fails, is not finite, has no gradient, is not the same again, or an example's loss depends
                on the other.
        """
        masks = masks[:2]
        logits = tf.random.stateless_normal((*masks.shape, classes), (0, 1))
        with tf.GradientTape() as tape:
            tape.watch(logits)
            both = self(tf.constant(masks), logits)
        gradient = tape.gradient(both, logits)
        again = self(tf.constant(masks), logits)
        alone = tf.concat([self(tf.constant(masks[i : i + 1]), logits[i : i + 1]) for i in range(len(masks))], 0)
        nothing = self(tf.fill(masks.shape, tf.constant(255, tf.uint8)), logits)
        problems = {
            "expected a gradient, found none: use TensorFlow's operations from logits to loss": gradient is None,
            "expected a finite loss, found one that is not": not np.isfinite(both).all(),
            "expected a finite loss where no pixel counts (255), found one that is not": not np.isfinite(nothing).all(),
            "expected the same loss of the same examples, found another: draw nothing at random": np.any(both != again),
            "expected an example's loss to be about its own pixels, found that it depends on others in its batch": (
                not np.allclose(both, alone, rtol=_TOLERANCE, atol=1e-6)
            ),
        }
        for problem, is_so in problems.items():
            if is_so:
                raise refuse(self._said, self._function, problem)
        if not np.isfinite(np.asarray(gradient)).all():
            raise refuse(self._said, self._function, "expected a finite gradient, found one that is not")
