"""Classes of data that names what it draws: annotations of shapes. Imports no TensorFlow."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from maskfleet.errors import BadData
from trainer.data.class_rows import IGNORED_NAME, REST, Colour, check_names, is_ignored
from trainer.data.source import IGNORED, palette

BACKGROUND = "background"
"""The class of what no shape covers, unless a category has that name."""
_MOST = IGNORED


@dataclass(frozen=True)
class Wishes:
    """What a data file says about classes.

    Attributes:
        names: of the classes, in the order of the labels; None: those that the data names.
        mapping: the class of a category, or :data:`~trainer.data.class_rows.IGNORED_NAME`; others keep their own,
            or get that of :data:`~trainer.data.class_rows.REST`.
        colours: by class.
        uncovered: the class of what no shape covers.
        origin: the data file, for messages.
    """

    names: tuple[str, ...] | None = None
    mapping: Mapping[str, str] | None = None
    colours: Mapping[str, Colour] | None = None
    uncovered: str = BACKGROUND
    origin: str = field(default="", repr=False)


NO_WISHES = Wishes()


@dataclass(frozen=True)
class Categories:
    """Labels of categories.

    Attributes:
        names: of the classes, in the order of the labels.
        colours: uint8 (classes, 3).
        labels: by the category's name; :data:`~trainer.data.source.IGNORED` of what counts nowhere.
        uncovered: label of what no shape covers.
    """

    names: tuple[str, ...]
    colours: NDArray[np.uint8]
    labels: Mapping[str, int]
    uncovered: int

    @property
    def background(self) -> int | None:
        return next((i for i, name in enumerate(self.names) if is_background(name)), None)

    @classmethod
    def of(cls, categories: Iterable[str], wishes: Wishes, where: str) -> Categories:
        """Each category a class of its own, behind the background, unless ``wishes`` says otherwise.

        Raises:
            BadData: a mapping from or to what is not there, a category that none of the named classes is, less than
                2 or more than 255 classes.
        """
        categories = list(dict.fromkeys(categories))
        where = wishes.origin or where
        mapping = wishes.mapping or {}
        known = [name for name in (wishes.names or categories) if not is_ignored(name)]
        for category, name in mapping.items():
            if category not in categories and category != REST:
                raise BadData(f"{where}: mapping: there is no category {category!r}{_near(category, categories)}")
            if not _is_class(name, known):
                raise BadData(f"{where}: mapping: {category}: there is no class {name!r}{_near(name, known)}")
        rest = mapping.get(REST)
        target = {category: mapping.get(category, rest or category) for category in categories}
        if wishes.names is not None:
            for category, name in target.items():
                if not _is_class(name, known):
                    raise BadData(
                        f"{where}: the category {category!r} is none of the classes{_near(category, known)}; name it, "
                        f"or map it to one of them or to {IGNORED_NAME}"
                    )
        names = [name for name in (wishes.names or dict.fromkeys(target.values())) if not is_ignored(name)]
        uncovered = wishes.uncovered
        if is_background(uncovered):
            uncovered = next((name for name in names if is_background(name)), BACKGROUND)
            if uncovered not in names:
                names.insert(0, uncovered)
        elif not is_ignored(uncovered) and uncovered not in names:
            raise BadData(f"{where}: uncovered: there is no class {uncovered!r}{_near(uncovered, names)}")
        if not 2 <= len(names) <= _MOST:
            raise BadData(
                f"{where}: expected 2 to {_MOST} classes, found {len(names)}: {', '.join(names[:3]) or 'none'}"
            )
        check_names(names, where)
        label = {name: i for i, name in enumerate(names)}
        back = next((label[name] for name in names if is_background(name)), IGNORED)

        def of(name: str) -> int:
            return IGNORED if is_ignored(name) else label.get(name, back)

        colours = palette(len(names))
        for name, colour in (wishes.colours or {}).items():
            if name in label:
                colours[label[name]] = colour
        labels = {category: of(name) for category, name in target.items()}
        return cls(tuple(names), colours, labels, of(uncovered))


def is_background(name: str) -> bool:
    """Whether it is called background, also as labelme's ``_background_``."""
    return name.strip("_").lower() == BACKGROUND


def _is_class(name: str, known: Iterable[str]) -> bool:
    return name in known or is_ignored(name) or is_background(name)


def _near(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f" (did you mean {near[0]!r}?)"
    more = f" and {len(known) - 6} more" if len(known) > 6 else ""
    return f" (there are {', '.join(known[:6])}{more})"
