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
from trainer.data.cache import Arrays, Dataset, dataset_of
from trainer.pictures import as_colours, colour_mask
from trainer.results.legend import Legend
from trainer.results.report_page import page
from trainer.results.run_facts import EVALUATED, Example, RunFacts
from trainer.results.trained_on import compare_with_training

if TYPE_CHECKING:
    from trainer.results.trained import Trained

SHOWN = 4
"""Best and worst predictions of a run."""
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
        dataset, note = _data_of(run, trained)
        if best and dataset is not None:
            warning = chosen_on_test(run)
            said = f" Warning: {warning}." if warning else ""
            note = f"Predictions and boundary F1 are those of the best checkpoint.{said} {note}".strip()
        facts.append(collect(run, name, trained, dataset, note))
    with writing(out):
        write_atomically(out, page(facts).encode())


def collect(run: RunDirectory, name: str, trained: Trained, dataset: Dataset | None, note: str = "") -> RunFacts:
    """Reads what ``run`` has written, and predicts the split of ``dataset`` that judges, with ``trained``.

    Raises:
        NotFound: there is no such run, or nothing was validated in it yet.
    """
    _check(run)
    boundary_f1: dict[str, float] = {}
    best: list[Example] = []
    worst: list[Example] = []
    if dataset is not None:
        boundary_f1, best, worst = _look_at(trained, dataset.judges)
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


def _data_of(run: RunDirectory, trained: Trained) -> tuple[Dataset | None, str]:
    """The data that the run was trained on, if it is at hand, and what is to be said about it."""
    from trainer.results.evaluation import check_classes

    config = TrainConfig.resolve([read_settings_file(run.config)])
    try:
        dataset = dataset_of(config, trained.size)
        check_classes(trained.legend, dataset, str(run.path))
    except (BadData, BadSettings) as error:
        return None, f"No predictions: {error}."
    warning = compare_with_training(run, dataset).warning
    return dataset, f"{warning[:1].upper()}{warning[1:]}." if warning else ""


def _check(run: RunDirectory) -> None:
    if not run.config.is_file():
        raise NotFound(f"{run.path}: expected a run, found no {run.config}")
    if not MetricsLine.read_all(run):
        raise NotFound(f"{run.path}: expected a run with a validation, found none yet in {run.metrics}")


def _look_at(trained: Trained, split: Arrays) -> tuple[dict[str, float], list[Example], list[Example]]:
    """Boundary F1 by class, and the best and worst examples by their own mIoU, of :data:`EVALUATED` at most."""
    from trainer.results.evaluation import evaluate, masker

    split = split.spread(EVALUATED)
    predict = masker(trained.model)
    evaluation = evaluate(predict, split, trained.legend)
    mious = evaluation.image_miou
    order = [int(i) for i in np.argsort(mious) if not np.isnan(mious[i])]
    shown = min(SHOWN, (len(order) + 1) // 2)

    def example(i: int) -> Example:
        mask = predict(split.images[i : i + 1])[0]
        return example_of(split, i, mask, float(mious[i]), trained.legend)

    best = [example(i) for i in order[::-1][:shown]]
    return evaluation.boundary_f1, best, [example(i) for i in order[:shown]]


def example_of(split: Arrays, i: int, prediction: NDArray[np.uint8], miou: float, legend: Legend) -> Example:
    """The pictures of one example, for the page."""
    truth, found = (colour_mask(mask, legend.colours) for mask in (split.masks[i], prediction))
    return Example(
        split.names[i], miou, _uri(as_colours(split.images[i]), "JPEG"), _uri(truth, "PNG"), _uri(found, "PNG")
    )


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
