"""What there is to tell about runs, collected from their directories and written as one page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskfleet.config import TrainConfig
from maskfleet.errors import BadData, BadSettings, NotFound
from maskfleet.files import write_atomically
from maskfleet.out_setting import check_out, writing
from maskfleet.phase_log import ledger_of
from maskfleet.records import Event, FinalScores, MetricsLine, RunRecord
from maskfleet.run_directory import RunDirectory
from maskfleet.settings import read_settings_file
from trainer.data.cache import cached, open_divided
from trainer.data.source import Image as Pixels
from trainer.data.source import Mask, Reading, Split
from trainer.data.splits import Division
from trainer.pictures import as_colours, colour_mask
from trainer.results.legend import Legend
from trainer.results.report_page import page
from trainer.results.run_facts import EVALUATED, Example, RunFacts
from trainer.results.trained_on import compare_with_training

if TYPE_CHECKING:
    from trainer.results.trained import Trained

SHOWN = 4
"""Best and worst predictions of a run."""
_PIXELS = 1 << 26
"""Of the images together that are predicted for it, 300 of 470 x 470."""
THUMBNAIL = 160
"""Longest side of a picture in the page, pixels; what keeps a page of many runs small."""


def write_report(runs: Sequence[RunDirectory], out: Path, *, best: bool = False) -> None:
    """Writes one self-contained HTML page about ``runs``, side by side with what differs in their settings.

    Each run's test split, or validation split where there is no other, is predicted with the checkpoint that counts, or
    the best one, if its data is at hand.

    Raises:
        NotFound: there is no such run, or nothing was validated in it yet.
        BadInput: its checkpoint is damaged.
        BadSettings: ``out`` can't be written.
    """
    from trainer.results.trained import chosen_on_test, load_trained

    for run in runs:
        _check(run)
    check_out(out)
    facts = []
    for run, name in zip(runs, _names(runs), strict=True):
        trained = load_trained(run.path, best=best)
        split, note = _data_of(run, trained)
        if best and split is not None:
            warning = chosen_on_test(run)
            said = f" Warning: {warning}." if warning else ""
            note = f"Predictions and boundary F1 are those of the best checkpoint.{said} {note}".strip()
        facts.append(collect(run, name, trained, split, note))
    with writing(out):
        write_atomically(out, page(facts).encode())


def collect(run: RunDirectory, name: str, trained: Trained, split: Split | None, note: str = "") -> RunFacts:
    """Reads what ``run`` has written, and predicts ``split``, the one that judges, with ``trained``.

    Raises:
        NotFound: there is no such run, or nothing was validated in it yet.
    """
    _check(run)
    boundary_f1: dict[str, float] = {}
    best: list[Example] = []
    worst: list[Example] = []
    if split is not None:
        try:
            boundary_f1, best, worst = _look_at(trained, split)
        except BadData as error:  # of files that were good before: the page is worth having without
            note = f"{note} No predictions: {error}.".strip()
    return RunFacts(
        name,
        RunRecord.read(run),
        trained.legend,
        MetricsLine.read_all(run),
        _restarts(run),
        trained.model.count_params(),
        boundary_f1,
        best,
        worst,
        note,
        FinalScores.read(run),
        ledger_of(run).totals(),
    )


def _data_of(run: RunDirectory, trained: Trained) -> tuple[Split | None, str]:
    """The split that judges, if the data that the run was trained on is at hand, and what is to be said about it."""
    from trainer.results.evaluation import check_classes

    config = TrainConfig.resolve([read_settings_file(run.config)])
    reading = Reading.of(config)
    try:
        source = open_divided(config.data, config.data_dir, reading, Division.of(config))
        dataset = cached(source, trained.size, config.data, reading=reading, cache=config.cache, fit=config.fit)
        check_classes(trained.legend, dataset, str(run.path))
    except (BadData, BadSettings) as error:
        return None, f"No predictions: {error}."
    warning = compare_with_training(run, dataset).warning
    return source.splits[dataset.judge], f"{warning[:1].upper()}{warning[1:]}." if warning else ""


def _check(run: RunDirectory) -> None:
    if not run.config.is_file():
        raise NotFound(f"{run.path}: expected a run, found no {run.config}")
    if not MetricsLine.read_all(run):
        raise NotFound(f"{run.path}: expected a run with a validation, found none yet in {run.metrics}")


def _look_at(trained: Trained, split: Split) -> tuple[dict[str, float], list[Example], list[Example]]:
    """Boundary F1 by class, and the best and worst examples by their own mIoU, at the images' own size.

    Raises:
        BadData: names the first bad file.
    """
    from trainer.results.evaluation import BATCH
    from trainer.results.own_size import evaluate_at_own_size, predictions_at_own_size
    from trainer.results.predict import Predictor, network_of

    classes, network = len(trained.legend.classes), network_of(trained.model)
    predictor = Predictor.fitted(trained.fit, network, trained.size, classes, batch_size=BATCH)
    split = _some_of(split)
    evaluation = evaluate_at_own_size(predictor, split, trained.legend)
    mious = evaluation.image_miou
    order = [int(i) for i in np.argsort(mious) if not np.isnan(mious[i])]
    shown = min(SHOWN, (len(order) + 1) // 2)

    def examples(chosen: Sequence[int]) -> list[Example]:
        found = predictions_at_own_size(predictor, split.part(chosen))
        return [
            example_of(split.names[i], split.read(i).image, judged.truth, judged.found, float(mious[i]), trained.legend)
            for i, judged in zip(chosen, found, strict=True)
        ]

    return evaluation.boundary_f1, examples(order[::-1][:shown]), examples(order[:shown])


def _some_of(split: Split) -> Split:
    """Evenly spread, as many as a report may take seconds for."""
    pixels = sum(map(split.pixels, range(len(split)))) / len(split)
    count = min(len(split), EVALUATED, max(2 * SHOWN, int(_PIXELS / max(pixels, 1))))
    return split.part(np.linspace(0, len(split) - 1, count).astype(int).tolist())


def example_of(name: str, image: Pixels, truth: Mask, prediction: Mask, miou: float, legend: Legend) -> Example:
    """The pictures of one example, for the page."""
    step = max(1, max(truth.shape) // THUMBNAIL)
    masks = (colour_mask(mask[::step, ::step], legend.colours) for mask in (truth, prediction))
    return Example(name, miou, _uri(as_colours(image), "JPEG"), *(_uri(mask, "PNG") for mask in masks))


def _uri(pixels: NDArray[np.uint8], kind: str) -> str:
    picture = Image.fromarray(pixels)
    resampling = Image.Resampling.BILINEAR if kind == "JPEG" else Image.Resampling.NEAREST
    if max(picture.size) > THUMBNAIL:
        picture.thumbnail((THUMBNAIL, THUMBNAIL), resampling)
    if kind == "PNG":
        picture = picture.convert("P", palette=Image.Palette.ADAPTIVE)
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _restarts(run: RunDirectory) -> int:
    return sum(event.kind == "restart" for event in Event.read_all(run))


def _names(runs: Sequence[RunDirectory]) -> list[str]:
    """The folders' names, or whole paths where those are the same."""
    short = [run.path.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.path) for run in runs]
