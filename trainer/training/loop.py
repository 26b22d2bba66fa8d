"""The training loop, the same for one worker and for many. It reads from top to bottom.

What it calls on all workers at once, and why their states agree after every step, is in :mod:`trainer.training.steps`.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.child_processes import report_line
from maskfleet.config import MOST_BAD_STEPS
from maskfleet.errors import Stopped, TrainingFailed
from maskfleet.goodput import ALL_REDUCE, DATA, VALIDATION
from trainer.checkpoints.averaging import averaged_weights
from trainer.data.augmentation import Augmentation
from trainer.data.cache import Dataset
from trainer.data.pipeline import evaluation_batches, example_indices, read_ahead, training_batches
from trainer.data.sampling import Balance
from trainer.objective.metrics import Scores
from trainer.training.collectives import make_sum_over_workers
from trainer.training.saving import Saver, score_of
from trainer.training.state import Batch, Inputs, Training
from trainer.training.steps import make_evaluation_function, make_step_function
from trainer.training.summaries import Validation

SECONDS_TO_VALIDATE = 8.0
"""After SIGTERM, before the state is saved first: at the end of the epoch it can have its score with it."""
NAMED_EXAMPLES = 64
"""Of a batch whose loss is not finite."""


def train(training: Training, training_seconds: float) -> Validation:
    """Trains from the state's step to the plan's last one; returns the final validation.

    Args:
        training_seconds: time spent in training steps so far, before this process.

    Raises:
        Stopped: SIGTERM reached a worker; the state is saved.
        TrainingFailed: the loss is not finite, so often where such steps are skipped, or a checkpoint could not be
            written.
    """
    config, plan, state, phases = training.config, training.plan, training.state, training.phases
    step = int(state.step.numpy())
    take_steps = make_step_function(training)
    evaluate, add_up = make_evaluation_function(training), make_sum_over_workers(training)
    batches, wait_for_data = training_stream(training, step)
    saver = Saver(training, step)
    stopping, bad_in_a_row = False, 0

    def save(validation: Validation | None = None) -> None:
        saver.save(step, training_seconds, validation)

    while True:
        validation = None
        if plan.ends_epoch(step) and int(state.validated.numpy()) != step:
            with phases.phase(VALIDATION):
                validation = validate(training, evaluate, add_up, save)
                _end_epoch(training, validation, step, training_seconds)
        ended = step == plan.steps or state.progress().is_exhausted(config.patience)
        if validation is not None or ended or stopping or saver.is_due(step):
            save(validation)
        if ended or stopping:
            saver.wait()
        if ended:
            if step < plan.steps and training.summaries is not None:
                report_line(f"stops after epoch {plan.epoch(step)}: no better {config.best_by} for {config.patience}")
            if validation is None:
                with phases.phase(VALIDATION):
                    validation = validate(training, evaluate, add_up)
            return validation
        if stopping:
            raise Stopped(f"stopped at step {step} of {plan.steps}; the state is saved")

        count = plan.steps_at_once(step, config.steps_per_call, config.checkpoint_steps)
        if training.profiler is not None:
            training.profiler.before(step + 1, step + count)
        if (waited := wait_for_data(step)) is None:
            stopping = True
            continue
        started = time.monotonic() - waited
        wish = tf.constant(float(training.stop.wanted), tf.float64)
        losses, rates, good, stop, times = take_steps(batches, tf.constant(count), wish)
        losses, rates, stopping = losses.numpy(), rates.numpy(), bool(stop)
        good = good.numpy() & np.isfinite(losses)
        seconds = time.monotonic() - started
        training_seconds += seconds
        training.heartbeat()
        bad_in_a_row = _pass_over_bad(training, step, losses, good, bad_in_a_row)
        step += count
        _book_steps(training, step, count, seconds, waited, times.numpy())
        if training.summaries is not None:
            training.summaries.steps(step, np.where(good, losses, np.nan), rates, seconds, waited)
        if stopping:  # by another worker's flag, it may be
            training.stop.set()


def _book_steps(
    training: Training, step: int, count: int, seconds: float, waited: float, times: NDArray[np.float64]
) -> None:
    """What ``count`` steps up to ``step`` took; ``times`` are those of :data:`~trainer.training.steps.Taken`."""
    came, computed, added = np.maximum(times, 0).tolist()  # should the machine's clock be set back in between
    data = waited + came
    training.phases.steps(step, {DATA: data, ALL_REDUCE: added})
    alone = training.strategy.num_replicas_in_sync == 1
    training.pace.steps(count, seconds, data, seconds - data if alone else computed, added)


def validate(
    training: Training,
    evaluate: Callable[[Inputs, tf.Tensor], tf.Tensor],
    add_up: Callable[[np.ndarray], np.ndarray],
    save: Callable[[], None] = lambda: None,
    split: str | None = None,
) -> Validation:
    """Scores over a whole split; every worker sees its share, and all get the result.

    Args:
        split: by default the one on which epochs are validated.
        save: called in between if it takes so long after SIGTERM that its end may not be reached.
    """
    classes = len(training.dataset.classes)
    totals = np.zeros(2 + classes * classes)
    split, features = split or training.dataset.chooser, training.features
    batches = iter(
        evaluation_batches(
            training.dataset.seen_whole(split),
            # Twice a step's: nothing is kept for gradients.
            batch=2 * training.plan.local_batch(training.peers.rank),
            worker=training.peers.rank,
            workers=training.peers.workers,
            features=functools.partial(features.of_split, split) if features else None,
        )
    )
    over = saved = False
    while not over:
        with averaged_weights(training.network.model, training.optimizer):
            for inputs, masks in batches:
                totals += evaluate(inputs, masks).numpy()
                training.heartbeat()
                if not saved and training.stop.seconds > SECONDS_TO_VALIDATE:
                    break
            else:
                over = True
        if not over:
            save()
            saved = True
    totals = add_up(totals)
    matrix = totals[2:].reshape(classes, classes).astype(np.int64)
    return Validation(_scores(training.dataset, matrix), float(totals[0] / totals[1]))


def _scores(dataset: Dataset, matrix: np.ndarray) -> Scores:
    background = None if dataset.background is None else dataset.classes[dataset.background]
    return Scores(matrix, dataset.classes, background)


def training_stream(training: Training, first_step: int) -> tuple[Iterator[Batch], Callable[[int], float | None]]:
    """The batches from ``first_step`` on, and what waits until the data of a step's batch is here, for so many seconds.

    Of several steps that are taken at once only the first is waited for there. None: the training shall stop before.
    """
    plan, train = training.plan, training.dataset.train
    steps: dict[str, Any] = {
        "global_batch": plan.global_batch,
        "worker_slice": plan.slices[training.peers.rank],
        "seed": training.config.seed,
        "first_step": first_step,
        "last_step": plan.steps,
    }
    ahead = None if train.stream is None else read_ahead(train.stream, **steps)
    batches = training_batches(
        train,
        augmentation=Augmentation.of(training.config),
        features=training.features.of_training if training.features else None,
        ahead=ahead,
        balance=balance_of(training),
        **steps,
    )

    def wait(step: int) -> float | None:
        # Several workers can only stop together, in a step.
        alone = training.peers.workers == 1
        return 0.0 if ahead is None else ahead.wait(step, lambda: alone and training.stop.wanted)

    return iter(batches), wait


def balance_of(training: Training) -> Balance | None:
    """What draws most of the examples for a class, if the settings ask for it."""
    dataset = training.dataset
    assert dataset.packed is None or not training.config.balance  # which is refused at the start
    return Balance.of(dataset.train.masks, len(dataset.classes)) if training.config.balance else None


def _end_epoch(training: Training, validation: Validation, step: int, training_seconds: float) -> None:
    """Tells about the epoch, and starts the next one's sums."""
    state, plan, dataset = training.state, training.plan, training.dataset
    if training.summaries is not None:
        skipped = int(state.skipped_in_epoch.numpy())
        examples = plan.examples_in_epoch_ending(step) - skipped * plan.global_batch
        mean_loss = float(state.loss_sum.numpy()) / examples if examples else math.nan
        trained = Validation(_scores(dataset, state.confusion.numpy()), mean_loss)
        training.summaries.epoch(plan.epoch(step), step, training_seconds, trained, validation, skipped)
    state.validated.assign(step)
    state.skipped_in_epoch.assign(0)
    state.loss_sum.assign(0.0)
    state.confusion.assign(tf.zeros_like(state.confusion))
    progress = state.progress().after(score_of(training.config, validation))
    state.best.assign(progress.best)
    state.since_best.assign(progress.since_best)


def _pass_over_bad(training: Training, step: int, losses: NDArray[Any], good: NDArray[Any], in_a_row: int) -> int:
    """How many steps up to the last of those after ``step`` were bad in a row; ``in_a_row`` were before them."""
    for number, loss in enumerate(losses):
        in_a_row = 0 if good[number] else in_a_row + 1
        if in_a_row:
            _pass_over(training, step + number, loss, in_a_row)
    return in_a_row


def _pass_over(training: Training, step: int, loss: float, in_a_row: int) -> None:
    """Tells of a step that is bad, the ``in_a_row``-th, if such are skipped.

    Raises:
        TrainingFailed: they are not, or there are too many.
    """
    config = training.config
    bad = "the gradients are not finite" if np.isfinite(loss) else f"the loss is {loss}; expected a finite number"
    bad = f"step {step + 1}: {bad}"
    lower, files = f"lower --learning-rate ({config.learning_rate:g})", f"the batch's files: {_files(training, step)}"
    if config.on_bad_step == "stop":
        raise TrainingFailed(f"{bad}. {lower.capitalize()} or look at {files}")
    if in_a_row == MOST_BAD_STEPS:
        raise TrainingFailed(f"{bad}, as in {in_a_row} steps in a row. {lower.capitalize()}, or look at {files}")
    if training.summaries is not None:
        report_line(f"{bad}: it is skipped ({int(training.state.skipped.numpy())} so far); {files}")


def _files(training: Training, step: int) -> str:
    plan, names = training.plan, training.dataset.train.names
    examples = example_indices(
        step,
        global_batch=plan.global_batch,
        count=len(names),
        seed=training.config.seed,
        balance=balance_of(training),
    )
    batch = ", ".join(names[index] for index in examples[:NAMED_EXAMPLES])
    if len(examples) > NAMED_EXAMPLES:
        batch += f" and {len(examples) - NAMED_EXAMPLES} more"
    return batch
