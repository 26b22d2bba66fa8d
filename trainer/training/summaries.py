"""What a run tells while it trains: TensorBoard, metrics.jsonl, progress.json, pictures and a line an epoch.

Event files are written without TensorFlow's summary writer, since only so a resumed run can say from which
step on older events are void. Only the chief has summaries.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb

from maskfleet.child_processes import report_line
from maskfleet.files import write_atomically
from maskfleet.goodput import goodput
from maskfleet.pace import FleetPace
from maskfleet.phase_log import PhaseLog
from maskfleet.records import FinalScores, MetricsLine, Progress, RunRecord, SplitScores
from maskfleet.run_directory import RunDirectory
from maskfleet.text import as_markdown, one_line
from trainer.data.cache import Dataset
from trainer.event_values import image_value
from trainer.objective.metrics import MEANS, Scores
from trainer.pictures import confusion_picture, curves_picture, png, predictions_picture
from trainer.training.event_file import EventFile
from trainer.training.hyperparameters import SETTINGS_AND_SCORES, session
from trainer.training.plan import Plan
from trainer.training.tracker import Tracking

PROGRESS_SECONDS = 0.5
"""Between two writings of progress.json."""
WORKERS_SECONDS = 10.0
"""Between two points of each worker's curves."""
PICTURED_EXAMPLES = 4
BY_CLASS = ("iou", "precision", "recall")
"""Scores of each class that TensorBoard shows."""
MAX_STEP_POINTS = 2000
"""Points of a per-step curve; a longer run writes only every n-th step."""


@dataclass(frozen=True)
class Validation:
    """Scores over a split, and the mean loss of an example."""

    scores: Scores
    loss: float


class Summaries:
    """Writes everything under the run directory that a person looks at while training runs.

    Args:
        predict: images [b, H, W, 3] -> class indices [b, H, W].
        first_step: where this process goes on; what was told of later steps is taken back.
        validated: the last step whose validation the state knows of; what was told of later ones is taken back.
        tracker: of the user's own.
        phases: what the run's time is spent on.
    """

    def __init__(
        self,
        run: RunDirectory,
        plan: Plan,
        dataset: Dataset,
        predict: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
        first_step: int,
        validated: int,
        tracker: Tracking | None = None,
        phases: PhaseLog | None = None,
    ):
        self._tracker = tracker
        self._phases = phases or PhaseLog(None)
        self._run = run
        self._plan = plan
        self._dataset = dataset
        self._predict = predict
        self._metrics = _take_back(run, validated)
        self._final: FinalScores | None = None
        self._writers = {name: EventFile(run.tensorboard / name) for name in ("train", "validation")}
        # At the first start too: TensorBoard takes a START for a restart only if it has seen one before.
        void_from = first_step + 1 if first_step else 0
        for writer in self._writers.values():
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            writer.add(event_pb2.Event(step=void_from, session_log=start))
        self._stride = -(-plan.steps // MAX_STEP_POINTS)
        self._seconds_per_step: float | None = None
        self._seconds_since_epoch = 0.0
        self._steps_since_epoch = 0
        self._progress = Progress(
            "running",
            epoch=plan.epoch(first_step),
            epochs=plan.epochs,
            step=first_step,
            steps=plan.steps,
            miou=self._metrics[-1].miou if self._metrics else None,
        )
        self._progress_time = 0.0
        self._workers_time = time.monotonic()
        self._write_progress()

    def settings(self, settings: Mapping[str, Any], roles: str) -> None:
        """The resolved configuration, and what each split is for, as text in TensorBoard."""
        self._add("train", 0, text_pb("splits", roles))
        table = "|setting|value|\n|-|-|\n" + "\n".join(
            f"|{key}|{as_markdown(str(value))}|" for key, value in settings.items()
        )
        self._add("train", 0, text_pb("settings", table))

    def steps(
        self, last: int, losses: NDArray[Any], learning_rates: NDArray[Any], seconds: float, waited: float = 0.0
    ) -> None:
        """After each call: its steps up to ``last``, the time that they took together, ``waited`` for data in it.

        Args:
            losses: of each step; nan for one that was skipped.
        """
        count = len(losses)
        # The first call of a process also builds the graph: it says nothing about the speed.
        if self._progress.loss is not None:
            old = 0.9**count if self._seconds_per_step is not None else 0.0
            self._seconds_per_step = old * (self._seconds_per_step or 0.0) + (1 - old) * seconds / count
            self._seconds_since_epoch += seconds
            self._steps_since_epoch += count
        self._update(step=last, epoch=self._plan.epoch(last))
        if (known := losses[np.isfinite(losses)]).size:
            self._update(loss=float(known[-1]))
        if self._dataset.packed is not None:
            self._update(data_wait_seconds=(self._progress.data_wait_seconds or 0.0) + waited)
        if self._seconds_per_step is not None:
            self._update(
                images_per_second=self._plan.global_batch / self._seconds_per_step,
                eta_seconds=(self._plan.steps - last) * self._seconds_per_step,
            )
        for step, loss, rate in zip(range(last - count + 1, last + 1), losses, learning_rates, strict=True):
            if np.isfinite(loss) and (step % self._stride == 0 or step == self._plan.steps):
                self._add("train", step, scalar_pb("loss", loss), scalar_pb("learning_rate", rate))
                if (total := self._progress.data_wait_seconds) is not None:
                    self._add("train", step, scalar_pb("data_wait_seconds", total))
        if time.monotonic() - self._progress_time > PROGRESS_SECONDS:
            self._write_progress()
        if time.monotonic() - self._workers_time > WORKERS_SECONDS:
            self._workers_time = time.monotonic()
            self._add("train", last, *_worker_values(FleetPace.read(self._run)))

    def epoch(
        self,
        epoch: int,
        step: int,
        training_seconds: float,
        trained: Validation,
        held_out: Validation,
        skipped_steps: int = 0,
    ) -> None:
        """After each validation.

        Args:
            trained: over the epoch's training examples, as they were when trained on.
            held_out: over the split on which epochs are validated.
            skipped_steps: of the epoch, for a loss or gradients that were not finite.
        """
        if self._steps_since_epoch:
            speed = self._plan.global_batch * self._steps_since_epoch / self._seconds_since_epoch
        else:
            speed = self._progress.images_per_second or 0.0
        self._steps_since_epoch, self._seconds_since_epoch = 0, 0.0
        scores = held_out.scores
        line = MetricsLine(
            epoch,
            step,
            round(training_seconds, 3),
            round(speed, 2),
            trained.loss,
            held_out.loss,
            trained.scores.miou,
            **facts_of(scores),
            skipped_steps=skipped_steps,
        )
        self._metrics.append(line)
        line.append(self._run)
        if self._tracker is not None:
            self._tracker.scores(step, _numbers(line))
        self._add("train", step, scalar_pb("images_per_second", speed))
        if skipped_steps:
            self._add("train", step, scalar_pb("skipped_steps", skipped_steps))
        for name, result in (("train", trained), ("validation", held_out)):
            self._add(name, step, *_score_values(result.scores))
        self._add("validation", step, scalar_pb("loss", held_out.loss))
        self._add("train", step, *_time_values(self._phases.catch_up().totals()))
        self._update(miou=scores.miou)
        self._write_progress()
        self._picture(epoch, step)
        eta = self._progress.eta_seconds
        report_line(
            f"epoch {epoch}/{self._plan.epochs}  step {step}/{self._plan.steps}  loss {trained.loss:.4f}  "
            f"validation loss {held_out.loss:.4f}  mIoU {scores.miou:.4f}  {speed:.1f} images/s  "
            f"ETA {'-' if eta is None else duration(eta)}"
        )

    def final(self, scores: FinalScores) -> None:
        """Once, after the last validation: keeps them, and shows what no validation has shown.

        That are the scores at the images' own size, and both of a split that was not validated on.
        """
        self._final = scores
        scores.write(self._run)
        if scores.size == "own":
            self._add(self._writer_of(scores.split), scores.step, *_final_values(scores, "own_size/"))
        if self._tracker is not None:
            self._tracker.scores(scores.step, {f"final/{name}": value for name, value in _numbers(scores).items()})
        if scores.split != self._dataset.chooser:
            at_network_size = scores.at_network_size or scores
            self._add(self._writer_of(scores.split), scores.step, *_final_values(at_network_size))
            self._add(scores.split, scores.step, scalar_pb("loss", scores.loss))
        # In a folder of their own, since TensorBoard takes all curves of a folder with hyperparameters for its results.
        folder, record = self._writer_of(SETTINGS_AND_SCORES), RunRecord.read(self._run)
        self._add(folder, scores.step, *session(record, self._run.path.resolve().name), *_final_values(scores))
        self._add(folder, scores.step, scalar_pb("loss", scores.loss))
        self._add("train", scores.step, text_pb("scores", f"mIoU {scores.sizes}, {scores.title}"))

    def _writer_of(self, split: str) -> str:
        """``split``, once there is a folder for what is told of it; epochs are told of in ``validation``."""
        if split == self._dataset.chooser:
            return "validation"
        if split not in self._writers:
            writer = self._writers[split] = EventFile(self._run.tensorboard / split)
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            writer.add(event_pb2.Event(step=0, session_log=start))  # earlier ends are void
        return split

    def end(self, state: str) -> None:
        """Draws the closing pictures and ends the files; ``state`` is done, stopped or failed."""
        if self._metrics:
            curves = curves_picture(self._metrics)
            write_atomically(self._run.pictures / "curves.png", curves)
            last = self._final or self._metrics[-1]
            matrix = confusion_picture(np.array(last.confusion), self._dataset.classes)
            write_atomically(self._run.pictures / "confusion.png", matrix)
            folder = "test" if "test" in self._writers else "validation"
            self._add(folder, last.step, image_value("confusion", matrix))
        for writer in self._writers.values():
            writer.close()
        self._update(state=state)
        self._write_progress()
        if self._tracker is not None:
            self._tracker.end(state)

    def _picture(self, epoch: int, step: int) -> None:
        dataset, split = self._dataset, self._dataset.chooses.spread(PICTURED_EXAMPLES)
        found = self._predict(split.images)
        picture = png(predictions_picture(split.images, split.masks, found, dataset.classes, dataset.colours))
        write_atomically(self._run.pictures / f"predictions-epoch-{epoch:03d}.png", picture, durable=False)
        self._add("validation", step, image_value("predictions", picture))

    def _add(self, writer: str, step: int, *summaries: Summary) -> None:
        for summary in summaries:
            self._writers[writer].add(event_pb2.Event(step=step, summary=summary))

    def _update(self, **known: Any) -> None:
        self._progress = replace(self._progress, **known)

    def _write_progress(self) -> None:
        self._progress_time = time.monotonic()
        replace(self._progress, time=time.time()).write(self._run)


def duration(seconds: float) -> str:
    """1234.5 -> '20:34'; hours only where there are some."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _take_back(run: RunDirectory, validated: int) -> list[MetricsLine]:
    """Drops the lines about validations that this process will do again; returns the others."""
    run.scores.unlink(missing_ok=True)
    kept = [line for line in MetricsLine.read_all(run) if line.step <= validated]
    if run.metrics.exists():
        MetricsLine.replace_all(run, kept)
    for path in run.pictures.glob("predictions-epoch-*.png"):
        epoch = path.stem.rpartition("-")[2]
        if not kept or int(epoch) > kept[-1].epoch:
            path.unlink()
    return kept


def _score_values(scores: Scores) -> Sequence[Summary]:
    values = [scalar_pb(name, value) for name, value in scores.means.items()]
    return values + [
        scalar_pb(f"{kind}/{one_line(name)}", value)
        for kind in BY_CLASS
        for name, value in getattr(scores, kind).items()
    ]


def _worker_values(fleet: FleetPace | None) -> Iterator[Summary]:
    """Of each worker: seconds of a step by what it spends them on, and what it uses."""
    if fleet is None:
        return
    for worker, pace in fleet.workers.items():
        steps = (
            {"input": pace.input, "compute": pace.compute, "all_reduce": pace.all_reduce} if pace.steps.count else {}
        )
        for name, value in {**steps, **asdict(pace.usage), "round_trip": pace.round_trip}.items():
            if value is not None:
                yield scalar_pb(f"workers/{name}/{worker}", value)


def _time_values(seconds: Mapping[str, float]) -> Iterator[Summary]:
    """What the run's time was spent on so far, all its processes together."""
    if (share := goodput(seconds)) is not None:
        yield scalar_pb("goodput", share)
    for cause, each in seconds.items():
        yield scalar_pb(f"seconds/{cause}", each)


def _final_values(scores: SplitScores, prefix: str = "") -> Iterator[Summary]:
    values = {name: getattr(scores, name) for name in MEANS}
    for kind in BY_CLASS:
        values |= {f"{kind}/{one_line(name)}": value for name, value in getattr(scores, kind).items()}
    for name, value in values.items():
        yield scalar_pb(prefix + name, math.nan if value is None else value)


def _numbers(line: MetricsLine | FinalScores) -> dict[str, float | None]:
    """All scores of a record that are one number each, IoU and Dice by class."""
    values = {name: value for name, value in vars(line).items() if isinstance(value, int | float)}
    by_class = {f"{name}/{each}": value for name in ("iou", "dice") for each, value in getattr(line, name).items()}
    return {name: value for name, value in (values | by_class).items() if name != "step"}


def facts_of(scores: Scores) -> dict[str, Any]:
    """The fields that :class:`MetricsLine` and :class:`FinalScores` have of them."""
    return {
        **scores.means,
        "iou": {name: _or_none(value) for name, value in scores.iou.items()},
        **{
            kind: {name: _or_none(value) for name, value in getattr(scores, kind).items()}
            for kind in ("dice", "precision", "recall")
        },
        "confusion": scores.matrix.tolist(),
    }


def _or_none(value: float) -> float | None:
    """JSON has no nan, the score of a class that does not occur."""
    return None if math.isnan(value) else value
