"""What packed data consists of: shards of records, an index and the names of each split, and last a manifest.

``manifest.json`` appears when all else is complete. ``train-00000-of-00012.tfrecord`` are TFRecords of about 100 MB;
``train.index.npy`` says where each example's record lies, in the order of the split, as an array of :data:`ROW`;
``train.names`` has their names, each ended by a zero byte. ``parts/`` is there only while packing goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from maskfleet.schema import Count

FORMAT: Literal[1] = 1
MANIFEST = "manifest.json"
ROW = np.dtype([("shard", "<u4"), ("length", "<u4"), ("offset", "<u8"), ("crc32c", "<u4"), ("pixels", "<u4")])
"""Of an index: the number of the shard, where in it the record's data is and how long, its CRC32C, and the pixels of
the picture."""
Colour = tuple[Annotated[int, pydantic.Field(ge=0, le=255)], ...]


@dataclass(frozen=True)
class StoredFile:
    """Size in bytes, and CRC32C in base64 as object stores write it."""

    name: str
    size: Count
    crc32c: str


@dataclass(frozen=True)
class PackedSplit:
    """Of one split.

    Attributes:
        data: bytes of its records' data.
        pixels: of each class.
        pixels_where_shown: of all the pictures that show the class, "ignored" left out.
    """

    examples: Count
    data: Count
    pixels: tuple[Count, ...]
    pixels_where_shown: tuple[Count, ...]
    index: StoredFile
    names: StoredFile
    shards: tuple[StoredFile, ...]

    @property
    def class_frequencies(self) -> NDArray[np.float64]:
        """How frequent each class is in the pictures that show it, at their own size; 0 for one that none shows."""
        shown = np.array(self.pixels_where_shown, np.float64)
        return np.divide(np.array(self.pixels, np.float64), shown, where=shown > 0, out=np.zeros(len(shown)))


@dataclass(frozen=True)
class Manifest:
    """All that a start needs to know.

    Attributes:
        name, classes, colours, background, split_by: those of :class:`~trainer.data.source.Source`.
        max_side: larger pictures were made smaller, pixels; None: they are as they were.
        key: of the data that was packed and how, so that it is known when it comes again.
    """

    format: Literal[1]
    name: str
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    background: Count | None
    split_by: Literal["layout", "hash", "settings"]
    max_side: Count | None
    key: str
    splits: Mapping[str, PackedSplit]

    @property
    def fingerprint(self) -> str:
        """A hash of classes and examples."""
        told = {"classes": self.classes, "splits": {name: asdict(split) for name, split in self.splits.items()}}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def examples(self) -> int:
        return sum(split.examples for split in self.splits.values())

    @property
    def record_size(self) -> float:
        """Bytes of the data of a record, the mean of all."""
        return sum(split.data for split in self.splits.values()) / max(1, self.examples)

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()


def shard_name(split: str, number: int, count: int) -> str:
    return f"{split}-{number:05d}-of-{count:05d}.tfrecord"


def index_name(split: str) -> str:
    return f"{split}.index.npy"


def names_name(split: str) -> str:
    return f"{split}.names"


def part_name(shard: str) -> str:
    return f"parts/{shard}.json"
