"""Folders that say which split their files are of: ``train``, ``val`` and ``test``. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from maskfleet.errors import BadData
from trainer.data.lists import found_in, of_splits, shown


def split_folders(folder: Path, images: str, masks: str) -> tuple[Mapping[str, tuple[Path, Path]], list[str]]:
    """The folders of images and of masks of each split, and a line for each split that is passed over.

    Either ``images/train`` beside ``masks/train`` or ``train/images`` beside ``train/masks``, and so for the others;
    none if files lie in ``images`` itself, or there are no such folders. A test split without masks, as challenges
    have it, is passed over.

    Raises:
        BadData: a split has no masks, or there is none for training.
    """
    above, below = _folders_in(folder / images), _folders_in(folder)
    if above and not any(entry.is_file() and entry.name[0] != "." for entry in (folder / images).iterdir()):
        others = _folders_in(folder / masks)
        places = {split: (place, others.get(split, folder / masks / place.name)) for split, place in above.items()}
    elif not (folder / images).is_dir():
        places = {split: (place / images, place / masks) for split, place in below.items() if (place / images).is_dir()}
    else:
        places = {}
    notes = []
    for split, (pictures, truth) in list(places.items()):
        if truth.is_dir():
            continue
        if split != "test" or len(places) == 1:
            raise BadData(f"{shown(truth)}: expected the masks of {shown(pictures)}, found {_found(truth)}")
        notes.append(f"{shown(pictures)}: passed over, as there are no masks of it in {shown(truth)}")
        del places[split]
    if places and "train" not in places:
        there = ", ".join(shown(pictures.relative_to(folder)) for pictures, _ in places.values())
        raise BadData(f"{shown(folder)}: expected a folder train beside the others, found {there}")
    return places, notes


def is_divided(folder: Path, images: str, masks: str) -> bool:
    """Whether ``train/images`` and ``train/masks`` are there, or those of another split."""
    return any((place / images).is_dir() and (place / masks).is_dir() for place in _folders_in(folder).values())


def _found(place: Path) -> str:
    if place.exists():
        return "something that is no folder"
    return found_in(place.parent) if place.parent.is_dir() else "nothing"


def _folders_in(place: Path) -> Mapping[str, Path]:
    if not place.is_dir():
        return {}
    return of_splits((entry for entry in place.iterdir() if entry.is_dir()), lambda entry: entry.name)
