"""What the workers do together outside a training step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.peers import Peers
from trainer.training.state import Training


def broadcast_from_chief(strategy: tf.distribute.Strategy, variables: Sequence[tf.Variable], *, is_chief: bool) -> None:
    """Gives every worker the chief's values, bit for bit.

    The values are summed as integers, with zeros from everybody but the chief: a sum of floats would turn
    -0.0 into 0.0. They are put together outside of TensorFlow, which would trace hundreds of them for a second.
    """
    if strategy.num_replicas_in_sync == 1:
        return
    sizes = [math.prod(variable.shape) * variable.dtype.size // tf.int32.size for variable in variables]
    own = np.concatenate([_to_bits(each) for each in variables]) if is_chief else np.zeros(sum(sizes), np.int32)

    @tf.function(autograph=False)
    def exchange(bits: tf.Tensor) -> tf.Tensor:
        def in_replica(bits: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            is_source = tf.equal(context.replica_id_in_sync_group, 0)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(is_source, bits, 0))

        return strategy.run(in_replica, args=(bits,))

    bits = strategy.experimental_local_results(exchange(tf.constant(own)))[0].numpy()
    for variable, part in zip(variables, np.split(bits, np.cumsum(sizes)[:-1]), strict=True):
        value = part.view(variable.dtype.as_numpy_dtype).reshape(variable.shape)
        for local in strategy.experimental_local_results(variable):
            local.assign(value)


def _to_bits(variable: tf.Variable) -> NDArray[np.int32]:
    bits: NDArray[np.int32] = np.ravel(variable.numpy()).view(np.int32)
    return bits


def make_sum_over_workers(training: Training) -> Callable[[np.ndarray], np.ndarray]:
    """A worker's float64 vector -> the sum of all workers' vectors.

    To be made once, since each has to be traced.
    """
    if training.peers.workers == 1:
        return lambda vector: vector

    @tf.function(autograph=False)
    def add(vector: tf.Tensor) -> tf.Tensor:
        def in_replica() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, vector / training.local_replicas)

        return training.strategy.run(in_replica)

    return lambda vector: training.strategy.experimental_local_results(add(tf.constant(vector)))[0].numpy()


def value_of_chief(value: int, peers: Peers, strategy: tf.distribute.Strategy) -> int:
    """The chief's ``value``, on every worker."""
    if peers.workers == 1:
        return value
    with strategy.scope():
        variable = tf.Variable(value, dtype=tf.int64, trainable=False)
    broadcast_from_chief(strategy, [variable], is_chief=peers.is_chief)
    return int(variable.numpy())


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """No worker leaves before the chief has written everything: until then a lost worker must be replaced."""
    if strategy.num_replicas_in_sync == 1:
        return

    def in_replica() -> tf.Tensor:
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(1.0))

    tf.function(lambda: strategy.run(in_replica), autograph=False)()
