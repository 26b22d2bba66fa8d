"""What a frozen encoder makes of all images, computed once and memory-mapped.

As long as an image is changed by nothing but a flip, a frozen encoder has only two answers to it. They are kept in
the folder of the data cache, as the computation has them (float32, bfloat16 or float16), so that training gets the
same bits as without. All workers of a machine and all runs on the same data and encoder share one set of files: the
kernel's page cache is what holds them in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.config import TrainConfig
from trainer.cache_folder import cache_root, damage, locked, note_files
from trainer.cgroup import memory
from trainer.data.augmentation import Augmentation
from trainer.data.cache import Arrays, Dataset, Pictures
from trainer.models.network import Network

_FORMAT = 1
"""To be raised when the files' content changes for the same encoder and images."""
_SHARE_OF_MEMORY = 0.5
"""Files that the page cache can't hold beside the training itself would be read from disk in every epoch."""
_SHARE_OF_DISK = 0.5
_USED = "used"
"""Name of the file that a process locks as long as it reads those beside it."""


@dataclass(frozen=True)
class FeatureFile:
    """One array, as nothing but its values in a file."""

    path: Path
    kind: tf.DType
    shape: tuple[int, ...]

    def rows(self, *indices: tf.Tensor) -> tf.Tensor:
        """Entries at int64 ``indices`` (b,), one for each of the first axes, copied once out of the mapped file."""
        array = tf.raw_ops.ImmutableConst(dtype=self.kind, shape=self.shape, memory_region_name=str(self.path))
        return tf.gather_nd(array, tf.stack(indices, axis=1))

    def create(self) -> NDArray[Any]:
        """Makes the file and maps it to be filled. Raises OSError."""
        kind = np.dtype(self.kind.as_numpy_dtype)
        with self.path.open("wb") as file:  # a disk that is full must say so here: a write to the map would kill
            os.posix_fallocate(file.fileno(), 0, math.prod(self.shape) * kind.itemsize)
        return np.memmap(self.path, kind, "r+", shape=self.shape)


@dataclass(frozen=True)
class Features:
    """Of all splits, finest first, in the encoder's output type.

    Attributes:
        train: arrays [N, sides, h, w, c]; side 0 is the image, side 1 (if there is one) its mirror image.
        others: of the other splits by name, arrays [M, h, w, c].
    """

    train: tuple[FeatureFile, ...]
    others: Mapping[str, tuple[FeatureFile, ...]]

    @classmethod
    def within(cls, folder: Path, encoder: keras.Model, sides: int, splits: Mapping[str, Sized]) -> Self:
        """The files of ``encoder``'s features of the images of ``splits``; they need not be there."""

        def files(split: str, *count: int) -> tuple[FeatureFile, ...]:
            return tuple(
                FeatureFile(folder / f"{split}-{number}", tf.as_dtype(output.dtype), (*count, *output.shape[1:]))
                for number, output in enumerate(encoder.outputs)
            )

        others = {name: files(name, len(split)) for name, split in splits.items() if name != "train"}
        return cls(files("train", len(splits["train"]), sides), others)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        files = itertools.chain(self.train, *self.others.values())
        return sum(math.prod(file.shape) * file.kind.size for file in files)

    @property
    def signature(self) -> tuple[tf.TensorSpec, ...]:
        """Of any number of images."""
        return tuple(tf.TensorSpec([None, *file.shape[2:]], file.kind) for file in self.train)

    def of_training(self, examples: tf.Tensor, flips: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Features (b, h, w, c) of training images, int64 (b,), mirrored where bool (b,) says so."""
        return tuple(file.rows(examples, tf.cast(flips, tf.int64)) for file in self.train)

    def of_split(self, name: str, examples: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Features (b, h, w, c) of images int64 (b,) of another split than that of training."""
        return tuple(file.rows(examples) for file in self.others[name])


def cached_features(
    config: TrainConfig,
    network: Network,
    dataset: Dataset,
    batch: int,
    report_line: Callable[[str], object],
    heartbeat: Callable[[], None],
) -> Features | None:
    """The features of ``dataset``, from the cache if they are there, or None where keeping them is no use.

    That is: the data is packed, so that nothing waits for all of it; the encoder is trained, images are changed
    otherwise than by the flip or seen in random parts, a GPU computes them sooner than they could be copied to it, they
    don't fit, or ``config.cache_features`` is off.

    Args:
        batch: images that are computed at once.
        report_line: gets a line when they have to be computed or don't fit.
        heartbeat: called after each batch that was computed.
    """
    flip = Augmentation(flip=config.flip)
    if not config.cache_features or not network.is_frozen or Augmentation.of(config) != flip:
        return None
    if isinstance(dataset.train, Pictures):  # whose parts are never the same
        return None
    if tf.config.list_physical_devices("GPU") or dataset.packed is not None:
        return None
    sides = 1 if config.flip == "none" else 2
    root = cache_root()
    folder = root / f"features-{_key(config, network.encoder, dataset, sides)}"
    features = Features.within(folder, network.encoder, sides, dataset.splits)
    try:
        with locked(root / ".features.lock") as alone:
            problem = damage(folder) if folder.is_dir() else None
            if problem:
                report_line(f"{folder}: these cached features are damaged ({problem}) and made anew")
            if problem or not folder.is_dir():
                if too_large := _no_room(features.size, root):
                    report_line(f"the encoder's features are not cached: {too_large}")
                    return None
                if alone:
                    _make_room(root)
                report_line(
                    f"computing the frozen encoder's features of all images, this once ({features.size / 1e9:.1f} GB)"
                )
                temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=root))
                try:
                    (temporary / _USED).touch()
                    filled = Features.within(temporary, network.encoder, sides, dataset.splits)
                    _compute(network.fused_encoder, dataset, batch, filled, heartbeat)
                    note_files(temporary)
                    temporary.chmod(0o755)
                    shutil.rmtree(folder, ignore_errors=True)  # what a cleaner of temporary files has left of it
                    temporary.rename(folder)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
            _use(folder)
    except OSError as error:
        report_line(f"the encoder's features are not cached: {error.filename or folder}: {error.strerror}")
        return None
    return features


_in_use: list[IO[bytes]] = []
"""Files whose lock tells other processes, until this one ends, that the features beside them are read."""


def _use(folder: Path) -> None:
    file = (folder / _USED).open("rb")
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_SH)
    _in_use.append(file)


def _make_room(root: Path) -> None:
    """Deletes the features that nobody reads, and what a process that was killed has left of some."""
    for unfinished in root.glob(".features-*/"):
        shutil.rmtree(unfinished, ignore_errors=True)
    for folder in root.glob("features-*/"):
        with contextlib.suppress(OSError), (folder / _USED).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def _compute(
    encoder: keras.Model, dataset: Dataset, batch: int, features: Features, heartbeat: Callable[[], None]
) -> None:
    """Makes and fills the files."""
    run = tf.function(lambda images: encoder(images, training=False), autograph=False)

    def fill(split: Arrays, arrays: Sequence[NDArray[Any]], mirrored: bool) -> None:
        for start in range(0, len(split), batch):
            # The last batch is filled up by earlier images: another size would be traced anew.
            start = max(0, min(start, len(split) - batch))
            images = split.images[start : start + batch]
            for array, values in zip(arrays, run(tf.constant(images[:, :, ::-1] if mirrored else images)), strict=True):
                array[start : start + batch] = values.numpy()
            heartbeat()

    train = [file.create() for file in features.train]
    for side in range(features.train[0].shape[1]):
        fill(dataset.seen_whole("train"), [array[:, side] for array in train], side == 1)
    for name, files in features.others.items():
        fill(dataset.seen_whole(name), [file.create() for file in files], False)


def _key(config: TrainConfig, encoder: keras.Model, dataset: Dataset, sides: int) -> str:
    """A hash of all that the features depend on."""
    digest = hashlib.sha256(
        f"{_FORMAT} {dataset.fingerprint} {config.image_size} {config.encoder} {config.input_range} "
        f"{config.precision} {sides}".encode()
    )
    if [*dataset.splits] != ["train", "test"]:  # those two have the folders that they always had
        digest.update(" ".join(dataset.splits).encode())
    for name, output in zip(encoder.output_names, encoder.outputs, strict=True):  # they are the network's choice
        digest.update(f"{name} {output.shape}".encode())
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
