"""When a checkpoint is due, and how long training stands still for it."""

from __future__ import annotations

import contextlib
import time

from maskfleet.config import TrainConfig
from maskfleet.goodput import CHECKPOINT, IMAGE_PULL, QUEUED, STOPPED, UNSCHEDULABLE, VOLUMES
from maskfleet.records import Event
from trainer.cgroup import cpu_limit
from trainer.checkpoints.interval import best_interval, faults_in, mean_time_between_faults
from trainer.training.state import Training
from trainer.training.summaries import Validation

_NOT_AT_WORK = (QUEUED, UNSCHEDULABLE, VOLUMES, IMAGE_PULL, STOPPED)
"""Causes of time in which no process of the run can be lost."""
FIRST_SECONDS = 10.0
"""Until the first checkpoint of a process, of which nothing is known yet: with ``auto``."""


class Saver:
    """Has the state saved, on the chief; on the other workers it does nothing.

    Args:
        step: of the state, which is as it was restored or is new.

    Attributes:
        interval: seconds until the next one.
    """

    def __init__(self, training: Training, step: int):
        self._training = training
        self._store = training.checkpoints
        self._step, self._time = step, time.monotonic()
        self._held = 0.0
        self._faults = 0 if self._store is None else faults_in(Event.read_all(self._store.run))
        self.interval = self._best_interval()

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is, by steps or by seconds.

        Raises:
            TrainingFailed: the last one could not be written.
        """
        if self._store is None:
            return False
        if not self._store.is_writing:
            self._store.wait()
        every = self._training.config.checkpoint_steps
        return (every > 0 and step % every == 0) or time.monotonic() - self._time > self.interval

    def save(self, step: int, training_seconds: float, validation: Validation | None) -> None:
        """Begins a checkpoint, or completes that of this step by the validation's score.

        Raises:
            TrainingFailed: this or the last one could not be written.
        """
        if self._store is None:
            return
        miou = score = None
        if validation is not None:
            miou, score = validation.scores.miou, score_of(self._training.config, validation)
        if step > self._step:
            began = time.monotonic()
            with self._training.phases.spending(CHECKPOINT):
                self._store.save(step, self._training.plan.epoch(step), training_seconds, miou, score)
            self._step, self._time = step, time.monotonic()
            self._held = self._time - began
            self.interval = self._best_interval()
            self._training.heartbeat()
        elif miou is not None and score is not None:
            # The state was saved while the validation went on, by this process or before it.
            self._store.add_score(step, miou, score)

    def wait(self) -> None:
        """Until all is on the disk.

        Raises:
            TrainingFailed: the last one could not be written.
        """
        if self._store is None:
            return
        with self._training.phases.spending(CHECKPOINT) if self._store.is_writing else contextlib.nullcontext():
            self._store.wait()

    def _best_interval(self) -> float:
        """Seconds; as asked for, or what loses the least by what the last checkpoints cost and the faults so far."""
        seconds = self._training.config.checkpoint_seconds
        if seconds != "auto":
            return seconds
        if self._store is None or self._store.writing_seconds == 0.0:
            return FIRST_SECONDS
        spent = self._training.phases.catch_up().totals()
        at_work = sum(each for cause, each in spent.items() if cause not in _NOT_AT_WORK)
        cost = self._held + self._store.writing_cpu_seconds / cpu_limit()
        # One that comes before the last is written would have training wait for that.
        return max(best_interval(cost, mean_time_between_faults(at_work, self._faults)), self._store.writing_seconds)


def score_of(config: TrainConfig, validation: Validation) -> float:
    """What ``config.best_by`` names; higher is better."""
    return -validation.loss if config.best_by == "loss" else float(getattr(validation.scores, config.best_by))
