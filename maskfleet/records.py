"""The files of a run that others read back: each has its type, its one reader and its one writer, here.

What is read may have been cut by a kill, written by an older version, or put there by somebody else. So a reader gives
what is a record by its type, and nothing for what is not; keys that it does not know are passed over.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from maskfleet.errors import BadInput, BadSettings, NotFound
from maskfleet.files import append_line, open_plain, read_plain, write_atomically, write_json
from maskfleet.run_directory import RunDirectory
from maskfleet.schema import Count, Seconds, parsed, validated

T = TypeVar("T")

RECORD_BYTES = 16 << 20
"""What a file of one record has at most; the settings of a run take a few kilobytes."""
LIST_BYTES = 1 << 30
"""What a file has at most that grows with the examples or with a run's length."""


@dataclass(frozen=True)
class Progress:
    """progress.json: where a run is. ``state`` is running, done, stopped or failed; ``time`` is Unix seconds.

    ``images_per_second``, ``loss`` and ``eta_seconds`` are None before they are known, ``miou`` before the first
    validation. ``data_wait_seconds`` is how long the steps of the newest start have waited for packed data on worker 0;
    None of other data.
    """

    state: str
    epoch: Count
    epochs: Count
    step: Count
    steps: Count
    images_per_second: float | None = None
    loss: float | None = None
    miou: float | None = None
    eta_seconds: Seconds | None = None
    time: Seconds = 0.0
    data_wait_seconds: Seconds | None = None

    @classmethod
    def read(cls, run: RunDirectory) -> Self | None:
        """None before the first step."""
        try:
            return cls.parse(read_plain(run.progress, RECORD_BYTES))
        except OSError:
            return None

    @classmethod
    def parse(cls, content: bytes | Mapping[str, Any]) -> Self | None:
        """From the file's bytes, or from an object that holds its keys among others."""
        return parsed(cls, content)

    def write(self, run: RunDirectory) -> None:
        write_json(run.progress, asdict(self), durable=False)


@dataclass(frozen=True, kw_only=True)
class SplitScores:
    """What a confusion matrix over a split says.

    Attributes:
        iou, dice, precision, recall: by class; None for a class that does not occur.
        confusion: counts of pixels [C][C], rows truth.
    """

    miou: float = math.nan
    miou_without_background: float = math.nan
    frequency_weighted_iou: float = math.nan
    pixel_accuracy: float = math.nan
    mean_class_accuracy: float = math.nan
    mean_dice: float = math.nan
    iou: Mapping[str, float | None] = field(default_factory=dict)
    dice: Mapping[str, float | None] = field(default_factory=dict)
    precision: Mapping[str, float | None] = field(default_factory=dict)
    recall: Mapping[str, float | None] = field(default_factory=dict)
    confusion: Sequence[Sequence[Count]] = ()


@dataclass(frozen=True)
class MetricsLine(SplitScores):
    """A line of metrics.jsonl: one validation.

    Attributes:
        training_seconds: spent in training steps up to ``step``, in all processes of the run.
        images_per_second: of the epoch's training steps.
        loss, training_miou: of the epoch's training examples, as they were when trained on.
        skipped_steps: of the epoch, for a loss or gradients that were not finite.
    """

    epoch: Count
    step: Count
    training_seconds: Seconds
    images_per_second: float
    loss: float
    validation_loss: float
    training_miou: float = math.nan
    skipped_steps: Count = 0

    @classmethod
    def read_all(cls, run: RunDirectory) -> list[Self]:
        """All validations of a run, the oldest first; none before the first."""
        return _read_lines(cls, run.metrics)

    def append(self, run: RunDirectory) -> None:
        append_line(run.metrics, self._as_json())

    @classmethod
    def replace_all(cls, run: RunDirectory, lines: Sequence[Self]) -> None:
        """For a run that goes on from an earlier step."""
        write_atomically(run.metrics, "".join(line._as_json() + "\n" for line in lines).encode())

    def _as_json(self) -> str:
        """With what it is of in front, for people."""
        return json.dumps({"epoch": self.epoch, "step": self.step, **asdict(self)})


@dataclass(frozen=True)
class FinalScores(SplitScores):
    """scores.json: how good the network is that a run has come to.

    Attributes:
        split, examples: what these scores are of, and how many images that is.
        chosen_on: the split by which the checkpoint was chosen, or training stopped; None where it is simply the last.
        step, epoch: of the checkpoint.
        loss: at the network's input size.
        size: at which pixels were counted for the other scores: the images' own, or the network's input size, as in
            runs of earlier versions and where the images could not be read once more.
        at_network_size: those of the network's input size beside them; None where they are of that size themselves.
    """

    split: str
    examples: Count
    chosen_on: str | None
    step: Count
    epoch: Count
    loss: float
    size: Literal["own", "network"] = "network"
    at_network_size: SplitScores | None = None

    @property
    def sizes(self) -> str:
        """The mean IoU by each size that pixels were counted at."""
        if self.at_network_size is None:
            return f"{self.miou:.4f} at the network's input size"
        return f"{self.miou:.4f} at the images' own size, {self.at_network_size.miou:.4f} at the network's"

    @property
    def title(self) -> str:
        """Which split the scores are of, and which one has chosen what."""
        if self.chosen_on is None:
            return f"on the {self.split} split"
        if self.chosen_on != self.split:
            return f"on the {self.split} split, of epoch {self.epoch}, which was chosen on the {self.chosen_on} split"
        if self.split == "test":
            return "on the test split, on which the end of training was chosen too: the scores are too good"
        return f"on the {self.split} split, on which epoch {self.epoch} was chosen too: the data has no test split"

    @classmethod
    def read(cls, run: RunDirectory) -> Self | None:
        """None before a run's end, and of one that an older version ended."""
        try:
            return parsed(cls, read_plain(run.scores, RECORD_BYTES))
        except OSError:
            return None

    def write(self, run: RunDirectory) -> None:
        write_json(run.scores, asdict(self))


CURVES = (("loss", "loss", "validation_loss"), ("mIoU", "training_miou", "miou"))
"""What is drawn over a run's epochs: title, and the fields of :class:`MetricsLine` of training and validation."""


@dataclass(frozen=True)
class Event:
    """A line of events.jsonl. ``kind`` is start, restart, scale, checkpoint or end; ``time`` is Unix seconds."""

    time: Seconds
    kind: str
    message: str

    @classmethod
    def append(cls, run: RunDirectory, kind: str, message: str) -> None:
        append_line(run.events, json.dumps(asdict(cls(time.time(), kind, message))))

    @classmethod
    def read_all(cls, run: RunDirectory, end: int | None = None) -> list[Self]:
        """All events of a run, the oldest first, or those of its first ``end`` bytes."""
        return _read_lines(cls, run.events, end)

    @classmethod
    def read_from(cls, run: RunDirectory, position: int) -> tuple[list[Self], int]:
        """The events of the whole lines behind a byte's position, and where they end."""
        return read_lines_from(cls, run.events, position)


@dataclass(frozen=True)
class ReporterMark:
    """.reporter.json: up to which byte of events.jsonl the events are on the Job."""

    read: Count

    @classmethod
    def load(cls, run: RunDirectory) -> Self | None:
        try:
            return parsed(cls, read_plain(run.reporter_mark, RECORD_BYTES))
        except OSError:
            return None

    def write(self, run: RunDirectory) -> None:
        write_json(run.reporter_mark, asdict(self), durable=False)


@dataclass(frozen=True)
class Resolved:
    """What came of a run's settings on its data and workers, as it was last started.

    ``colours`` are [C][3]; ``background`` is a class's name. ``trainable_parameters`` and ``image_size`` are 0 if a
    version began the run that did not keep them; an ``image_size`` that is no square's is ``HEIGHTxWIDTH``.
    ``record_bytes`` is what an example of packed data is read as, the mean; 0 of other data.
    """

    workers: int = 1
    replicas: int = 1
    global_batch: int = 0
    scaled_learning_rate: float = 0.0
    steps: int = 0
    trainable_parameters: int = 0
    threads: int = 0
    image_size: int | str = 0
    fit: str = "squash"
    classes: Sequence[str] = ()
    colours: Sequence[Sequence[int]] = ()
    background: str | None = None
    training_examples: int = 0
    test_examples: int = 0
    validation_examples: int = 0
    record_bytes: int = 0

    @property
    def chooser(self) -> str:
        """The split on which epochs are validated."""
        return "validation" if self.validation_examples else "test"


@dataclass(frozen=True)
class RunRecord:
    """config.json: a run's settings, and from its first start on what explains and repeats it.

    ``run_id`` tells the run's checkpoints from another's; None before the first start, and of an older version.
    """

    settings: Mapping[str, Any]
    resolved: Resolved | None = None
    data_fingerprint: str | None = None
    best_by: str | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)
    git_commit: str | None = None
    started: Seconds | None = None
    run_id: str | None = None
    code_fingerprint: str | None = None

    @classmethod
    def read(cls, run: RunDirectory) -> Self:
        """The record of ``run``.

        Raises:
            NotFound: there is no run.
            BadInput: the file can't be read, or is no record of a run.
        """
        try:
            content = read_plain(run.config, RECORD_BYTES)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"{run.path}: there is no run: expected {run.config}") from error
        except OSError as error:
            raise BadInput(f"{run.config}: can't be read: {error.strerror or error}") from error
        try:
            return validated(cls, content)
        except ValueError as error:
            raise BadInput(f"{run.config}: expected the settings of a run: {error}") from error

    @classmethod
    def id_of(cls, run: RunDirectory) -> str | None:
        """The ``run_id`` of what lies in ``run``; None if there is none."""
        try:
            return cls.read(run).run_id
        except (NotFound, BadInput):
            return None

    def write(self, run: RunDirectory) -> None:
        content = asdict(self)
        write_json(run.config, content if self.resolved is not None else {"settings": content["settings"]})


@dataclass(frozen=True)
class Examples:
    """examples.json: the pictures of a run's splits, digests of their pixels by name.

    ``fingerprint`` is that of the data; it covers the masks too. ``code_fingerprint`` is that of the user's own code.
    """

    fingerprint: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    validation: Mapping[str, str] = field(default_factory=dict)
    code_fingerprint: str | None = None

    @classmethod
    def read(cls, run: RunDirectory) -> Self | None:
        """None of a run that has none, as one that an older version began."""
        try:
            return parsed(cls, read_plain(run.examples, LIST_BYTES))
        except OSError:
            return None

    def write(self, run: RunDirectory) -> None:
        write_json(run.examples, asdict(self))


def write_settings(run: RunDirectory, settings: Mapping[str, Any]) -> Callable[[], None]:
    """Puts ``settings`` into config.json and leaves what else stands there.

    Returns:
        What puts the earlier file back, for settings that training refuses: else they would be in the way of every
        later start. It does nothing once a checkpoint was made with them.

    Raises:
        BadSettings: the folder can't be written.
        BadInput: what is there is no record of a run.
    """
    steps = run.checkpoint_steps()
    old = None
    before: dict[str, Any] = {}
    if run.config.exists():
        RunRecord.read(run)
        old = read_plain(run.config, RECORD_BYTES)
        before = json.loads(old)  # with keys of a later version
    changes = before.get("settings") != settings
    try:
        if changes:
            write_json(run.config, {**before, "settings": settings})
    except OSError as error:
        raise BadSettings(f"--run-dir {run.path}: can't be written: {error.strerror}") from error

    def put_back() -> None:
        if changes and old is not None and run.checkpoint_steps() == steps:
            write_atomically(run.config, old)

    return put_back


def read_lines_from(kind: type[T], path: Path, position: int) -> tuple[list[T], int]:
    """The records in the whole lines of a file behind a byte's position, and where they end."""
    try:
        with open_plain(path) as file:
            position = min(position, file.seek(0, os.SEEK_END))
            file.seek(position)
            content = file.read(LIST_BYTES)
    except OSError:
        return [], position
    whole = content[: content.rfind(b"\n") + 1]
    return _parse_lines(kind, whole), position + len(whole)


def _read_lines(kind: type[T], path: Path, end: int | None = None) -> list[T]:
    try:
        return _parse_lines(kind, read_plain(path, LIST_BYTES)[:end])
    except OSError:
        return []


def _parse_lines(kind: type[T], content: bytes) -> list[T]:
    """Of whole lines; one that a kill has cut, or that is no record, is passed over."""
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    return [record for record in (parsed(kind, line) for line in lines) if record is not None]
