"""A picture of what training sees: images and masks after resizing and augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.files import write_atomically
from trainer.data.augmentation import Augmentation
from trainer.data.cache import dataset_of
from trainer.data.pipeline import training_batches
from trainer.data.sampling import Balance
from trainer.pictures import as_colours, colour_mask, png

_SAMPLES = 16
_COLUMNS = 4
_GAP = 4


def write_samples(config: TrainConfig, file: Path) -> None:
    """Writes a PNG of the first 16 examples of training, each beside its mask; 4 in a row.

    Raises:
        BadSettings, BadData: as :func:`trainer.data.cache.dataset_of`; ``file`` can't be written.
    """
    dataset = dataset_of(config)
    count = min(_SAMPLES, len(dataset.train))
    batches = training_batches(
        dataset.train,
        global_batch=count,
        worker_slice=slice(0, count),
        seed=config.seed,
        first_step=0,
        last_step=1,
        augmentation=Augmentation.of(config),
        balance=Balance.of(dataset.train.masks, len(dataset.classes)) if config.balance else None,
    )
    images, masks, _ = next(batches.as_numpy_iterator())
    height, width = config.image_size
    rows = -(-count // _COLUMNS)
    picture = Image.new("RGB", (_COLUMNS * (2 * width + _GAP) + _GAP, rows * (height + _GAP) + _GAP), "white")
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        row, column = divmod(number, _COLUMNS)
        pair = np.concatenate([as_colours(image), colour_mask(mask, dataset.colours)], axis=1)
        picture.paste(Image.fromarray(pair), (_GAP + column * (2 * width + _GAP), _GAP + row * (height + _GAP)))
    try:
        write_atomically(file, png(picture))
    except OSError as error:
        raise BadSettings(f"--pictures {file}: can't be written: {error.strerror or error}") from error
