"""Packed data of any size, made of a few pictures, and the fake bucket that serves it from the disk."""

from __future__ import annotations

import base64
import io
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import google_crc32c
import numpy as np
from PIL import Image

from maskfleet.files import FileDigest
from maskfleet.tfrecords import HEADER_BYTES, frame
from tests.fakes.gcs import FakeGcs, Object
from trainer.data.packed.layout import (
    FORMAT,
    MANIFEST,
    ROW,
    Manifest,
    PackedSplit,
    StoredFile,
    index_name,
    names_name,
    shard_name,
)
from trainer.data.packed.packing import SHARD_BYTES
from trainer.data.packed.record import _IMAGE, _MASK, _NAME, _serialized

Pair = tuple[bytes, bytes]
"""The files of a picture and of its mask."""


def drawn_pairs(count: int, side: int) -> list[Pair]:
    """Soft colours as JPEGs, with masks of two classes."""
    generator, pairs = np.random.default_rng(0), []
    for _ in range(count):
        image = io.BytesIO()
        small = Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8))
        small.resize((side, side), Image.Resampling.BICUBIC).save(image, "jpeg", quality=90)
        pairs.append((image.getvalue(), _mask(generator, side)))
    return pairs


def noise_pairs(count: int, side: int) -> list[Pair]:
    """Noise as PNGs without compression, three bytes a pixel: large, and no work to decode."""
    generator, pairs = np.random.default_rng(0), []
    for _ in range(count):
        image = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (side, side, 3), np.uint8)).save(image, "png", compress_level=0)
        pairs.append((image.getvalue(), _mask(generator, side)))
    return pairs


def _mask(generator: np.random.Generator, side: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(generator.integers(0, 2, (4, 4), np.uint8)).resize((side, side), Image.Resampling.NEAREST).save(
        file, "png"
    )
    return file.getvalue()


def write_packed(place: Path, pairs: Sequence[Pair], train: int, test: int = 100) -> None:
    """Packed data as packing writes it: ``pairs``, one after the other, under as many names as are asked for."""
    place.mkdir()
    width, height = Image.open(io.BytesIO(pairs[0][0])).size
    each = max(1, SHARD_BYTES // max(len(image) + len(mask) for image, mask in pairs))
    splits = {}
    for split, examples in (("train", train), ("test", test)):
        index, names, shards = np.zeros(examples, ROW), [], []
        shard_count = -(-examples // each)
        for number in range(shard_count):
            file, offset = place / shard_name(split, number, shard_count), 0
            with file.open("wb") as written:
                for i in range(number * each, min(examples, (number + 1) * each)):
                    names.append(f"{split}-{i:07d}")
                    image, mask = pairs[i % len(pairs)]
                    data = _serialized({_NAME: names[-1].encode(), _IMAGE: image, _MASK: mask})
                    row = (number, len(data), offset + HEADER_BYTES, google_crc32c.value(data), width * height)
                    index[i] = row
                    offset += written.write(frame(data))
            shards.append(_stored(file))
        np.save(place / index_name(split), index)
        (place / names_name(split)).write_bytes(b"".join(name.encode() + b"\0" for name in names))
        index_file, names_file = (_stored(place / name) for name in (index_name(split), names_name(split)))
        data_bytes = int(index["length"].sum(dtype=np.int64))
        splits[split] = PackedSplit(examples, data_bytes, (1, 1), (2, 2), index_file, names_file, tuple(shards))
    colours = ((0, 0, 0), (128, 0, 0))
    manifest = Manifest(FORMAT, "drawn", ("a", "b"), colours, None, "layout", None, str(train), splits)
    (place / MANIFEST).write_bytes(manifest.to_json())


def _stored(file: Path) -> StoredFile:
    digest = FileDigest.of(file)
    return StoredFile(file.name, digest.size, digest.crc32c)


def put_folder(fake: FakeGcs, folder: Path, prefix: str) -> None:
    """Has the files of a folder as objects of the bucket, without reading them into memory."""
    objects = fake.snapshot("bucket")
    for file in folder.iterdir():
        with file.open("rb") as opened:
            content = cast("bytes", mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        name = f"{prefix}/{file.name}"
        crc = int.from_bytes(base64.b64decode(FileDigest.of(file).crc32c), "big")
        objects[name] = Object("bucket", name, (content,), len(content), crc, generation=1, components=1)
    fake.reset("bucket", objects)
