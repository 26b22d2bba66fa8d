"""What a frozen encoder makes of all images, computed once and memory-mapped.

As long as an image is changed by nothing but a flip, a frozen encoder has only two answers to it. They are kept in
the folder of the data cache, as the computation has them (float32, bfloat16 or float16), so that training gets the
same bits as without. All workers of a machine and all runs on the same data and encoder share one set of files: the
kernel's page cache is what holds them in memory.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.cgroup import memory
from trainer.config import TrainConfig
from trainer.data.augmentation import Augmentation
from trainer.data.cache import Arrays, Dataset, cache_root
from trainer.data.lock import locked
from trainer.models.network import Network

_FORMAT = 1
"""To be raised when the files' content changes for the same encoder and images."""
_SHARE_OF_MEMORY = 0.5
"""Files that the page cache can't hold beside the training itself would be read from disk in every epoch."""
_SHARE_OF_DISK = 0.5


@dataclass(frozen=True)
class Features:
    """Of both splits, finest first, in the encoder's output type.

    Attributes:
        train: arrays [N, sides, h, w, c]; side 0 is the image, side 1 (if there is one) its mirror image.
        test: arrays [M, h, w, c].
    """

    train: tuple[NDArray[Any], ...]
    test: tuple[NDArray[Any], ...]


def cached_features(
    config: TrainConfig,
    network: Network,
    dataset: Dataset,
    batch: int,
    tell: Callable[[str], object],
    get_on: Callable[[], None],
) -> Features | None:
    """The features of ``dataset``, from the cache if they are there, or None where keeping them is no use.

    That is: the encoder is trained, images are changed otherwise than by the flip, a GPU computes them sooner than
    they could be copied to it, they don't fit, or ``config.cache_features`` is off.

    Args:
        batch: images that are computed at once.
        tell: gets a line when they have to be computed or don't fit.
        get_on: called after each batch that was computed.
    """
    flip = Augmentation(flip=config.flip)
    if not config.cache_features or not network.is_frozen or Augmentation.of(config) != flip:
        return None
    if tf.config.list_physical_devices("GPU"):
        return None
    sides = 1 if config.flip == "none" else 2
    layout = _Layout(network.encoder, sides, len(dataset.train), len(dataset.test))
    root = cache_root()
    folder = root / f"features-{_key(config, network.encoder, dataset, sides)}"
    try:
        with locked(root / ".features.lock"):
            if not folder.is_dir():
                if problem := _no_room(layout.size, root):
                    tell(f"the encoder's features are not cached: {problem}")
                    return None
                for old in root.glob("features-*/"):  # whoever has its files open keeps them
                    shutil.rmtree(old, ignore_errors=True)
                tell(f"computing the frozen encoder's features of all images, this once ({layout.size / 1e9:.1f} GB)")
                _build(network.encoder, dataset, sides, batch, layout, folder, get_on)
            return layout.open(folder, new=False)
    except OSError as error:
        tell(f"the encoder's features are not cached: {error.filename or folder}: {error.strerror}")
        return None


class _Layout:
    """The files of one set of features."""

    def __init__(self, encoder: keras.Model, sides: int, train: int, test: int) -> None:
        self._shapes = [tuple(output.shape[1:]) for output in encoder.outputs]
        self._types = [tf.as_dtype(output.dtype).as_numpy_dtype for output in encoder.outputs]
        self._splits: dict[str, tuple[int, ...]] = {"train": (train, sides), "test": (test,)}

    @property
    def size(self) -> int:
        """Bytes of all files."""
        values = sum(
            math.prod(shape) * np.dtype(kind).itemsize for shape, kind in zip(self._shapes, self._types, strict=True)
        )
        return values * sum(map(math.prod, self._splits.values()))

    def open(self, folder: Path, *, new: bool) -> Features:
        """Maps the files, or makes them. Raises OSError."""

        def file(split: str, number: int) -> NDArray[Any]:
            path, kind = folder / f"{split}-{number}", np.dtype(self._types[number])
            shape = (*self._splits[split], *self._shapes[number])
            if new:
                with path.open("wb") as handle:  # a disk that is full must say so here: a write to the map would kill
                    os.posix_fallocate(handle.fileno(), 0, math.prod(shape) * kind.itemsize)
            return np.memmap(path, kind, "r+" if new else "r", shape=shape)

        train, test = (tuple(file(split, number) for number in range(len(self._shapes))) for split in self._splits)
        return Features(train, test)


def _build(
    encoder: keras.Model,
    dataset: Dataset,
    sides: int,
    batch: int,
    layout: _Layout,
    folder: Path,
    get_on: Callable[[], None],
) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        features = layout.open(temporary, new=True)
        run = tf.function(lambda images: encoder(images, training=False), autograph=False)
        for side in range(sides):
            _compute(run, dataset.train, batch, side == 1, [array[:, side] for array in features.train], get_on)
        _compute(run, dataset.test, batch, False, features.test, get_on)
        del features
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _compute(
    run: Callable[[tf.Tensor], list[tf.Tensor]],
    split: Arrays,
    batch: int,
    mirrored: bool,
    into: Sequence[NDArray[Any]],
    get_on: Callable[[], None],
) -> None:
    for start in range(0, len(split), batch):
        # The last batch is filled up by earlier images: another size would be traced anew.
        start = max(0, min(start, len(split) - batch))
        images = split.images[start : start + batch]
        for array, values in zip(into, run(tf.constant(images[:, :, ::-1] if mirrored else images)), strict=True):
            array[start : start + batch] = values.numpy()
        get_on()


def _key(config: TrainConfig, encoder: keras.Model, dataset: Dataset, sides: int) -> str:
    """A hash of all that the features depend on."""
    digest = hashlib.sha256(
        f"{_FORMAT} {dataset.fingerprint} {config.image_size} {config.encoder} {config.input_range} "
        f"{config.precision} {sides}".encode()
    )
    for variable in encoder.variables:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()[:16]


def _no_room(size: int, root: Path) -> str | None:
    """Why files of ``size`` bytes can't be kept under ``root``, or None."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if (container := memory()) is not None:
        limit = min(limit, container.limit)
    for what, there, share in (
        ("memory", limit, _SHARE_OF_MEMORY),
        (f"free disk space under {root}", shutil.disk_usage(root).free, _SHARE_OF_DISK),
    ):
        if size > there * share:
            return f"{size / 1e9:.1f} GB are more than {share:.0%} of the {there / 1e9:.1f} GB of {what}"
    return None
