"""A grid of networks, trained one after another under the same settings, and what came out in one table."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from maskfleet.child_processes import end_with_parent
from maskfleet.config import TrainConfig
from maskfleet.errors import BAD_INPUT, DONE, BadSettings, TrainingFailed
from maskfleet.files import open_plain, write_atomically
from maskfleet.out_setting import check_out, writing
from maskfleet.plain_files import PlainFiles
from maskfleet.records import MetricsLine, Progress, Resolved, RunRecord, write_settings
from maskfleet.run_directory import RunDirectory
from maskfleet.settings import Layer
from maskfleet.text import as_markdown as escaped
from maskfleet.text import one_line
from trainer.data.cache import dataset_of
from trainer.pictures import colour_mask, legend_strip, png
from trainer.results.legend import Legend

_GAP = 4
_LEFT = 150
_LONGEST = 1 << 16
"""Bytes of the end of a training's log in which its last line is looked for."""


@dataclass(frozen=True)
class Row:
    """What one network reached, at its last validation.

    ``images_per_second`` is the speed of training; ``iou`` is by class, nan for one that does not occur.
    """

    model: str
    upsampling: str
    parameters: int
    images_per_second: float
    pixel_accuracy: float
    miou: float
    iou: dict[str, float]


def grid(settings: TrainConfig, models: Sequence[str], upsamplings: Sequence[str]) -> list[TrainConfig]:
    """The settings with every pair of model and up-sampling, and without an export of each.

    Raises:
        BadSettings: there is no such model or up-sampling, or a model has no use for the encoder.
    """
    configs = []
    for model, upsampling in product(models, upsamplings):
        for flag, value, known in (("models", model, "model"), ("upsampling", upsampling, "upsampling")):
            choices = _names(TrainConfig.model_fields[known].annotation)
            if value not in choices:
                raise BadSettings(f"--{flag}: expected some of {','.join(choices)}, found {value!r}")
        changed = {"model": model, "upsampling": upsampling, "export": False}
        configs.append(TrainConfig.resolve([Layer("--{}", {**settings.model_dump(), **changed})]))
    return configs


def _names(annotation: Any) -> list[str]:
    """Of a setting that is one of several names, or MODULE:FUNCTION beside them."""
    parts = [annotation] if get_origin(annotation) is Literal else get_args(annotation)
    return [name for part in parts if get_origin(part) is Literal for name in get_args(part)]


def run_of(out: Path, config: TrainConfig) -> RunDirectory:
    return RunDirectory(out / f"{config.model}-{config.upsampling}")


def train_all(configs: Sequence[TrainConfig], out: Path) -> Iterator[str]:
    """Trains what is not yet trained under ``out``, each in a process of its own; gives a line after each.

    Raises:
        BadSettings: ``out`` holds a run with other settings, or can't be written.
        TrainingFailed: a training failed; what is done is kept, and begun again it goes on from there.
    """
    check_out(out, folder=True)
    for config in configs:  # before hours are spent on the first
        _is_done(run_of(out, config), config)
    for number, config in enumerate(configs, start=1):
        run = run_of(out, config)
        title = f"{number}/{len(configs)} {config.model} {config.upsampling}"
        began = time.monotonic()
        if not _is_done(run, config):
            with writing(out):
                run.path.mkdir(parents=True, exist_ok=True)
                log = PlainFiles(run.path).open_to_append("training.log")
            with log:
                is_new = not run.config.exists()
                if is_new:
                    write_settings(run, config.model_dump(mode="json"))
                command = [sys.executable, "-m", "trainer.cli", "train", "--run-dir", str(run.path)]
                code = subprocess.run(
                    command,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    check=False,
                    preexec_fn=end_with_parent(signal.SIGTERM),
                ).returncode
            if code == BAD_INPUT and is_new and not run.checkpoint_steps():
                run.config.unlink(missing_ok=True)  # what is refused shall not be in the way of the same, corrected
            if code != DONE:
                last = _last_line(run.path / "training.log")
                raise TrainingFailed(f"{title}: training ended with {code}: {last}; see {run.path / 'training.log'}")
        row = read_row(run, config)
        yield f"{title}: mIoU {row.miou:.4f}, {row.images_per_second:.1f} images/s, {time.monotonic() - began:.0f} s"


def _last_line(log: Path) -> str:
    with open_plain(log) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST))
        return one_line(file.read().decode(errors="replace").strip().rpartition("\n")[2])


def read_row(run: RunDirectory, config: TrainConfig) -> Row:
    """The row of a run that is complete."""
    from trainer.checkpoints.inspection import inspect_checkpoint

    lines = MetricsLine.read_all(run)
    if not lines:
        raise TrainingFailed(f"{run.metrics}: expected the scores of a run that is done, found none; delete {run.path}")
    last = lines[-1]
    return Row(
        config.model,
        config.upsampling,
        inspect_checkpoint(run.path)["parameters"],
        last.images_per_second,
        last.pixel_accuracy,
        last.miou,
        {name: float("nan") if value is None else value for name, value in last.iou.items()},
    )


def chooser(configs: Sequence[TrainConfig], out: Path) -> str:
    """The split of the rows' scores: the one that epochs were validated on, as to compare is to choose."""
    return (RunRecord.read(run_of(out, configs[0])).resolved or Resolved()).chooser


def as_markdown(rows: Sequence[Row]) -> str:
    """A table with the highest mIoU in bold."""
    header, *lines = _cells(rows)
    best = max(range(len(rows)), key=lambda number: np.nan_to_num(rows[number].miou, nan=-1.0))
    lines[best] = [f"**{cell}**" for cell in lines[best]]
    header = [escaped(cell) for cell in header]  # the classes' names are other people's
    table = [header, ["-" if column < 2 else "-:" for column in range(len(header))], *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in table)


def as_csv(rows: Sequence[Row]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(_cells(rows))
    return buffer.getvalue()


def write_comparison(configs: Sequence[TrainConfig], out: Path, images: int) -> str:
    """Writes compare.md, compare.csv, compare.png and tensorboard/ into ``out``; returns the Markdown.

    The picture has a row for each network, with its masks of the same ``images`` of the split that
    the table is of.

    Raises:
        BadSettings: ``out`` can't be written.
    """
    rows = [read_row(run_of(out, config), config) for config in configs]
    markdown = as_markdown(rows)
    picture = png(_picture(configs, out, images))
    with writing(out):
        write_atomically(out / "compare.md", markdown.encode())
        write_atomically(out / "compare.csv", as_csv(rows).encode())
        write_atomically(out / "compare.png", picture)
        _write_tensorboard(out / "tensorboard", markdown, picture)
    return markdown


def comparison_picture(
    images: NDArray[np.uint8], truths: NDArray[np.uint8], masks: dict[str, NDArray[np.uint8]], legend: Legend
) -> Image.Image:
    """Columns are images [N, H, W, 3]; rows the images, their truth [N, H, W], and each network's masks of them."""
    rows = {"image": images, "truth": colour_mask(truths, legend.colours)}
    rows |= {name: colour_mask(found, legend.colours) for name, found in masks.items()}
    count, high, wide = images.shape[:3]
    width = _LEFT + count * (wide + _GAP)
    strip = legend_strip(width, legend.classes, legend.colours)
    picture = Image.new("RGB", (width, len(rows) * (high + _GAP) + strip.height), "white")
    draw = ImageDraw.Draw(picture)
    for number, (name, cells) in enumerate(rows.items()):
        top = number * (high + _GAP)
        draw.text((_GAP, top + high // 2 - 8), name, "black", ImageFont.load_default(13))
        for column, cell in enumerate(cells):
            picture.paste(Image.fromarray(cell), (_LEFT + column * (wide + _GAP), top))
    picture.paste(strip, (0, picture.height - strip.height))
    return picture


def _picture(configs: Sequence[TrainConfig], out: Path, images: int) -> Image.Image:
    from trainer.results.trained import load_trained

    config = configs[0]
    dataset = dataset_of(config)
    split = dataset.chooses.spread(images)
    masks = {}
    for config in configs:
        trained = load_trained(run_of(out, config).path)
        # Once, on a few images: tracing each network would take longer.
        masks[f"{config.model} {config.upsampling}"] = np.argmax(trained.model(split.images, training=False), axis=-1)
    return comparison_picture(split.images, split.masks, masks, Legend.of(dataset))


def _write_tensorboard(folder: Path, markdown: str, picture: bytes) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.text.summary_v2 import text_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    from trainer.event_values import image_value

    before = list(folder.glob("events.*"))
    writer = EventFileWriter(str(folder))
    for summary in (text_pb("comparison", markdown), image_value("comparison", picture)):
        writer.add_event(Event(wall_time=time.time(), step=0, summary=summary))
    writer.close()
    for old in before:
        old.unlink()


def _is_done(run: RunDirectory, config: TrainConfig) -> bool:
    """Raises BadSettings if the run has been trained with other settings."""
    if not run.config.exists():
        return False
    found = RunRecord.read(run).settings
    wanted = config.model_dump(mode="json")
    for key, open_value in (("global_batch", None), ("batch_per_replica", "auto"), ("precision", "auto")):
        if wanted[key] == open_value:  # a run that was started has it resolved
            wanted[key] = found.get(key)
    for key, value in wanted.items():
        if found.get(key, value) != value:
            raise BadSettings(
                f"--out {run.path}: holds a run with {key} {found[key]}, expected {value}; choose another folder"
            )
    progress = Progress.read(run)
    return progress is not None and progress.state == "done"


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    header = ["model", "up-sampling", "parameters", "images/s", "pixel accuracy", "mIoU"]
    header += [f"IoU {name}" for name in rows[0].iou]
    lines = [
        [row.model, row.upsampling, str(row.parameters), f"{row.images_per_second:.1f}"]
        + [f"{value:.4f}" for value in (row.pixel_accuracy, row.miou, *row.iou.values())]
        for row in rows
    ]
    return [header, *lines]
