"""Learning rates over a run, inside and outside tf.function; what the optimizers do with weight decay."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from trainer.objective.optimizers import build_optimizer
from trainer.objective.schedules import LearningRate, learning_rate


def rates(steps: list[int], **settings: Any) -> np.ndarray:
    config = TrainConfig(**{"learning_rate": 1.0, "warmup_epochs": 1, **settings})
    schedule = learning_rate(config, steps_per_epoch=10, total_steps=110, scale=2.0)
    traced = tf.function(schedule)
    return np.array([traced(tf.constant(step, tf.int64)) for step in steps])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("constant", [2, 2, 2, 2]),
        ("cosine", [2, 1, 2 * (1 + np.cos(np.pi * 0.75)) / 2, 0]),
        ("polynomial", [2, 2 * 0.5**0.9, 2 * 0.25**0.9, 0]),
        ("step", [2, 0.2, 0.02, 0.02]),
    ],
)
def test_the_shape_after_the_warm_up(shape: str, expected: list[float]) -> None:
    np.testing.assert_allclose(rates([10, 60, 85, 110], schedule=shape), expected, atol=1e-6)


def test_the_warm_up_is_linear_and_its_first_step_moves() -> None:
    np.testing.assert_allclose(rates([0, 4, 9, 10], schedule="constant"), [0.2, 1, 2, 2], rtol=1e-6)


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    np.testing.assert_allclose(rates([0, 1], schedule="constant", warmup_epochs=0), [2, 2])


def test_a_warm_up_longer_than_the_run_stays_linear() -> None:
    np.testing.assert_allclose(rates([54, 109], schedule="cosine", warmup_epochs=22), [0.5, 1], rtol=1e-6)


@pytest.mark.parametrize(("optimizer", "decayed"), [("adam", False), ("adamw", True)])
def test_weight_decay_is_decoupled_and_spares_biases_and_norms(optimizer: str, decayed: bool) -> None:
    config = TrainConfig(optimizer=optimizer, weight_decay=0.5, learning_rate=0.1, schedule="constant", warmup_epochs=0)
    dense = keras.layers.Dense(1, kernel_initializer="ones", bias_initializer="ones")
    norm = keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((1,)), dense, norm])
    built = build_optimizer(config, learning_rate(config, steps_per_epoch=1, total_steps=9, scale=1))
    built.build(model.trainable_variables)
    built.apply_gradients([(tf.zeros_like(v), v) for v in model.trainable_variables])
    assert float(dense.kernel[0, 0]) == pytest.approx(0.95 if decayed else 1)
    assert (float(dense.bias[0]), float(norm.gamma[0])) == (1, 1)


def test_without_weight_decay_nothing_is_computed_for_it() -> None:
    kernel = keras.Variable(np.full(3, np.inf, np.float32), name="kernel")
    built = build_optimizer(TrainConfig(optimizer="adamw", weight_decay=0.0), LearningRate("constant", 0.1, 0, 10))
    built.apply_gradients([(tf.zeros(3), kernel)])
    assert np.isinf(kernel.numpy()).all(), "inf - 0 * inf is no number"


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_the_encoder_moves_by_its_share_of_the_learning_rate(optimizer):
    def model():
        layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        return keras.Sequential([keras.Input((1,)), layer])

    encoder, decoder = model(), model()
    config = TrainConfig(optimizer=optimizer, weight_decay=0.0, encoder_learning_rate=0.25, encoder_weights="imagenet")
    built = build_optimizer(config, LearningRate("constant", 0.5, 0, 10), encoder)
    weights = [encoder.trainable_variables[0], decoder.trainable_variables[0]]
    built.build(weights)
    built.apply([tf.ones((1, 1)), tf.ones((1, 1))])
    slow, fast = (1 - float(weight.value[0, 0]) for weight in weights)
    assert slow == pytest.approx(0.25 * fast, rel=1e-4)


@pytest.mark.parametrize("share", [0, 0.25])
def test_the_encoder_decays_by_its_share_of_the_learning_rate(share: float) -> None:
    """As the rate does, so that an encoder with a share of 0 stays as it is, bit for bit."""
    settings: dict[str, Any] = {"optimizer": "adamw", "weight_decay": 0.5, "encoder_weights": "imagenet"}
    encoder, decoder = (keras.Sequential([keras.Input((1,)), keras.layers.Dense(64)]) for _ in range(2))
    built = build_optimizer(
        TrainConfig(**settings, encoder_learning_rate=share), LearningRate("constant", 0.1, 0, 10), encoder
    )
    kernels = [encoder.layers[0].kernel, decoder.layers[0].kernel]
    before = [kernel.numpy() for kernel in kernels]
    built.build(kernels)
    built.apply([tf.zeros((1, 64))] * 2)
    np.testing.assert_allclose(kernels[0], before[0] * (1 - 0.05 * share), rtol=1e-6)
    np.testing.assert_allclose(kernels[1], before[1] * 0.95, rtol=1e-6)
    if share == 0:
        built.apply([tf.ones((1, 64))] * 2)
        np.testing.assert_array_equal(kernels[0], before[0])


@pytest.mark.parametrize(("name", "theirs"), [("adam", keras.optimizers.Adam), ("adamw", keras.optimizers.AdamW)])
def test_the_fused_kernel_is_keras_s_formula(name: str, theirs: type[keras.optimizers.Optimizer]) -> None:
    config = TrainConfig(optimizer=name, learning_rate=0.01, schedule="constant", warmup_epochs=0, weight_decay=0.004)
    rate = learning_rate(config, steps_per_epoch=1, total_steps=99, scale=1)
    start = np.linspace(-1, 1, 60, dtype=np.float32).reshape(20, 3)
    results = []
    for optimizer in (build_optimizer(config, rate), theirs(rate)):
        variable = keras.Variable(start, name="kernel")
        gradients = np.random.default_rng(0).normal(size=(30, 20, 3)).astype(np.float32)
        for gradient in gradients:
            optimizer.apply_gradients([(tf.constant(gradient), variable)])
        results.append(variable.numpy())
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=5e-6)
