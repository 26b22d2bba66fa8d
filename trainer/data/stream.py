"""Pictures that are read and scaled when they are asked for, many at once, instead of all before the first step.

Imports no TensorFlow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from maskfleet.errors import BadData
from maskfleet.image_size import Fit, Size
from trainer.cache_folder import cache_root, how_to_mend
from trainer.data.cache import FORMAT, Arrays, Dataset
from trainer.data.fitting import inputs_of
from trainer.data.packed.reading import Reader
from trainer.data.packed.record_cache import RecordCache, open_record_cache, room_for_cache
from trainer.data.source import Source, Split

_AT_ONCE = 32
"""Records that are on their way at a time."""


class Pair(NamedTuple):
    """Image uint8 (H, W, 3) and mask uint8 (H, W)."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]


@dataclass(frozen=True)
class Stream:
    """One split at one size.

    Attributes:
        size: of the network's input.
        threads: that read, shared with the other splits.
        cache: of pairs, example ``i`` under number ``first + i``; None: the reader keeps the records instead.
        reader: where the records come from.
        fit: how a picture becomes an input of that size.
    """

    split: Split
    size: Size
    threads: ThreadPoolExecutor
    cache: RecordCache | None
    first: int
    reader: Reader
    fit: Fit = "squash"

    def submit(self, i: int) -> Future[Pair]:
        """Example ``i``, once it is read. It raises BadData, as ``split`` does."""
        return self.threads.submit(self._pair, i)

    def read(self, examples: Iterable[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Images uint8 (n, H, W, 3) and masks uint8 (n, H, W). Raises BadData."""
        return self.stacked([pair.result() for pair in [self.submit(i) for i in examples]])

    def stacked(self, pairs: Sequence[Pair]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if not pairs:
            return np.empty((0, *self.size, 3), np.uint8), np.empty((0, *self.size), np.uint8)
        return np.stack([pair.image for pair in pairs]), np.stack([pair.mask for pair in pairs])

    def _pair(self, i: int) -> Pair:
        if self.cache is not None and (kept := self.cache.get(self.first + i)) is not None:
            values = np.frombuffer(kept, np.uint8)
            pixels = 3 * self.size.pixels
            return Pair(values[:pixels].reshape(*self.size, 3), values[pixels:].reshape(self.size))
        example = self.split.read(i)
        pair = Pair(*next(inputs_of(example.decoded, example.mask, self.size, self.fit)))
        if self.cache is not None:
            self.cache.put(self.first + i, pair.image.tobytes() + pair.mask.tobytes())
        return pair


class Pixels:
    """Images or masks of a stream, as far as training and its results use an array: its shape and parts of it."""

    dtype = np.dtype(np.uint8)

    def __init__(self, stream: Stream, part: int):
        self._stream, self._part = stream, part
        self.shape: tuple[int, ...] = (len(stream.split), *stream.size, *((3,) if part == 0 else ()))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """Of an index, a slice or an array of indices. Raises BadData."""
        examples = np.arange(len(self))[key]
        return self._stream.read(np.atleast_1d(examples).tolist())[self._part].reshape(
            *np.shape(examples), *self.shape[1:]
        )


def streamed(
    source: Source, image_size: Size | int, cache: int | None, local_workers: int = 1, fit: Fit = "squash"
) -> Dataset:
    """The data set of packed data; nothing but what says where its examples lie has been read.

    What is kept is the scaled pairs where all of them fit or they are smaller than the records, else the records.

    Args:
        cache: bytes on disk at most; None: what the disk allows.

    Raises:
        BadData: the cache can't be kept, or is too small for anything.
    """
    reader, size = source.packed, Size.of(image_size)
    assert reader is not None
    told = f"{source.key} {size} {[(name, len(split)) for name, split in source.splits.items()]}"
    told += "" if fit == "squash" else fit
    key = hashlib.sha256(told.encode()).hexdigest()
    threads = ThreadPoolExecutor(_AT_ONCE, "reader")
    count = sum(map(len, source.splits.values()))
    # Kept pairs are of the same files for a version that scales otherwise, too.
    kept = hashlib.sha256(f"{FORMAT} {told}".encode()).hexdigest()
    pairs = _cache_for(reader, kept[:16], count, 4 * size.pixels, cache, local_workers)
    firsts = np.cumsum([0, *map(len, source.splits.values())]).tolist()

    def arrays(split: Split, first: int) -> Arrays:
        stream = Stream(split, size, threads, pairs, first, reader, fit)
        images, masks = (cast("NDArray[np.uint8]", Pixels(stream, part)) for part in (0, 1))
        return Arrays(split.names, images, masks, stream)

    made = {name: arrays(split, firsts[n]) for n, (name, split) in enumerate(source.splits.items())}
    return Dataset(
        source.name,
        source.classes,
        source.colours,
        source.background,
        made["train"],
        made.get("test") or arrays(source.test, count),
        key,
        made.get("validation"),
        reader,
    )


def _cache_for(
    reader: Reader, key: str, count: int, pair_size: int, limit: int | None, local_workers: int
) -> RecordCache | None:
    """Where pairs are kept; None where the reader keeps its records instead."""
    limit = room_for_cache(local_workers) if limit is None else limit
    keeps_pairs = pair_size <= reader.manifest.record_size or (pair_size + 64) * count <= limit
    if not keeps_pairs and reader.bucket.folder is not None:
        return None  # the records are on a disk already
    try:
        numbers = max(count, reader.manifest.examples)
        kept = open_record_cache(f"{key}-{'pairs' if keeps_pairs else 'records'}", numbers, limit)
    except OSError as error:
        raise BadData(
            f"{error.filename or cache_root()}: what is read of {reader.bucket.url} can't be kept here: "
            f"{error.strerror}; {how_to_mend(error)}"
        ) from error
    if keeps_pairs:
        return kept
    reader.cache = kept
    return None
