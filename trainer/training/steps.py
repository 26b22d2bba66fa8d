"""The functions that TensorFlow compiles for the loop: training steps and validation.

Every worker takes its slice of each global batch. Once a step all of them add up their gradients (inside
``optimizer.apply_gradients``) and one small vector: the loss, the wish to stop, the confusion matrix of the
training examples, and the batch normalisation's moving statistics, which are averaged so that all workers
hold the same state after every step. So a checkpoint needs no agreement: the chief writes it whenever it likes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from trainer.data.pipeline import worker_slices
from trainer.objective.metrics import confusion_matrix
from trainer.training.state import Batch, Inputs, Training

TakeSteps: TypeAlias = Callable[["Iterator[Batch]", tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
"""(batches, n, whether this worker wants to stop: 0. or 1.) -> mean loss of each global batch, float64 [n], learning
rate of each step, float32 [n], and whether any worker wants to stop."""
Compute: TypeAlias = Callable[[Inputs, tf.Tensor], tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]]
"""(inputs, masks) of a replica -> its part of the loss, the class of each pixel [b, H, W], and the gradient of each
trainable variable."""


def make_step_function(training: Training) -> TakeSteps:
    """Training steps over all workers, as many as are asked for in one call."""
    optimizer, strategy, state = training.optimizer, training.strategy, training.state
    global_batch, classes = training.plan.global_batch, len(training.dataset.classes)
    in_replica = _make_replica_step(training)

    def step_function(batches: Iterator[Batch], stop: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
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
    def take_steps(
        batches: Iterator[Batch], count: tf.Tensor, stop: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
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

    traced: TakeSteps = take_steps
    return traced


def _make_replica_step(training: Training) -> Callable[[Inputs, tf.Tensor, tf.Tensor], tf.Tensor]:
    """(inputs, masks, wish to stop) of a replica -> float64 vector over all replicas: loss, wishes to stop, confusion
    matrix [C x C]. It takes the step: gradients are added up, and the moving statistics averaged."""
    network, optimizer = training.network, training.optimizer
    replicas, classes = training.strategy.num_replicas_in_sync, len(training.dataset.classes)
    trainable = network.model.trainable_variables
    statistics = [variable for variable in network.model.non_trainable_variables if "moving_" in variable.path]
    if network.is_frozen:
        inside = {id(variable) for variable in network.encoder.variables}
        statistics = [variable for variable in statistics if id(variable) not in inside]
    sizes = [math.prod(variable.shape) for variable in statistics]
    compute = _make_compute(training)

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

    return in_replica


def _make_compute(training: Training) -> Compute:
    """What one replica computes by itself.

    Its loss is its examples' sum divided by the *global* batch, so that the sum of the replicas' gradients is the
    gradient of the global mean.
    """
    network, optimizer, global_batch = training.network, training.optimizer, training.plan.global_batch
    frozen, encoder, decoder = network.is_frozen, network.fused_encoder, network.fused_decoder
    trainable = network.model.trainable_variables

    def compute(inputs: Inputs, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
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
        compiled: Compute = tf.function(compute, autograph=False, jit_compile=True)
        return compiled
    return compute


def make_evaluation_function(training: Training) -> Callable[[Inputs, tf.Tensor], tf.Tensor]:
    """(inputs, masks) -> float64 vector: sum of the examples' losses, their number, confusion matrix [C x C]."""
    network, classes = training.network, len(training.dataset.classes)
    split, features = training.dataset.chooses, training.features

    def any_number(array: np.ndarray) -> tf.TensorSpec:
        """Of examples: the last batch, which is smaller, shall not be traced again."""
        return tf.TensorSpec([None, *array.shape[1:]], tf.as_dtype(array.dtype))

    inputs = any_number(split.images) if features is None else features.signature

    @tf.function(autograph=False, input_signature=[inputs, any_number(split.masks)])
    def evaluate(inputs: Inputs, masks: tf.Tensor) -> tf.Tensor:
        logits = network.fused_decoder(features_of(training, inputs), training=False)
        matrix = confusion_matrix(masks, tf.argmax(logits, axis=-1), classes)
        loss = tf.reduce_sum(tf.cast(training.loss(masks, logits), tf.float64))
        count = tf.cast(tf.shape(masks)[0], tf.float64)
        return tf.concat([[loss, count], tf.reshape(tf.cast(matrix, tf.float64), [-1])], axis=0)

    traced: Callable[[Inputs, tf.Tensor], tf.Tensor] = evaluate
    return traced


def features_of(training: Training, inputs: Inputs) -> list[tf.Tensor]:
    """The features of a batch without a gradient for the encoder: computed from images, or as they were cached."""
    if training.features is not None:
        return list(inputs)
    features: list[tf.Tensor] = training.network.fused_encoder(inputs, training=False)
    return features


def split_among_replicas(training: Training, *tensors: tf.Tensor) -> tuple[tf.Tensor, ...]:
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
