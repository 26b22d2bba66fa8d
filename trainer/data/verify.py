"""Looks at every file of a data set, as training would read it. Imports no TensorFlow."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskfleet.config import TrainConfig
from maskfleet.errors import BadData
from trainer.cgroup import cpu_limit
from trainer.data.images import check_not_0_and_255
from trainer.data.opening import open_source
from trainer.data.source import IGNORED, Source, Split


@dataclass(frozen=True)
class SplitReport:
    """What one split holds.

    Attributes:
        examples: their number, bad ones included.
        pixels: of each class, and of "ignored", in the good examples at their original size.
        images_with: the number of good examples that have any pixel of the class.
        smallest, largest: width and height of the images with the fewest and the most pixels; None without any.
        bad: one line for each example that can't be used, in the split's order.
    """

    examples: int
    pixels: dict[str, int]
    images_with: dict[str, int]
    smallest: tuple[int, int] | None
    largest: tuple[int, int] | None
    bad: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What a data set holds. ``first_bad`` says in one line what must be mended before it can be trained on."""

    data: str
    classes: tuple[str, ...]
    train: SplitReport
    test: SplitReport
    first_bad: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """Some lines for a terminal."""
        lines = []
        for name, split in (("train", self.train), ("test", self.test)):
            lines.append(f"{name}: {split.examples} images{_sizes(split)}")
            total = max(1, sum(split.pixels.values()))
            width = max(map(len, split.pixels))
            for label, pixels in split.pixels.items():
                share, images = pixels / total, split.images_with[label]
                lines.append(f"  {label:<{width}} {share:7.2%}  in {images:>5} images  {'█' * round(40 * share)}")
        bad = len(self.train.bad) + len(self.test.bad)
        if self.first_bad:
            lines.append(f"bad: {self.first_bad}" + (f" (the first of {bad} bad examples)" if bad > 1 else ""))
        else:
            lines.append("every file is good")
        return "\n".join(lines)


def verify(config: TrainConfig) -> Report:
    """Reads every image and mask that ``config`` names.

    Raises:
        BadSettings: the setting ``data`` names no kind of data.
        BadData: the data can't be opened at all; bad files are in the report instead.
    """
    source = open_source(config.data, config.data_dir)
    train, test = (_read(source, split) for split in (source.train, source.test))
    first_bad = next(iter(train.bad + test.bad), None)
    if first_bad is None:
        found = {label for label, name in _labels(source).items() if train.pixels[name] or test.pixels[name]}
        try:
            check_not_0_and_255(found, config.data)
        except BadData as error:
            first_bad = str(error)
    return Report(config.data, source.classes, train, test, first_bad)


def _read(source: Source, split: Split) -> SplitReport:
    def read(i: int) -> tuple[NDArray[np.int64], tuple[int, int]] | str:
        try:
            _, mask = split.read(i)
        except BadData as error:
            return str(error)
        return np.bincount(mask.ravel(), minlength=256), (mask.shape[1], mask.shape[0])

    with ThreadPoolExecutor(cpu_limit()) as threads:
        results = list(threads.map(read, range(len(split))))
    good = [result for result in results if not isinstance(result, str)]
    histograms = np.array([histogram for histogram, _ in good]).reshape(-1, 256)
    labels = _labels(source)
    sizes = sorted((size for _, size in good), key=lambda size: size[0] * size[1])
    return SplitReport(
        len(split),
        {name: int(histograms[:, label].sum()) for label, name in labels.items()},
        {name: int((histograms[:, label] > 0).sum()) for label, name in labels.items()},
        sizes[0] if sizes else None,
        sizes[-1] if sizes else None,
        tuple(result for result in results if isinstance(result, str)),
    )


def _labels(source: Source) -> dict[int, str]:
    """What each label is called in a report."""
    return {**dict(enumerate(source.classes)), IGNORED: "ignored"}


def _sizes(split: SplitReport) -> str:
    if split.smallest is None or split.largest is None:
        return ""
    (width, height), (most_width, most_height) = split.smallest, split.largest
    return f", {width} x {height} to {most_width} x {most_height} pixels"
