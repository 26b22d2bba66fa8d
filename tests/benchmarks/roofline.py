"""How much of what this machine can multiply and add a training step uses."""

from __future__ import annotations

import tensorflow as tf

from maskfleet.config import TrainConfig
from tests.benchmarks.turns import Way
from trainer.models.network import build_network

PRODUCTS = 16
"""In a turn."""


def side() -> int:
    """Of the matrices at which the device is at its best: a CPU has small caches, a GPU many cores to fill."""
    return 8192 if tf.config.list_physical_devices("GPU") else 1536


def matrix_products() -> Way:
    """A turn takes :func:`product_operations`."""
    left, right = (tf.random.normal((side(), side()), seed=seed) for seed in range(2))
    multiply = tf.function(tf.matmul, autograph=False)

    def run() -> None:
        for _ in range(PRODUCTS):
            product = multiply(left, right)
        product[0, 0].numpy()

    return run


def product_operations() -> int:
    return PRODUCTS * 2 * side() ** 3


def step_operations(config: TrainConfig, classes: int, batch: int) -> int:
    """Floating-point operations of a step's network and its gradients, for a frozen encoder whose features are cached.

    Counted by TensorFlow's profiler in the graph that training runs; the loss, batch normalisation and the optimizer
    are some parts in a thousand.
    """
    network = build_network(config, classes)
    features = [
        tf.TensorSpec([batch, *shape[1:]], network.encoder.compute_dtype) for shape in network.encoder.output_shape
    ]

    @tf.function(autograph=False, input_signature=features)
    def gradients(*features: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = network.fused_decoder(features, training=True)
        return tape.gradient(logits, network.model.trainable_variables)

    options = tf.compat.v1.profiler.ProfileOptionBuilder(tf.compat.v1.profiler.ProfileOptionBuilder.float_operation())
    graph = gradients.get_concrete_function().graph
    return int(tf.compat.v1.profiler.profile(graph, options=options.with_empty_output().build()).total_float_ops)
