"""A data set of the user's own: what its function is called with, and what it has to give. Imports no TensorFlow."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import PIL.Image

from maskfleet.errors import BadData, BadInput
from maskfleet.text import one_line
from trainer.data.class_rows import check_names
from trainer.data.source import IGNORED, Example, Source, Split
from trainer.own_code import load, loaded_fingerprint, refuse, users_code


class OwnData(Protocol):
    """``--data python:MODULE:FUNCTION``."""

    def __call__(self, data_dir: Path | None) -> Source:
        """The data set, with ``data_dir`` as ``--data-dir`` says.

        Its splits' ``read(i)`` is called from several threads, in any order, and has to give the same each time.
        """


def open_own(name: str, data_dir: Path | None) -> Source:
    """What the function ``MODULE:FUNCTION`` gives, whose examples are checked as they are read.

    Raises:
        BadSettings: there is no such function.
        BadData: it fails, or gives no data set.
    """
    said = f"--data python:{name}"
    function = cast(OwnData, load("--data", name))
    with users_code(said, BadData):
        source = function(data_dir)
    if problem := _problem(source):
        raise refuse(said, function, problem, BadData)
    check_names(source.classes, f"{said}: classes")
    classes = len(source.classes)
    train, test = _checked(source.train, said, classes), _checked(source.test, said, classes)
    validation = None if source.validation is None else _checked(source.validation, said, classes)
    # Other code may read other pixels of the same files.
    key = hashlib.sha256(f"{source.key}\n{loaded_fingerprint()}".encode()).hexdigest()
    checked = replace(source, key=key, train=train, test=test, validation=validation)
    for each, split in checked.splits.items():
        _check_same_again(split, each, said, function)
    return checked


def _problem(source: Any) -> str | None:
    """What is wrong with what the function has given, or None."""
    if not isinstance(source, Source):
        return f"expected a trainer.data.source.Source, found {type(source).__name__}"
    names = source.classes
    if not (isinstance(names, tuple) and all(isinstance(name, str) and name for name in names)):
        return f"classes: expected a tuple of names, found {one_line(repr(names), 100)}"
    if not 2 <= len(set(names)) == len(names) <= IGNORED:
        return f"classes: expected 2 to {IGNORED} different names, found {one_line(repr(names), 100)}"
    colours = source.colours
    if getattr(colours, "shape", None) != (len(names), 3) or colours.dtype != np.uint8:
        return f"colours: expected uint8 ({len(names)}, 3), as palette({len(names)}) gives it"
    if source.background not in (None, *range(len(names))):
        return f"background: expected a class below {len(names)} or None, found {source.background!r}"
    if not (isinstance(source.name, str) and re.fullmatch(r"[\w.-]{1,100}", source.name)):
        return f"name: expected letters, digits, '.', '_' and '-', found {one_line(str(source.name), 100)!r}"
    if not isinstance(source.key, str):
        return f"key: expected text, found {type(source.key).__name__}"
    for name, split in (("train", source.train), ("test", source.test), ("validation", source.validation)):
        if split is None and name == "validation":
            continue
        if not isinstance(split, Split):
            return f"{name}: expected a trainer.data.source.Split, found {type(split).__name__}"
        if not (isinstance(split.names, tuple) and all(isinstance(each, str) for each in split.names)):
            return f"{name}: names: expected a tuple of texts"
        if len(set(split.names)) < len(split.names):
            return f"{name}: names: expected each once, found {len(split.names) - len(set(split.names))} again"
    if not source.train or not (source.test or source.validation):
        return "expected examples for training, and some for testing or validation, found none"
    return None


def _checked(split: Split, said: str, classes: int) -> Split:
    """``split`` whose examples are looked at as they are read."""

    def read(i: int) -> Example:
        with users_code(f"{said}: {split.names[i]}", BadData):
            found: Any = split.read(i)
            example = found if isinstance(found, Example) else Example(*found)
        if problem := _problem_of(example, classes):
            raise refuse(f"{said}: {split.names[i]}", split.read, problem, BadData)
        return example

    return replace(split, read=read)


def _problem_of(example: Example, classes: int) -> str | None:
    image = example.image if isinstance(example.decoded, PIL.Image.Image) else example.decoded
    mask = example.mask
    for name, array, axes in (("image", image, 3), ("mask", mask, 2)):
        shape = "[H, W, 3]" if axes == 3 else "[H, W]"
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != axes or not array.size:
            found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
            return f"expected the {name} as an array uint8 {shape}, found {found}"
    if image.shape[2] != 3:
        return f"expected the image as an array uint8 [H, W, 3], found uint8 {list(image.shape)}"
    if image.shape[:2] != mask.shape:
        return f"expected image and mask of one size, found {list(image.shape[:2])} and {list(mask.shape)}"
    strange = mask[(mask >= classes) & (mask != IGNORED)]
    if strange.size:
        return f"expected labels below {classes}, or {IGNORED} where a pixel does not count, found {strange.min()}"
    return None


def _check_same_again(split: Split, name: str, said: str, function: Callable[..., Any]) -> None:
    """Raises BadData if the first example is another one when it is read again."""
    first, again = split.read(0), split.read(0)
    if not (np.array_equal(first.image, again.image) and np.array_equal(first.mask, again.mask)):
        raise _unlike(split, name, said, function)


def _unlike(split: Split, name: str, said: str, function: Callable[..., Any]) -> BadInput:
    problem = f"{name}: {split.names[0]}: expected the same each time it is read, found another image or mask"
    return refuse(said, function, problem, BadData)
