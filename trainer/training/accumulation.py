"""``--accumulate``: a replica's part of a step in several smaller ones, in the memory of one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from trainer.data.pipeline import worker_slices
from trainer.training.state import Inputs

Compute: TypeAlias = Callable[[Inputs, tf.Tensor], tuple[tf.Tensor, tf.Tensor, "list[tf.Tensor | None]"]]
"""(inputs, masks) of a replica -> its part of the loss, its confusion matrix int64 [C, C], and the gradient of each
trainable variable, None for one that the loss does not depend on."""


def in_parts(compute: Compute, parts: int, variables: Sequence[tf.Variable], classes: int) -> Compute:
    """What ``compute`` gives for a batch, added up over ``parts`` of it, one after another.

    The loss of a part is its examples' sum over the *whole* batch, so the sum is that of the batch at once, but for
    what the order of additions changes. Batch normalisation that is not frozen sees each part by itself.

    Args:
        variables: whose gradients ``compute`` gives.
    """

    def summed(inputs: Inputs, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor | None]]:
        slices = worker_slices(masks.shape[0], parts)
        starts, ends = (np.array([getattr(part, end) for part in slices]) for end in ("start", "stop"))
        sizes = {part.stop - part.start for part in slices}
        size = sizes.pop() if len(sizes) == 1 else None
        reached = [True] * len(variables)

        def pick(tensor: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
            picked = tensor[tf.gather(starts, number) : tf.gather(ends, number)]
            return tf.ensure_shape(picked, [size, *tensor.shape[1:]])

        def add(number: tf.Tensor, loss: tf.Tensor, matrix: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
            some = tf.nest.map_structure(lambda tensor: pick(tensor, number), inputs)
            own, found, gradients = compute(some, pick(masks, number))
            reached[:] = [gradient is not None for gradient in gradients]
            added = [total if g is None else total + g for total, g in zip(sums, gradients, strict=True)]
            return number + 1, loss + own, matrix + found, *added

        zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
        _, loss, matrix, *gradients = tf.while_loop(
            lambda number, *_: number < parts,
            add,
            (0, tf.constant(0.0), tf.zeros([classes, classes], tf.int64), *zeros),
            parallel_iterations=1,  # or all parts would be in memory together
        )
        return loss, matrix, [g if here else None for g, here in zip(gradients, reached, strict=True)]

    return compute if parts == 1 else summed
