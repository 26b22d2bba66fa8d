"""The functions that TensorFlow compiles for the loop: training steps and validation.

Every worker takes its slice of each global batch. Once a step all of them add up their gradients and one small vector:
the loss, the wish to stop, the confusion matrix of the training examples, and the batch normalisation's moving
statistics, which are averaged so that all workers hold the same state after every step. So a checkpoint needs no
agreement: the chief writes it whenever it likes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import tensorflow as tf

from trainer.data.pipeline import worker_slices
from trainer.models.fused import fuse
from trainer.models.network import Network
from trainer.objective.metrics import confusion_matrix, most_likely
from trainer.training.accumulation import Compute, in_parts
from trainer.training.features import Features
from trainer.training.state import Batch, Inputs, Training

Taken: TypeAlias = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]
"""Mean loss of each global batch, float64 [n], learning rate of each step, float32 [n], whether each step was taken and
not skipped, bool [n], whether any worker wants to stop, and the seconds of all steps together that this worker waited
for its input, computed its gradients, and added them up with its peers' (which waits for the last), float64 [3]."""
TakeSteps: TypeAlias = Callable[["Iterator[Batch]", tf.Tensor, tf.Tensor], Taken]
"""(batches, n, whether this worker wants to stop: 0. or 1.) -> what n steps give."""


def make_step_function(training: Training) -> TakeSteps:
    """Training steps over all workers, as many as are asked for in one call."""
    optimizer, strategy, state = training.optimizer, training.strategy, training.state
    global_batch, classes = training.plan.global_batch, len(training.dataset.classes)
    in_replica, apply = _make_replica_step(training), _make_apply(training)
    distributed = strategy.num_replicas_in_sync > 1

    def step_function(batches: Iterator[Batch], stop: tf.Tensor) -> Taken:
        """Of one step: loss, learning rate, whether it was taken, whether a worker wants to stop, and seconds."""
        began = tf.timestamp()
        inputs, masks, _ = next(batches)
        came = _time_after(inputs, masks)
        rate = tf.cast(optimizer.learning_rate, tf.float32)
        arguments = (*split_among_replicas(training, inputs, masks), stop, came)
        vector, good, gradients, times = strategy.run(in_replica, args=arguments)
        vector, good, times = (strategy.experimental_local_results(value)[0] for value in (vector, good, times))
        if training.config.on_bad_step == "skip":
            # A condition must stand outside the replicas: what they do inside a branch can't reach their peers.
            tf.cond(good, lambda: strategy.run(apply, args=(gradients,)), lambda: None)
        loss, matrix = vector[0], vector[2:]
        state.step.assign_add(1)
        skipped = tf.cast(~good, tf.int64)
        state.skipped.assign_add(skipped)
        state.skipped_in_epoch.assign_add(skipped)
        state.loss_sum.assign_add(tf.where(good, loss * global_batch, 0.0))
        state.confusion.assign_add(tf.cast(tf.where(good, tf.reshape(matrix, [classes, classes]), 0.0), tf.int64))
        marks = tf.concat([[began, came], times if distributed else [came, came]], axis=0)
        return loss, rate, good, vector[1] > 0, marks[1:] - marks[:-1]

    @tf.function(autograph=False)
    def take_steps(batches: Iterator[Batch], count: tf.Tensor, stop: tf.Tensor) -> Taken:
        if training.config.steps_per_call == 1:  # without a loop, which takes half a second to build
            loss, rate, good, stopped, seconds = step_function(batches, stop)
            return loss[None], rate[None], good[None], stopped, seconds

        def another(done: tf.Tensor, stopped: tf.Tensor, before: tf.Tensor, *told: tf.TensorArray) -> tuple[Any, ...]:
            *values, stop_wanted, seconds = step_function(batches, stop)
            written = (array.write(done, value) for array, value in zip(told, values, strict=True))
            return done + 1, stopped | stop_wanted, before + seconds, *written

        arrays = (tf.TensorArray(kind, count) for kind in (tf.float64, tf.float32, tf.bool))
        _, stopped, seconds, *told = tf.while_loop(
            lambda done, *_: done < count,
            another,
            (0, False, tf.zeros(3, tf.float64), *arrays),
            parallel_iterations=1,  # a sum over the workers must not meet that of the next step
        )
        losses, rates, good = (array.stack() for array in told)
        return losses, rates, good, stopped, seconds

    traced: TakeSteps = take_steps
    return traced


def _time_after(*values: Any) -> tf.Tensor:
    """When all of them were there: Unix seconds, float64."""
    with tf.control_dependencies(tf.nest.flatten(values)), tf.device("CPU:0"):
        return tf.timestamp()


def _make_replica_step(
    training: Training,
) -> Callable[[Inputs, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, list[tf.Tensor], tf.Tensor]]:
    """(inputs, masks, wish to stop, when they were there) of a replica -> what is the same in all, and its own times.

    That is a float64 vector: loss, wishes to stop, confusion matrix [C x C]; whether the step is good; and the
    gradients added up over the replicas. The moving statistics are averaged. It takes the step, unless bad ones are to
    be skipped: then a bad one leaves the moving statistics as they were, and the gradients are still to be applied. The
    times are those of :func:`_over_replicas`.
    """
    network, skips = training.network, training.config.on_bad_step == "skip"
    replicas, classes = training.strategy.num_replicas_in_sync, len(training.dataset.classes)
    trainable = network.model.trainable_variables
    statistics = [variable for variable in network.model.non_trainable_variables if "moving_" in variable.path]
    if network.is_frozen:
        inside = {id(variable) for variable in network.encoder.variables}
        statistics = [variable for variable in statistics if id(variable) not in inside]
    sizes = [math.prod(variable.shape) for variable in statistics]
    compute = in_parts(_make_compute(training), training.config.accumulate, trainable, classes)
    apply = _make_apply(training)

    def in_replica(
        inputs: Inputs, masks: tf.Tensor, stop: tf.Tensor, came: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor], tf.Tensor]:
        before = [tf.identity(variable) for variable in statistics if skips]
        with tf.control_dependencies([came]):  # what needs no input, as the weights' casts, shall not count as a wait
            loss, matrix, gradients = compute(inputs, masks)
        gradients, times = _over_replicas(gradients, replicas)
        if not skips:
            apply(gradients)
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
        good = _is_good(training, vector[0], gradients) if skips else tf.constant(True)
        for variable, old in zip(statistics if skips else [], before, strict=True):
            variable.assign(tf.where(good, variable, old))
        return vector[: 2 + classes * classes], good, gradients if skips else [], times

    return in_replica


def _over_replicas(gradients: list[tf.Tensor | None], replicas: int) -> tuple[list[tf.Tensor | None], tf.Tensor]:
    """Their sum over the replicas, in each of them; and when its own were there, and the sum, float64 [2].

    Times are 0 without another replica.
    """
    if replicas == 1:
        return gradients, tf.zeros(2, tf.float64)
    there = [gradient for gradient in gradients if gradient is not None]
    computed = _time_after(there)
    added = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, there)
    times, sums = tf.stack([computed, _time_after(added)]), iter(added)
    return [None if gradient is None else next(sums) for gradient in gradients], times


def _is_good(training: Training, loss: tf.Tensor, gradients: list[tf.Tensor | None]) -> tf.Tensor:
    """Whether loss and gradients are finite, bool, the same in all replicas.

    With float16, gradients that are not are the optimizer's own business: it scales the next loss by less.
    """
    if training.config.precision == "float16":
        return tf.math.is_finite(loss)
    return tf.math.is_finite(loss) & tf.math.is_finite(tf.linalg.global_norm(gradients))


def _make_apply(training: Training) -> Callable[[list[tf.Tensor | None]], None]:
    """Takes a step by gradients that are added up over the replicas."""
    optimizer, trainable = training.optimizer, training.network.model.trainable_variables

    def apply(gradients: list[tf.Tensor | None]) -> None:
        optimizer.apply_gradients(zip(gradients, trainable, strict=True))

    return apply


def _make_compute(training: Training) -> Compute:
    """What one replica computes by itself.

    Its loss is its examples' sum divided by the *global* batch, so that the sum of the replicas' gradients is the
    gradient of the global mean.
    """
    network, optimizer, global_batch = training.network, training.optimizer, training.plan.global_batch
    frozen, encoder, decoder = network.is_frozen, network.fused_encoder, network.fused_decoder
    trainable, classes = network.model.trainable_variables, len(training.dataset.classes)

    def compute(inputs: Inputs, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor | None]]:
        # Without a gradient for the encoder the tape needs to know nothing of it.
        features = features_of(training, inputs) if frozen else None
        with tf.GradientTape() as tape:
            if features is None:
                features = encoder(inputs, training=True)
            logits = decoder(features, training=True)
            loss = tf.reduce_sum(training.loss(masks, logits)) / global_batch
            scaled = optimizer.scale_loss(loss)
        return loss, most_likely(logits), tape.gradient(scaled, trainable)

    if training.config.xla:  # without what goes between replicas
        compute = tf.function(compute, autograph=False, jit_compile=True)

    def with_matrix(inputs: Inputs, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor | None]]:
        loss, found, gradients = compute(inputs, masks)
        return loss, confusion_matrix(masks, found, classes), gradients

    return with_matrix


def make_evaluation_function(training: Training) -> Callable[[Inputs, tf.Tensor], tf.Tensor]:
    """(inputs, masks) -> float64 vector: sum of the examples' losses, their number, confusion matrix [C x C]."""
    network, classes = training.network, len(training.dataset.classes)
    # Of any number of examples: the last batch, which is smaller, shall not be traced again.
    shape = (None, *training.dataset.chooses.masks.shape[1:])

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((*shape, classes)), tf.TensorSpec(shape, tf.uint8)])
    def score(logits: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
        matrix = confusion_matrix(masks, most_likely(logits), classes)
        loss = tf.reduce_sum(tf.cast(training.loss(masks, logits), tf.float64))
        count = tf.cast(tf.shape(masks)[0], tf.float64)
        return tf.concat([[loss, count], tf.reshape(tf.cast(matrix, tf.float64), [-1])], axis=0)

    # Two functions and not one around both: pictures are predicted by the first of them too, traced and optimized once.
    logits = network.logits if training.features is None else _logits_of_features(training.features, network)
    return lambda inputs, masks: score(logits(inputs), masks)


def _logits_of_features(features: Features, network: Network) -> Callable[[Inputs], tf.Tensor]:
    decoder = fuse(network.decoder, frozen_features=True, learns=False)

    @tf.function(autograph=False, input_signature=[features.signature])
    def logits(features: Inputs) -> tf.Tensor:
        return tf.cast(decoder(list(features), training=False), tf.float32)

    traced: Callable[[Inputs], tf.Tensor] = logits
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
