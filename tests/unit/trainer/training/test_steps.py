"""What a traced training step looks like."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from tests.helpers.training_steps import batches, set_up
from trainer.data.cache import load_dataset
from trainer.training.steps import make_step_function


@pytest.mark.parametrize("replicas", ["in the main thread", "in threads"])
def test_no_weight_is_read_before_the_input_is_there(replicas: str) -> None:
    """What is computed of weights alone would count as a wait for data."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0"]) if replicas == "in threads" else tf.distribute.get_strategy()
    small: dict[str, Any] = {"image_size": 32, "batch_per_replica": 2, "decoder_filters": 8}
    config = TrainConfig(**small, unfreeze_from="all", encoder_weights="none")
    with strategy.scope():
        training = set_up(config, load_dataset("synthetic", None, 32))
    data = iter(batches(training))
    take_steps: Any = make_step_function(training)
    step = take_steps.get_concrete_function(data, tf.constant(1), tf.constant(0.0, tf.float64))
    operations = step.graph.get_operations()
    products = [each for each in operations if each.type in ("Conv2D", "DepthwiseConv2dNative")]
    kernels = [tensor.op for each in products for tensor in each.inputs[1:] if tensor.op.type == "ReadVariableOp"]
    assert kernels
    assert all("Timestamp" in [before.type for before in kernel.control_inputs] for kernel in kernels)
