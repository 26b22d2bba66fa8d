"""What the loop works on, and the functions that TensorFlow compiles for it: training steps and validation.

Every worker takes its slice of each global batch. Once a step all of them add up their gradients (inside
``optimizer.apply_gradients``) and one small vector: the loss, the wish to stop, the confusion matrix of the
training examples, and the batch normalisation's moving statistics, which are averaged so that all workers
hold the same state after every step. So a checkpoint needs no agreement: the chief writes it whenever it likes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from trainer.checkpoints import CheckpointStore
from trainer.cluster import Cluster
from trainer.config import TrainConfig
from trainer.data.cache import Dataset
from trainer.data.pipeline import worker_slices
from trainer.early_stopping import Progress
from trainer.features import Features
from trainer.metrics import confusion_matrix
from trainer.models.network import Network
from trainer.plan import Plan
from trainer.profiling import Profiler
from trainer.summaries import Summaries

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Inputs: TypeAlias = tf.Tensor | tuple[tf.Tensor, ...]
"""Images uint8 [b, S, S, 3], or the encoder's features [b, h, w, c] where they are cached."""
TakeSteps: TypeAlias = Callable[[Iterator, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
"""(batches, n, whether this worker wants to stop: 0. or 1.) -> mean loss of each global batch, float64 [n], learning
rate of each step, float32 [n], and whether any worker wants to stop."""


class TrainingState(tf.Module):
    """What changes during training beside the model and the optimizer.

    Attributes:
        step: steps done.
        validated: the last step that was validated, -1 before the first.
        loss_sum: of this epoch's examples so far; float64, since it is a sum over many.
        confusion: matrix [C, C] of this epoch's training examples so far, as they were when trained on.
        best, since_best: see :class:`~trainer.early_stopping.Progress`.
    """

    def __init__(self, classes: int):
        super().__init__()
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.validated = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self.loss_sum = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self.confusion = tf.Variable(tf.zeros([classes, classes], tf.int64), trainable=False)
        self.best = tf.Variable(-math.inf, dtype=tf.float64, trainable=False)
        self.since_best = tf.Variable(0, dtype=tf.int64, trainable=False)

    def progress(self) -> Progress:
        return Progress(float(self.best.numpy()), int(self.since_best.numpy()))


@dataclass
class StopFlag:
    """Set by the signal handler; travels with the next step's vector to all workers."""

    _told: float | None = None

    def tell(self) -> None:
        """The first time counts."""
        self._told = self._told or time.monotonic()

    @property
    def wanted(self) -> bool:
        return self._told is not None

    @property
    def seconds(self) -> float:
        """Since it was told; 0 before."""
        return 0.0 if self._told is None else time.monotonic() - self._told


@dataclass(frozen=True)
class Training:
    """All that the loop works on.

    Attributes:
        features: of a frozen encoder, in the place of the images they are of; None: they are computed.
        get_on: called whenever something was achieved, for the supervisor's watchdog.
        checkpoints, summaries, profiler: None on all workers but the chief; no profiler unless it is asked for.
    """

    config: TrainConfig
    cluster: Cluster
    strategy: tf.distribute.Strategy
    dataset: Dataset
    features: Features | None
    network: Network
    optimizer: tf.Module
    loss: Loss
    plan: Plan
    state: TrainingState
    stop: StopFlag
    get_on: Callable[[], None]
    checkpoints: CheckpointStore | None
    summaries: Summaries | None
    profiler: Profiler | None = None

    @property
    def local_replicas(self) -> int:
        """Devices of this worker that train, the same number on every worker."""
        return int(self.strategy.num_replicas_in_sync) // self.cluster.workers


def make_step_function(training: Training) -> TakeSteps:
    """Training steps over all workers, as many as are asked for in one call.

    A replica's loss is its examples' sum divided by the *global* batch, so that the sum of the replicas'
    gradients is the gradient of the global mean.
    """
    network, optimizer, strategy, state = training.network, training.optimizer, training.strategy, training.state
    global_batch, replicas = training.plan.global_batch, strategy.num_replicas_in_sync
    classes = len(training.dataset.classes)
    frozen, encoder, decoder = network.is_frozen, network.fused_encoder, network.fused_decoder
    trainable = network.model.trainable_variables
    statistics = [variable for variable in network.model.non_trainable_variables if "moving_" in variable.path]
    if frozen:
        inside = {id(variable) for variable in network.encoder.variables}
        statistics = [variable for variable in statistics if id(variable) not in inside]
    sizes = [math.prod(variable.shape) for variable in statistics]

    def compute(inputs: Inputs, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Of a replica's examples: the loss, the class of each pixel, and the gradient of each trainable variable."""
        # Without a gradient for the encoder the tape needs to know nothing of it.
        features = features_of(training, inputs) if frozen else None
        with tf.GradientTape() as tape:
            if features is None:
                features = encoder(inputs, training=True)
            logits = decoder(features, training=True)
            loss = tf.reduce_sum(training.loss(masks, logits)) / global_batch
            scaled = optimizer.scale_loss(loss)
        return loss, tf.argmax(logits, axis=-1), tape.gradient(scaled, trainable)

    if training.config.xla:  # without what goes between replicas
        compute = tf.function(compute, autograph=False, jit_compile=True)

    def in_replica(inputs: Inputs, masks: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        loss, found, gradients = compute(inputs, masks)
        optimizer.apply_gradients(zip(gradients, trainable, strict=True))
        matrix = confusion_matrix(masks, found, classes)
        vector = tf.concat(
            [[tf.cast(loss, tf.float64), stop], tf.reshape(tf.cast(matrix, tf.float64), [-1])]
            + [tf.reshape(tf.cast(variable, tf.float64), [-1]) / replicas for variable in statistics if replicas > 1],
            axis=0,
        )
        if replicas > 1:
            vector = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, vector)
            means = tf.split(vector[2 + classes * classes :], sizes) if statistics else []
            for variable, mean in zip(statistics, means, strict=True):
                variable.assign(tf.reshape(tf.cast(mean, variable.dtype), variable.shape))
        return vector[: 2 + classes * classes]

    def step_function(batches: Iterator, stop: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Loss, learning rate, and whether a worker wants to stop."""
        inputs, masks, _ = next(batches)
        rate = tf.cast(optimizer.learning_rate, tf.float32)
        arguments = (*split_among_replicas(training, inputs, masks), stop)
        vector = strategy.experimental_local_results(strategy.run(in_replica, args=arguments))[0]
        loss, matrix = vector[0], vector[2:]
        state.step.assign_add(1)
        state.loss_sum.assign_add(loss * global_batch)
        state.confusion.assign_add(tf.cast(tf.reshape(matrix, [classes, classes]), tf.int64))
        return loss, rate, vector[1] > 0

    @tf.function(autograph=False)
    def take_steps(batches: Iterator, count: tf.Tensor, stop: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        if training.config.steps_per_call == 1:  # without a loop, which takes half a second to build
            loss, rate, stopped = step_function(batches, stop)
            return loss[None], rate[None], stopped

        def another(
            done: tf.Tensor, losses: tf.TensorArray, rates: tf.TensorArray, stopped: tf.Tensor
        ) -> tuple[tf.Tensor, tf.TensorArray, tf.TensorArray, tf.Tensor]:
            loss, rate, stop_wanted = step_function(batches, stop)
            return done + 1, losses.write(done, loss), rates.write(done, rate), stopped | stop_wanted

        _, losses, rates, stopped = tf.while_loop(
            lambda done, *_: done < count,
            another,
            (0, tf.TensorArray(tf.float64, count), tf.TensorArray(tf.float32, count), False),
            parallel_iterations=1,  # a sum over the workers must not meet that of the next step
        )
        return losses.stack(), rates.stack(), stopped

    return take_steps


def make_evaluation_function(training: Training) -> Callable[[Inputs, tf.Tensor], tf.Tensor]:
    """(inputs, masks) -> float64 vector: sum of the examples' losses, their number, confusion matrix [C x C]."""
    network, classes = training.network, len(training.dataset.classes)
    test, features = training.dataset.test, training.features

    def any_number(array: np.ndarray) -> tf.TensorSpec:
        """Of examples: the last batch, which is smaller, shall not be traced again."""
        return tf.TensorSpec([None, *array.shape[1:]], tf.as_dtype(array.dtype))

    inputs = any_number(test.images) if features is None else features.signature

    @tf.function(autograph=False, input_signature=[inputs, any_number(test.masks)])
    def evaluate(inputs: Inputs, masks: tf.Tensor) -> tf.Tensor:
        logits = network.fused_decoder(features_of(training, inputs), training=False)
        matrix = confusion_matrix(masks, tf.argmax(logits, axis=-1), classes)
        loss = tf.reduce_sum(tf.cast(training.loss(masks, logits), tf.float64))
        count = tf.cast(tf.shape(masks)[0], tf.float64)
        return tf.concat([[loss, count], tf.reshape(tf.cast(matrix, tf.float64), [-1])], axis=0)

    return evaluate


def make_sum_over_workers(training: Training) -> Callable[[np.ndarray], np.ndarray]:
    """A worker's float64 vector -> the sum of all workers' vectors.

    To be made once, since each has to be traced.
    """
    if training.cluster.workers == 1:
        return lambda vector: vector

    @tf.function(autograph=False)
    def add(vector: tf.Tensor) -> tf.Tensor:
        def in_replica() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, vector / training.local_replicas)

        return training.strategy.run(in_replica)

    return lambda vector: training.strategy.experimental_local_results(add(tf.constant(vector)))[0].numpy()


def features_of(training: Training, inputs: Inputs) -> list[tf.Tensor]:
    """The features of a batch without a gradient for the encoder: computed from images, or as they were cached."""
    if training.features is not None:
        return list(inputs)
    features: list[tf.Tensor] = training.network.fused_encoder(inputs, training=False)
    return features


def split_among_replicas(training: Training, *tensors: tf.Tensor) -> tuple:
    """This worker's tensors as they are, or cut along the batch among its GPUs."""
    local = training.local_replicas
    if local == 1:
        return tensors
    slices = worker_slices(tensors[0].shape[0], local)

    def pick(tensor: tf.Tensor) -> tf.distribute.DistributedValues:
        return training.strategy.experimental_distribute_values_from_function(
            lambda context: tensor[slices[context.replica_id_in_sync_group % local]]
        )

    return tuple(map(pick, tensors))
