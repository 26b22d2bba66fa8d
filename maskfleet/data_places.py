"""What the setting ``data`` may name."""

from __future__ import annotations

import re
from pathlib import Path

from maskfleet.own_code import is_own

PACKED = "packed:"
"""Stands before a folder, or a place in a bucket, that 'trainer pack' has written."""
DATA_KINDS = ("folder", "voc", "coco", "yolo", "labelme", "cvat", "cityscapes", "ade20k", "file")
"""What may stand before a path in ``data``."""

BUCKET_NAME = "BUCKET of lower-case letters, digits, '-', '_' and '.'"
"""What :func:`is_bucket` wants, for messages."""
FETCHING = ".maskfleet-fetching"
"""In a folder while ``launcher pull`` brings files into it: what is there is a part."""


def own_data(data: str) -> str | None:
    """``python:MODULE:FUNCTION`` -> MODULE:FUNCTION; None for other data."""
    kind, _, function = data.partition(":")
    return function if kind == "python" and is_own(function) else None


def data_path(data: str) -> tuple[str, str] | None:
    """``voc:PATH`` -> ``voc:`` and the path, ``PATH`` -> nothing and the path; None for what has no path.

    What is neither a kind with a path nor looks like a path is one if it is there.
    """
    if (packed := packed_place(data)) is not None:
        return None if "://" in packed else (PACKED, packed)
    kind, _, place = data.partition(":")
    if kind in DATA_KINDS and place:
        return f"{kind}:", place
    if not data or data == "synthetic" or kind in ("oxford_iiit_pet", "tfds"):
        return None
    # "vok:/data" has a word before the path that is no kind.
    looks_like_one = data.startswith(("~", ".")) or "/" in kind or (kind == data and data.endswith((".yaml", ".yml")))
    return ("", data) if looks_like_one or Path(data).exists() else None


def packed_place(data: str) -> str | None:
    """Where the packed data lies that ``data`` names: a folder, ``gs://…`` or ``s3://…``; None for other data."""
    return data.removeprefix(PACKED) if data.startswith(PACKED) and data != PACKED else None


def is_bucket(name: str) -> bool:
    """Whether a bucket may be called so, in Google's storage or in S3."""
    return re.fullmatch(r"[a-z0-9][-a-z0-9_.]*", name) is not None


def is_remote(place: str) -> bool:
    """Whether a place is in a bucket."""
    return place.startswith(("gs://", "s3://"))
