"""The dry run of a step's shapes."""

import json
import subprocess
import sys

import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from trainer.training.memory import live_peak, memory_of

MIB = 1 << 20
VECTOR = tf.TensorSpec([MIB // 4], tf.float32)
"""Of one MiB."""


def keeps_for_later(x):
    first = tf.sin(x)
    second = tf.sin(first)
    third = tf.sin(second)
    return first * second * third


def forgets(x):
    for _ in range(5):
        x = tf.sin(x)
    return x


def writes_over(x):
    x = tf.sin(x)
    for _ in range(5):
        x = tf.nn.relu(x) + 1.0
    return x


def never_reads(x):
    tf.sin(x)
    return tf.sin(x)


def widens(x):
    return tf.reduce_sum(tf.tile(tf.reshape(x, [1, -1]), [8, 1]), axis=0)


@pytest.mark.parametrize(
    ("function", "mib"), [(keeps_for_later, 3), (forgets, 2), (writes_over, 1), (never_reads, 1), (widens, 9)]
)
def test_what_is_there_together(function, mib):
    graph = tf.function(function, autograph=False).get_concrete_function(VECTOR).graph
    assert live_peak(graph) == pytest.approx(mib * MIB, abs=64)


def test_a_backward_pass_keeps_the_activations():
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for _ in range(10):
                y = tf.sin(y)  # whose gradient reads its input
        return tape.gradient(y, x)

    graph = tf.function(gradient, autograph=False).get_concrete_function(VECTOR).graph
    assert 10 * MIB <= live_peak(graph) <= 13 * MIB


SMALL = TrainConfig(encoder_weights="none", image_size=64)


def test_a_step_takes_more_with_more_to_keep():
    usual = memory_of(SMALL, 4, 3)
    assert 1.6 < memory_of(SMALL, 8, 3).passing / usual.passing < 2.01
    assert memory_of(SMALL.model_copy(update={"precision": "bfloat16"}), 4, 3).passing < 0.8 * usual.passing
    frozen = SMALL.model_copy(update={"unfreeze_from": "none"})
    assert memory_of(frozen, 4, 3).passing < 0.5 * usual.passing
    assert memory_of(SMALL.model_copy(update={"accumulate": 2}), 4, 3).kept > 1.2 * usual.kept


def test_trained_weights_keep_their_statistics_though_none_are_read(tmp_path):
    """Frozen batch normalisation leaves nothing behind for the backward pass."""
    trained = TrainConfig(encoder_weights=str(tmp_path / "not-here.h5"), image_size=64, unfreeze_from="all")
    assert memory_of(trained, 4, 3).passing < 0.9 * memory_of(SMALL, 4, 3).passing


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        (SMALL.model_dump(mode="json"), 0, '"batch": 2'),
        ({**SMALL.model_dump(mode="json"), "model": "nowhere:network"}, 2, "there is no module nowhere"),
    ],
)
def test_the_process_that_the_launcher_starts(settings, code, said):
    command = [sys.executable, "-m", "trainer.training.memory", "2", "2"]
    done = subprocess.run(command, input=json.dumps(settings), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert said in (done.stderr.splitlines()[-1] if code else done.stdout)
