"""Training steps as the loop takes them, without what it does between them: for tests and benchmarks of speed."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.peers import Peers
from trainer.data.augmentation import Augmentation
from trainer.data.cache import Dataset
from trainer.data.pipeline import training_batches
from trainer.models.network import build_network
from trainer.objective.losses import build_loss
from trainer.objective.optimizers import build_optimizer
from trainer.objective.schedules import learning_rate
from trainer.training.features import cached_features
from trainer.training.loop import balance_of
from trainer.training.plan import Plan
from trainer.training.state import StopFlag, Training, TrainingState
from trainer.training.steps import make_step_function


def set_up(config: TrainConfig, dataset: Dataset, *, fused: bool = True, steps: int | None = None) -> Training:
    """What the loop works on, for a thousand epochs on one device.

    Args:
        steps: after which the learning rate has come to its end; by default those of all epochs.
        fused: off: the network computes what its Keras layers are, one after another.
    """
    batch = config.replica_batch
    plan = Plan(len(dataset.train), batch, 1000, (slice(0, batch),))
    network = build_network(config, len(dataset.classes))
    if not fused:
        network.__dict__.update(fused_encoder=network.encoder, fused_decoder=network.decoder)
    schedule = learning_rate(config, steps_per_epoch=plan.examples / batch, total_steps=steps or plan.steps, scale=1.0)
    optimizer = build_optimizer(config, schedule, network.encoder)
    optimizer.build(network.model.trainable_variables)
    loss = build_loss(config, len(dataset.classes), dataset.train.masks)
    features = cached_features(config, network, dataset, batch, print, lambda: None)
    return Training(
        config, Peers(), tf.distribute.get_strategy(), dataset, features, network, optimizer, loss, plan,
        TrainingState(len(dataset.classes)), StopFlag(), lambda: None, None, None,
    )  # fmt: skip


def batches(training: Training) -> tf.data.Dataset:
    """Those of all steps; see :func:`training_batches`."""
    batch = training.plan.global_batch
    return training_batches(
        training.dataset.train,
        global_batch=batch,
        worker_slice=slice(0, batch),
        seed=training.config.seed,
        first_step=0,
        last_step=training.plan.steps,
        augmentation=Augmentation.of(training.config),
        features=training.features.of_training if training.features else None,
        balance=balance_of(training),
    )


def losses(training: Training) -> Iterator[float]:
    """Takes the steps of a call whenever a loss is asked for that is not known yet."""
    take_steps, data = make_step_function(training), iter(batches(training))
    count, stop = tf.constant(training.config.steps_per_call), tf.constant(0.0, tf.float64)
    while True:
        yield from map(float, take_steps(data, count, stop)[0])
