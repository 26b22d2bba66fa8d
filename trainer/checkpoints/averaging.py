"""The exponential moving average of the weights, which the optimizer keeps beside its other slots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf


@contextmanager
def averaged_weights(network: keras.Model, optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Inside, the network's trainable variables have their averages as values; afterwards their own ones again.

    Does nothing if the optimizer keeps no averages (``config.ema_decay`` 0). Not for use inside tf.function.
    """
    inner = _inner(optimizer)
    if not inner.use_ema:
        yield
        return
    own = [variable.numpy() for variable in network.trainable_variables]
    inner.finalize_variable_values(network.trainable_variables)
    try:
        yield
    finally:
        for variable, value in zip(network.trainable_variables, own, strict=True):
            variable.assign(value)


def load_averages(checkpoint: Path, network: keras.Model) -> None:
    """Sets those variables of the network that were trained to the averages in the checkpoint with this prefix."""
    reader = tf.train.load_checkpoint(str(checkpoint))
    names = averages_in(reader)
    for variable in network.variables:
        if name := names.get(variable.path.replace("/", "_")):
            variable.assign(reader.get_tensor(name))


def averages_in(reader: tf.train.CheckpointReader) -> dict[str, str]:
    """The names of the averages in a checkpoint, by their variables' paths with ``_`` in the place of ``/``."""
    return {  # "optimizer/adam.Sup_1_conv_kernel_average/…": TensorFlow writes a slash within a name as ".S"
        name.split("/")[-3].rpartition(".S")[2].removesuffix("_average"): name
        for name in reader.get_variable_to_shape_map()
        if name.startswith("optimizer/") and name.endswith("_average/.ATTRIBUTES/VARIABLE_VALUE")
    }


def _inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """What does the steps: with float16 it is wrapped into one that scales the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)
