"""``--batch-per-replica auto``: the largest batch whose training step fits a GPU's memory.

Each size is tried in a process of its own, since TensorFlow gives no memory back, and a process that has run
out of it is good for nothing else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from maskfleet.child_processes import end_with_parent
from maskfleet.config import DEFAULT_BATCH, TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.run_directory import RunDirectory
from maskfleet.settings import read_settings_file
from trainer.own_code import use_code
from trainer.training.precision import chosen_precision

if TYPE_CHECKING:
    import tensorflow as tf

SAFETY = 0.9
"""Share of the largest size that is used: fragmentation and other batches' shapes need some room."""


def choose_batch(run: RunDirectory, classes: int, examples: int) -> int:
    """The batch per replica for this machine: :data:`~maskfleet.config.DEFAULT_BATCH` where there is no GPU.

    Args:
        examples: this worker's share of the training split, of which each of its GPUs gets a part in a step.

    Raises:
        BadSettings: not even one example fits.
    """
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    largest = max(1, examples // max(1, len(devices)))
    if not devices:
        return min(DEFAULT_BATCH, largest)

    def fits(batch: int) -> bool:
        command = [sys.executable, "-m", "trainer.training.batch_size", str(run.path), str(batch), str(classes)]
        environment = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"}
        tried = subprocess.run(
            command, env=environment, capture_output=True, check=False, preexec_fn=end_with_parent(signal.SIGKILL)
        )
        return tried.returncode == 0

    found = largest_that_fits(fits, largest)
    if found == 0:
        raise BadSettings("--batch-per-replica auto: not even one example fits the GPU; lower --image-size")
    return found if found == largest else max(1, int(found * SAFETY))


def largest_that_fits(fits: Callable[[int], bool], largest: int) -> int:
    """By doubling, then halving the gap down to an eighth of the size; 0 if nothing fits."""
    good, bad = 0, 1
    while bad <= largest and fits(bad):
        good, bad = bad, bad * 2
    if bad > largest:
        bad = largest + 1
    while bad - good > max(1, good // 8):
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good


def try_step(config: TrainConfig, batch: int, classes: int) -> None:
    """One training step on an empty batch, for the memory that it takes.

    Raises:
        tf.errors.ResourceExhaustedError: it does not fit.
    """
    import tensorflow as tf

    step, _ = step_of(config, classes)
    shape = [batch, *config.image_size]
    step(tf.zeros([*shape, config.bands], tf.uint8), tf.zeros(shape, tf.uint8))


def step_of(config: TrainConfig, classes: int) -> tuple[tf.types.experimental.PolymorphicFunction, list[tf.Variable]]:
    """A training step as the loop takes it, of images and masks, with random weights; and all that it keeps.

    Raises:
        MaskfleetError: the network, the loss or the optimizer can't be made.
    """
    import numpy as np
    import tensorflow as tf

    from trainer.models.network import build_network
    from trainer.objective.losses import build_loss
    from trainer.objective.optimizers import build_optimizer
    from trainer.objective.schedules import learning_rate

    # Which layers are trained stays that of the weights that will be there.
    start = config.start_from or ("anywhere" if config.encoder_is_trained else None)
    config = config.model_copy(update={"encoder_weights": "none", "start_from": start, "class_weights": None})
    network = build_network(config, classes)
    schedule = learning_rate(config, steps_per_epoch=1, total_steps=1, scale=1.0)
    optimizer = build_optimizer(config, schedule, network.encoder)
    variables = network.model.trainable_variables
    optimizer.build(variables)
    loss = build_loss(config, classes, np.zeros([1, *config.image_size], np.uint8))

    @tf.function(autograph=False)
    def step(images: tf.Tensor, masks: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            logits = network.fused_decoder(network.fused_encoder(images, training=True), training=True)
            total = optimizer.scale_loss(tf.reduce_mean(loss(masks, logits)))
        optimizer.apply_gradients(zip(tape.gradient(total, variables), variables, strict=True))

    return step, [variable.value for variable in (*network.model.variables, *optimizer.variables)]


if __name__ == "__main__":
    path, batch_size, class_count = sys.argv[1:]
    settings = TrainConfig.resolve([read_settings_file(RunDirectory(Path(path)).config)])
    use_code(settings.code)
    try_step(chosen_precision(settings), int(batch_size), int(class_count))
