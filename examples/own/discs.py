"""--data python:discs:discs: a data set of one's own. It is drawn here; yours may come out of any format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainer.data.source import Example, Source, Split, palette

SIZE, TRAIN, TEST = 64, 80, 20
CLASSES = ("ground", "disc")


def discs(data_dir: Path | None) -> Source:
    """A bright disc on noise; ``data_dir`` is where files would lie (--data-dir)."""
    train = Split(tuple(f"train-{i}" for i in range(TRAIN)), picture)
    test = Split(tuple(f"test-{i}" for i in range(TEST)), lambda i: picture(TRAIN + i))
    # The key has to change with the files: here nothing but this code decides, which is looked at anyway.
    return Source("discs", CLASSES, palette(2), background=0, train=train, test=test, key="")


def picture(number: int) -> Example:
    """The same at each call, whoever calls."""
    random = np.random.default_rng(number)
    (row, column), radius = random.uniform(16, SIZE - 16, 2), random.uniform(6, 14)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    mask = (np.hypot(rows - row, columns - column) < radius).astype(np.uint8)
    return Example(random.integers(0, 150, (SIZE, SIZE, 3), np.uint8) + 100 * mask[..., None], mask)
