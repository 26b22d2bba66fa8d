"""How fast a run would be on other numbers of workers: a cost model of one step, from a run that was measured.

A step is computation, which a replica does alone, and one ring all-reduce of the gradients. Pure, but for
:meth:`Measured.of`, which reads a run.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from maskfleet.errors import BadInput
from maskfleet.records import MetricsLine, RunRecord
from maskfleet.run_directory import RunDirectory


@dataclass(frozen=True)
class Link:
    """Between two workers: ``bandwidth`` in bytes/s each way, ``latency`` in seconds for one message."""

    bandwidth: float
    latency: float

    def all_reduce_seconds(self, workers: int, size: int) -> float:
        """For ``size`` bytes on every worker by a ring: 2 (N - 1) messages of size / N each.

        Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009.
        """
        return 2 * (workers - 1) * (self.latency + size / workers / self.bandwidth)


@dataclass(frozen=True)
class Measured:
    """What a run says of itself.

    Attributes:
        step_seconds: one training step, the median of its epochs without the first, which traces the network.
        global_batch: examples a step.
        workers: of the run.
        gradient_bytes: that every worker hands to the others in each step.
        examples: of the training split.
        epochs: that the run was asked for.
        record_bytes: that an example of packed data is read as; 0 of data that is at hand.
    """

    step_seconds: float
    global_batch: int
    workers: int
    gradient_bytes: int
    examples: int
    epochs: int
    record_bytes: int = 0

    @classmethod
    def of(cls, run: RunDirectory) -> Measured:
        """From what the run has recorded.

        Raises:
            NotFound: there is no run.
            BadInput: it has not trained for an epoch yet, or it was begun by a version that did not count parameters.
        """
        record, lines = RunRecord.read(run), MetricsLine.read_all(run)
        if not lines or record.resolved is None:
            raise BadInput(f"{run.metrics}: expected at least one epoch, found none; let the run train for two or more")
        if not record.resolved.trainable_parameters:
            raise BadInput(f"{run.config}: expected resolved.trainable_parameters; begin the run anew, it is too old")
        batch, rates = record.resolved.global_batch, [line.images_per_second for line in lines]
        return cls(
            step_seconds=batch / statistics.median(rates[1:] or rates),
            global_batch=batch,
            workers=record.resolved.workers,
            gradient_bytes=4 * record.resolved.trainable_parameters,
            examples=record.resolved.training_examples,
            epochs=int(record.settings["epochs"]),
            record_bytes=record.resolved.record_bytes,
        )


@dataclass(frozen=True)
class Estimate:
    """``efficiency``: images/s per worker as a share of one worker's with the same computation; ``seconds``: of
    training, all epochs, without validation; ``read_bytes_per_second``: from the bucket, by all workers together, as
    long as they have not kept what they read; ``limit``: what a step waits for, the workers or the bucket."""

    workers: int
    global_batch: int
    step_seconds: float
    images_per_second: float
    efficiency: float
    seconds: float
    read_bytes_per_second: float = 0.0
    limit: Literal["workers", "bucket"] = "workers"


def estimate(
    measured: Measured,
    workers: Sequence[int],
    link: Link,
    global_batch: int | None = None,
    bucket: float = math.inf,
) -> list[Estimate]:
    """What ``measured`` would be on each number of ``workers``.

    Args:
        global_batch: fixed for all; by default each worker keeps its batch. The computation is taken to grow with a
            worker's batch, which is hopeful for small ones: an optimizer's work does not shrink with them.
        bucket: bytes/s that it gives to all workers together. They read ahead, so that a step takes as long as the
            slower of the two.

    Raises:
        BadInput: more workers than examples in the batch, or a link so slow that the run can't have been what it was.
    """
    batch = measured.global_batch / measured.workers
    compute = measured.step_seconds - link.all_reduce_seconds(measured.workers, measured.gradient_bytes)
    if compute <= 0:
        raise BadInput(
            f"--bandwidth, --latency: over such a link the all-reduce of {measured.workers} workers alone would take "
            f"longer than the {measured.step_seconds:.3f} s of a step of the run; give the link that it ran on"
        )
    found = []
    for count in workers:
        if global_batch is not None and count > global_batch:
            raise BadInput(f"--workers {count}: expected at most one for each of --global-batch {global_batch}")
        total = global_batch or round(batch * count)
        alone = compute * total / count / batch
        computed = alone + link.all_reduce_seconds(count, measured.gradient_bytes)
        read = total * measured.record_bytes
        step = max(computed, read / bucket)
        seconds = step * -(-measured.examples * measured.epochs // total)
        limit: Literal["workers", "bucket"] = "bucket" if step > computed else "workers"
        found.append(Estimate(count, total, step, total / step, alone / step, seconds, read / step, limit))
    return found
