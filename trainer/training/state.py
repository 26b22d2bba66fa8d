"""What the loop works on: what changes during training, and what does not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.peers import Peers
from maskfleet.phase_log import PhaseLog
from trainer.checkpoints.store import CheckpointStore
from trainer.data.cache import Dataset
from trainer.models.network import Network
from trainer.training.early_stopping import Progress
from trainer.training.features import Features
from trainer.training.pace import PaceMeter
from trainer.training.plan import Plan
from trainer.training.profiling import Profiler
from trainer.training.summaries import Summaries

Loss: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""(masks, logits) -> the loss of each example, [b]."""
Inputs: TypeAlias = tf.Tensor | tuple[tf.Tensor, ...]
"""Images uint8 [b, S, S, 3], or the encoder's features [b, h, w, c] where they are cached."""
Batch: TypeAlias = tuple[Inputs, tf.Tensor, tf.Tensor]
"""Inputs, masks uint8 [b, S, S], and the indices of the examples [b]."""


class TrainingState(tf.Module):
    """What changes during training beside the model and the optimizer.

    Attributes:
        step: steps done.
        validated: the last step that was validated, -1 before the first.
        loss_sum: of this epoch's examples so far; float64, since it is a sum over many.
        confusion: matrix [C, C] of this epoch's training examples so far, as they were when trained on.
        best, since_best: see :class:`~trainer.training.early_stopping.Progress`.
        skipped, skipped_in_epoch: steps that left everything as it was, since loss or gradients were not finite.
    """

    def __init__(self, classes: int):
        super().__init__()
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.validated = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self.loss_sum = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self.confusion = tf.Variable(tf.zeros([classes, classes], tf.int64), trainable=False)
        self.best = tf.Variable(-math.inf, dtype=tf.float64, trainable=False)
        self.since_best = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.skipped = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.skipped_in_epoch = tf.Variable(0, dtype=tf.int64, trainable=False)

    def progress(self) -> Progress:
        return Progress(float(self.best.numpy()), int(self.since_best.numpy()))


@dataclass
class StopFlag:
    """Set by the signal handler; travels with the next step's vector to all workers."""

    _set_at: float | None = None

    def set(self) -> None:
        """The first time counts."""
        self._set_at = self._set_at or time.monotonic()

    @property
    def wanted(self) -> bool:
        return self._set_at is not None

    @property
    def seconds(self) -> float:
        """Since it was set; 0 before."""
        return 0.0 if self._set_at is None else time.monotonic() - self._set_at


@dataclass(frozen=True)
class Training:
    """All that the loop works on.

    Attributes:
        features: of a frozen encoder, in the place of the images they are of; None: they are computed.
        heartbeat: called whenever something was achieved, for the supervisor's watchdog.
        checkpoints, summaries, profiler: None on all workers but the chief; no profiler unless it is asked for.
        phases: takes down what the time is spent on; on all workers but the chief it keeps that to itself.
        pace: tells the supervisor how fast this worker is by itself.
    """

    config: TrainConfig
    peers: Peers
    strategy: tf.distribute.Strategy
    dataset: Dataset
    features: Features | None
    network: Network
    optimizer: tf.Module
    loss: Loss
    plan: Plan
    state: TrainingState
    stop: StopFlag
    heartbeat: Callable[[], None]
    checkpoints: CheckpointStore | None
    summaries: Summaries | None
    profiler: Profiler | None = None
    phases: PhaseLog = field(default_factory=lambda: PhaseLog(None))
    pace: PaceMeter = field(default_factory=PaceMeter)

    @property
    def local_replicas(self) -> int:
        """Devices of this worker that train, the same number on every worker."""
        return int(self.strategy.num_replicas_in_sync) // self.peers.workers
