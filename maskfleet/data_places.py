"""What the setting ``data`` may name."""

from __future__ import annotations

from pathlib import Path

DATA_KINDS = ("folder", "voc", "coco", "yolo", "labelme", "cvat", "cityscapes", "ade20k", "file")
"""What may stand before a path in ``data``."""

FETCHING = ".maskfleet-fetching"
"""In a folder while ``launcher pull`` brings files into it: what is there is a part."""


def data_path(data: str) -> tuple[str, str] | None:
    """``voc:PATH`` -> ``voc:`` and the path, ``PATH`` -> nothing and the path; None for what has no path.

    What is neither a kind with a path nor looks like a path is one if it is there.
    """
    kind, _, place = data.partition(":")
    if kind in DATA_KINDS and place:
        return f"{kind}:", place
    if not data or data == "synthetic" or kind in ("oxford_iiit_pet", "tfds"):
        return None
    # "vok:/data" has a word before the path that is no kind.
    looks_like_one = data.startswith(("~", ".")) or "/" in kind or (kind == data and data.endswith((".yaml", ".yml")))
    return ("", data) if looks_like_one or Path(data).exists() else None
