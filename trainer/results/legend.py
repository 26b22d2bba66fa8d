"""What the labels of a network mean: its classes' names and colours. Imports no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from maskfleet.errors import BadInput
from maskfleet.foreign_files import parse_json, read_text
from maskfleet.image_size import Fit
from maskfleet.text import one_line
from trainer.data.cache import Dataset
from trainer.data.source import palette

MOST_CLASSES = 255
"""Of a mask of 8 bits, whose 255 is no class."""


@dataclass(frozen=True)
class Legend:
    """Classes in the order of their labels, with colours uint8 (classes, 3), and which of them is background.

    ``fit`` is how pictures become the network's input.
    """

    classes: tuple[str, ...]
    colours: NDArray[np.uint8]
    background: str | None
    fit: Fit = "squash"

    @classmethod
    def of(cls, dataset: Dataset) -> Legend:
        background = None if dataset.background is None else dataset.classes[dataset.background]
        return cls(dataset.classes, dataset.colours, background)

    @classmethod
    def unnamed(cls, classes: int) -> Legend:
        """For a network that comes without."""
        return cls(tuple(f"class {number}" for number in range(classes)), palette(classes), None)

    @classmethod
    def read(cls, path: Path) -> Legend:
        """From a file that holds :meth:`to_json`.

        Raises:
            BadInput: it can't be read or is no legend.
        """
        try:
            content = parse_json(read_text(path))
        except ValueError as error:
            raise BadInput(f"{path}: {error}") from error
        return cls.from_json(content, path)

    @classmethod
    def from_json(cls, content: Any, origin: Path) -> Legend:
        """The inverse of :meth:`to_json`; ``origin`` is named in errors.

        Raises:
            BadInput: the content is no legend.
        """
        try:
            classes, colours, background = (content[key] for key in ("classes", "colours", "background"))
            if not (isinstance(classes, list | tuple) and classes and all(isinstance(name, str) for name in classes)):
                raise ValueError(f"classes: expected names, found {classes!r}")
            if len(classes) > MOST_CLASSES:
                raise ValueError(f"classes: expected at most {MOST_CLASSES}, found {len(classes)}")
            if not (background is None or background in classes):
                raise ValueError(f"background: expected one of the classes or null, found {background!r}")
            fit = content.get("fit", "squash")
            if fit not in get_args(Fit):
                raise ValueError(f"fit: expected one of {', '.join(get_args(Fit))}, found {fit!r}")
            return cls(tuple(classes), np.array(colours, np.uint8).reshape(len(classes), 3), background, fit)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise BadInput(
                f"{origin}: expected classes, colours and background of a network: {type(error).__name__}: "
                f"{one_line(str(error))}"
            ) from error

    def to_json(self) -> dict[str, Any]:
        fit = {} if self.fit == "squash" else {"fit": self.fit}
        return {"classes": list(self.classes), "colours": self.colours.tolist(), "background": self.background, **fit}
