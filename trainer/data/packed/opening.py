"""From a place of packed data to a :class:`~trainer.data.source.Source`. Imports no TensorFlow."""

from __future__ import annotations

import functools

import numpy as np

from trainer.data.packed.bucket import open_bucket
from trainer.data.packed.reading import Names, open_reader
from trainer.data.source import NO_EXAMPLES, Reading, Source, Split


def open_packed(place: str, reading: Reading) -> Source:
    """Opens what ``trainer pack`` has written. Reads the manifest and the indices; an outage is waited out.

    Raises:
        BadSettings: the place can't be understood, or the bucket refuses.
        BadData: there is no packed data.
    """
    reader = open_reader(open_bucket(place), reading.max_pixels)
    manifest = reader.manifest
    splits = {
        name: Split(
            Names(reader.bucket, packed),
            functools.partial(reader.example, name),
            functools.partial(reader.pixels, name),
        )
        for name, packed in manifest.splits.items()
    }
    return Source(
        manifest.name,
        manifest.classes,
        np.array(manifest.colours, np.uint8),
        manifest.background,
        splits.get("train", NO_EXAMPLES),
        splits.get("test", NO_EXAMPLES),
        manifest.fingerprint,
        validation=splits.get("validation"),
        split_by=manifest.split_by,
        packed=reader,
    )
