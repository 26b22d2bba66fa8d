"""How fast each worker is by itself, and what holds it up: what workers tell the chief, and what the chief makes of it.

Of a step that all workers take together only the time before the sum over them is a worker's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Self

import pydantic

from maskfleet.files import read_plain, write_json
from maskfleet.run_directory import RunDirectory
from maskfleet.schema import Count, Seconds, Share, parsed

_FILE_BYTES = 16 << 20

KnownShare = Annotated[Share, pydantic.Field(allow_inf_nan=False)]
Amount = Annotated[float, pydantic.Field(ge=0, le=1e15, allow_inf_nan=False)]


@dataclass(frozen=True)
class Steps:
    """What a training process tells its supervisor about the steps since it did so last: seconds of all of them.

    Attributes:
        input: that it waited for its batch.
        compute: that it computed its gradients, as if all workers had the same number of examples.
        all_reduce: until the gradients of all were added up, which waits for the last worker.
    """

    count: Count
    seconds: Seconds
    input: Seconds
    compute: Seconds
    all_reduce: Seconds

    def __add__(self, other: Steps) -> Steps:
        return Steps(
            self.count + other.count,
            self.seconds + other.seconds,
            self.input + other.input,
            self.compute + other.compute,
            self.all_reduce + other.all_reduce,
        )


NO_STEPS = Steps(0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Usage:
    """What a worker has used since it told so last; None of what can't be known there.

    Attributes:
        cpus: CPUs that its training process used on average.
        cpu_wait: the share of the time that its threads were ready to run and another process had the CPU.
        throttled: the share of the periods in which it had used up its CPU limit.
        memory: the most ever used, as a share of its limit.
        io_wait: the share of the time that something of its container waited for a disk.
        gpu, gpu_memory: the share of the time that its GPUs computed, and of their memory that is used; the mean.
    """

    cpus: Amount | None = None
    cpu_wait: KnownShare | None = None
    throttled: KnownShare | None = None
    memory: KnownShare | None = None
    io_wait: KnownShare | None = None
    gpu: KnownShare | None = None
    gpu_memory: KnownShare | None = None


@dataclass(frozen=True)
class Pace:
    """A worker's newest steps and usage. ``round_trip`` is the seconds to it from the chief and back."""

    steps: Steps
    usage: Usage
    round_trip: Seconds | None = None

    @property
    def own(self) -> float:
        """Seconds of a step that depend on this worker alone."""
        return self.input + self.compute

    @property
    def input(self) -> float:
        return self.steps.input / max(1, self.steps.count)

    @property
    def compute(self) -> float:
        return self.steps.compute / max(1, self.steps.count)

    @property
    def all_reduce(self) -> float:
        return self.steps.all_reduce / max(1, self.steps.count)

    @property
    def step(self) -> float:
        return self.steps.seconds / max(1, self.steps.count)


@dataclass(frozen=True)
class FleetPace:
    """workers.json: the pace of workers, by their number, and a line for each that holds up the others.

    Of a large fleet it has the first workers and those that are named. ``time`` is Unix seconds; ``present`` names all
    that train, as ``0,2-4``, where not all have to.
    """

    time: Seconds
    slow: tuple[str, ...] = ()
    workers: Mapping[str, Pace] = field(default_factory=dict)
    present: str = ""

    @classmethod
    def read(cls, run: RunDirectory) -> Self | None:
        """None before the first look, and of a run of an older version."""
        try:
            return parsed(cls, read_plain(run.workers, _FILE_BYTES))
        except OSError:
            return None

    def write(self, run: RunDirectory) -> None:
        write_json(run.workers, asdict(self), durable=False)
