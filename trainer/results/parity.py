"""How far exported files are from the network that they were made of, on real pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.source import Split
from trainer.objective.metrics import Scores
from trainer.results.evaluation import whole_matrix
from trainer.results.legend import Legend
from trainer.results.own_size import Segmenter

CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Candidate:
    """The bytes of a file, and what computes it."""

    bytes: int
    segmenter: Segmenter


@dataclass
class _Found:
    matrix: NDArray[np.int64]
    same: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def spread(split: Split, count: int) -> Split:
    """At most ``count`` of its pictures, evenly spread."""
    return split.part(np.linspace(0, len(split) - 1, min(count, len(split))).astype(int).tolist())


def parity(checkpoint: Candidate, files: Mapping[str, Candidate], split: Split, legend: Legend) -> list[dict[str, Any]]:
    """A row for the network and one for each file, of masks at the pictures' own size.

    Each has ``name``, ``bytes``, ``miou`` and ``iou`` by class, ``miou_difference`` and ``iou_difference`` from the
    network's, ``same_pixels`` (share of a picture's pixels for which the file says what the network says, mean over the
    pictures) and ``images_per_second``. What no picture has is None.

    Raises:
        BadData: names the first bad file.
    """
    candidates = {CHECKPOINT: checkpoint, **files}
    found = {name: _Found(np.zeros((len(legend.classes),) * 2, np.int64)) for name in candidates}
    for i in range(len(split)):
        example = split.read(i)
        expected: NDArray[np.uint8] | None = None
        for name, candidate in candidates.items():
            began = time.monotonic()
            (mask,) = candidate.segmenter.masks([example.image])
            found[name].seconds.append(time.monotonic() - began)
            found[name].matrix += whole_matrix(example.mask, mask, len(legend.classes))
            expected = mask if expected is None else expected
            found[name].same.append(float(np.mean(mask == expected)))
    scores = {name: Scores(each.matrix, legend.classes, legend.background) for name, each in found.items()}
    of_checkpoint = scores[CHECKPOINT]
    return [
        {
            "name": name,
            "bytes": candidates[name].bytes,
            "miou": _or_none(scores[name].miou),
            "miou_difference": _or_none(scores[name].miou - of_checkpoint.miou),
            "iou": {key: _or_none(value) for key, value in scores[name].iou.items()},
            "iou_difference": {
                key: _or_none(value - of_checkpoint.iou[key]) for key, value in scores[name].iou.items()
            },
            "same_pixels": float(np.mean(each.same)),
            "images_per_second": 1 / float(np.mean(each.seconds[1:] or each.seconds)),
        }
        for name, each in found.items()
    ]


def parity_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of :func:`parity` as lines of text: of each file, then of each class."""
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'file':{width}} {'MB':>6} {'mIoU':>7} {'difference':>10} {'same pixels':>11} {'images/s':>8}"]
    lines += [
        f"{row['name']:{width}} {row['bytes'] / 1e6:6.2f} {_text(row['miou'], '7.4f')} "
        f"{_text(row['miou_difference'], '+10.5f')} {row['same_pixels']:11.4f} {row['images_per_second']:8.1f}"
        for row in rows
    ]
    first, *files = rows
    wide = max(len("class"), *map(len, first["iou"]))
    lines += ["", " ".join([f"{'class':{wide}} {'IoU':>7}", *(f"{row['name']:>10}" for row in files)])]
    for name, value in first["iou"].items():
        cells = [f"{name:{wide}} {_text(value, '7.4f')}"]
        cells += [_text(row["iou_difference"][name], f"+{max(10, len(row['name']))}.5f") for row in files]
        lines.append(" ".join(cells))
    return "\n".join(lines)


def _text(value: float | None, form: str) -> str:
    return f"{'-':>{form.lstrip('+').split('.')[0]}}" if value is None else f"{value:{form}}"


def _or_none(value: float) -> float | None:
    """JSON has no nan."""
    return None if math.isnan(value) else value
