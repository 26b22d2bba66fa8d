"""The training loop, the same for one worker and for many. It reads from top to bottom.

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

from trainer.averaging import averaged_weights
from trainer.checkpoints import CheckpointStore
from trainer.cluster import Cluster
from trainer.config import TrainConfig
from trainer.data.augmentation import Augmentation
from trainer.data.cache import Dataset
from trainer.data.pipeline import evaluation_batches, example_indices, training_batches, worker_slices
from trainer.early_stopping import Progress
from trainer.exit_codes import Stopped, TrainingFailed
from trainer.features import Features
from trainer.metrics import Scores, confusion_matrix
from trainer.models.network import Network
from trainer.plan import Plan
from trainer.profiling import Profiler
from trainer.summaries import Summaries, Validation

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Inputs: TypeAlias = tf.Tensor | tuple[tf.Tensor, ...]
"""Images uint8 [b, S, S, 3], or the encoder's features [b, h, w, c] where they are cached."""


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

    wanted: bool = False


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


def train(training: Training, training_seconds: float) -> Scores:
    """Trains from the state's step to the plan's last one; returns the scores of the final validation.

    Args:
        training_seconds: time spent in training steps so far, before this process.

    Raises:
        Stopped: SIGTERM reached a worker; the state is saved.
        TrainingFailed: the loss is not finite, or a checkpoint could not be written.
    """
    config, plan, state = training.config, training.plan, training.state
    step = int(state.step.numpy())
    step_function = make_step_function(training)
    evaluate, add_up = make_evaluation_function(training), make_sum_over_workers(training)
    batches = _batches(training, step)
    saved_step, saved_time = step, time.monotonic()

    while True:
        validation = None
        if plan.ends_epoch(step) and int(state.validated.numpy()) != step:
            validation = validate(training, evaluate, add_up)
            _end_epoch(training, validation, step, training_seconds)
        ended = step == plan.steps or state.progress().is_exhausted(config.patience)
        if training.checkpoints is not None and step > saved_step:
            due = config.checkpoint_steps > 0 and step % config.checkpoint_steps == 0
            due = due or time.monotonic() - saved_time > config.checkpoint_seconds
            if due or validation is not None or ended:
                _save(training, step, training_seconds, validation)
                saved_step, saved_time = step, time.monotonic()
        if ended:
            if step < plan.steps and training.summaries is not None:
                print(
                    f"stops after epoch {plan.epoch(step)}: no better {config.best_by} for {config.patience}",
                    flush=True,
                )
            return (validation or validate(training, evaluate, add_up)).scores

        if training.profiler is not None:
            training.profiler.before(step + 1)
        started = time.monotonic()
        inputs, masks, _ = next(batches)
        loss, stop = step_function(inputs, masks, tf.constant(float(training.stop.wanted), tf.float64))
        loss = float(loss)
        training_seconds += time.monotonic() - started
        step += 1
        training.get_on()
        if not math.isfinite(loss):
            raise TrainingFailed(_not_finite(training, step - 1, loss))
        if training.summaries is not None:
            training.summaries.step(step, loss, float(training.optimizer.learning_rate), time.monotonic() - started)
        if stop and step < plan.steps:
            if training.checkpoints is not None and step > saved_step:
                _save(training, step, training_seconds, None)
            raise Stopped(f"stopped at step {step} of {plan.steps}; the state is saved")


def make_step_function(training: Training) -> Callable[[Inputs, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """One training step over all workers: (inputs, masks, stop) -> (mean loss of the global batch, stop).

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

    def in_replica(inputs: Inputs, masks: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        # Without a gradient for the encoder the tape needs to know nothing of it.
        features = features_of(training, inputs) if frozen else None
        with tf.GradientTape() as tape:
            if features is None:
                features = encoder(inputs, training=True)
            logits = decoder(features, training=True)
            loss = tf.reduce_sum(training.loss(masks, logits)) / global_batch
            scaled = optimizer.scale_loss(loss)
        optimizer.apply_gradients(zip(tape.gradient(scaled, trainable), trainable, strict=True))
        matrix = confusion_matrix(masks, tf.argmax(logits, axis=-1), classes)
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

    @tf.function(autograph=False)
    def step_function(inputs: Inputs, masks: tf.Tensor, stop: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        arguments = (*split_among_replicas(training, inputs, masks), stop)
        vector = strategy.experimental_local_results(strategy.run(in_replica, args=arguments))[0]
        loss, stop, matrix = vector[0], vector[1] > 0, vector[2:]
        state.step.assign_add(1)
        state.loss_sum.assign_add(loss * global_batch)
        state.confusion.assign_add(tf.cast(tf.reshape(matrix, [classes, classes]), tf.int64))
        return loss, stop

    return step_function


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


def validate(
    training: Training,
    evaluate: Callable[[Inputs, tf.Tensor], tf.Tensor],
    add_up: Callable[[np.ndarray], np.ndarray],
) -> Validation:
    """Scores over the whole test split; every worker sees its share, and all get the result."""
    classes = len(training.dataset.classes)
    totals = np.zeros(2 + classes * classes)
    batches = evaluation_batches(
        training.dataset.test,
        batch=training.plan.local_batch(training.cluster.worker),
        worker=training.cluster.worker,
        workers=training.cluster.workers,
        features=training.features.of_test if training.features else None,
    )
    with averaged_weights(training.network.model, training.optimizer):
        for inputs, masks in batches:
            totals += evaluate(inputs, masks).numpy()
            training.get_on()
    totals = add_up(totals)
    matrix = totals[2:].reshape(classes, classes).astype(np.int64)
    return Validation(_scores(training.dataset, matrix), float(totals[0] / totals[1]))


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


def _scores(dataset: Dataset, matrix: np.ndarray) -> Scores:
    background = None if dataset.background is None else dataset.classes[dataset.background]
    return Scores(matrix, dataset.classes, background)


def _batches(training: Training, first_step: int) -> Iterator:
    plan = training.plan
    return iter(
        training_batches(
            training.dataset.train,
            global_batch=plan.global_batch,
            worker_slice=plan.slices[training.cluster.worker],
            seed=training.config.seed,
            first_step=first_step,
            last_step=plan.steps,
            augmentation=Augmentation.of(training.config),
            features=training.features.of_training if training.features else None,
        )
    )


def _end_epoch(training: Training, validation: Validation, step: int, training_seconds: float) -> None:
    """Tells about the epoch, and starts the next one's sums."""
    state, plan, dataset = training.state, training.plan, training.dataset
    if training.summaries is not None:
        mean_loss = float(state.loss_sum.numpy()) / plan.examples_in_epoch_ending(step)
        trained = Validation(_scores(dataset, state.confusion.numpy()), mean_loss)
        training.summaries.epoch(plan.epoch(step), step, training_seconds, trained, validation)
    state.validated.assign(step)
    state.loss_sum.assign(0.0)
    state.confusion.assign(tf.zeros_like(state.confusion))
    progress = state.progress().after(_score(training.config, validation))
    state.best.assign(progress.best)
    state.since_best.assign(progress.since_best)


def _score(config: TrainConfig, validation: Validation) -> float:
    """What ``config.best_by`` names; higher is better."""
    return -validation.loss if config.best_by == "loss" else float(getattr(validation.scores, config.best_by))


def _save(training: Training, step: int, training_seconds: float, validation: Validation | None) -> None:
    assert training.checkpoints is not None
    miou = score = None
    if validation is not None:
        miou, score = validation.scores.miou, _score(training.config, validation)
    training.checkpoints.save(step, training.plan.epoch(step), training_seconds, miou, score)
    if training.summaries is not None:
        training.summaries.checkpoint(step)
    training.get_on()


def _not_finite(training: Training, step: int, loss: float) -> str:
    plan, names = training.plan, training.dataset.train.names
    examples = example_indices(step, global_batch=plan.global_batch, count=len(names), seed=training.config.seed)
    batch = ", ".join(names[index] for index in examples)
    return (
        f"step {step + 1}: the loss is {loss}; expected a finite number. Lower --learning-rate "
        f"({training.config.learning_rate:g}) or look at the batch's files: {batch}"
    )
