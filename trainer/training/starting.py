"""A new run that begins with the weights of a trained network, as far as their names and shapes are its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.text import one_line, some_of
from trainer.models.network import Network, build_network
from trainer.results.trained import Weights, load_weights_of

Values = Mapping[str, NDArray[Any]]
Axes = Mapping[str, tuple[int, ...]]
"""Of the variables that have a row for each class: along which axes."""


@dataclass(frozen=True)
class Match:
    """What a network can take of another one.

    Attributes:
        values: of the variables that take something, all of it or some of its rows.
        by_class: those of them that take rows of classes alone.
        shared: the classes that both know.
        left: the variables that keep what they have.
    """

    values: dict[str, NDArray[Any]]
    by_class: tuple[str, ...]
    shared: tuple[str, ...]
    left: tuple[str, ...]


def start_from(place: Path, config: TrainConfig, network: Network, classes: Sequence[str]) -> str:
    """Gives ``network`` the weights at ``place`` that fit it; returns what was taken and what was not, in a line.

    Raises:
        BadSettings: nothing fits, or not the encoder that has no other weights.
        NotFound, BadInput: there are no weights, or they are damaged.
    """
    weights = load_weights_of(place)
    own = {variable.path: variable for variable in network.model.variables}
    theirs = weights.legend.classes
    axes = {} if tuple(classes) == theirs else class_axes(config, network, len(classes))
    found = match({path: own[path].numpy() for path in own}, weights.values, axes, classes, theirs)
    _check_fits(config, network, weights, found)
    for path, value in found.values.items():
        own[path].assign(value)
    return _told(config, weights, found, len(own))


def class_axes(config: TrainConfig, network: Network, classes: int) -> Axes:
    """Along which axes the variables of ``network`` grow with its ``classes``: told by one that has a class more."""
    unread = config.model_copy(update={"encoder_weights": "none"})
    larger = {variable.path: variable.shape for variable in build_network(unread, classes + 1).model.variables}
    axes = {}
    for variable in network.model.variables:
        there = larger.get(variable.path, variable.shape)
        grown = tuple(axis for axis, (a, b) in enumerate(zip(variable.shape, there, strict=True)) if a != b)
        if grown:
            axes[variable.path] = grown
    return axes


def match(own: Values, given: Values, axes: Axes, classes: Sequence[str], given_classes: Sequence[str]) -> Match:
    """What ``given`` has for each of the variables ``own``, by name and shape; rows of classes by the classes' names.

    Args:
        axes: of ``own``; empty where both have the same classes in the same order.
    """
    shared = tuple(name for name in classes if name in given_classes)
    here, there = ([names.index(name) for name in shared] for names in (list(classes), list(given_classes)))
    taken, by_class, left = {}, [], []
    for path, value in own.items():
        other, along = given.get(path), axes.get(path, ())
        shape = tuple(len(given_classes) if axis in along else size for axis, size in enumerate(value.shape))
        if other is None or other.shape != shape or (along and not shared):
            left.append(path)
        elif not along:
            taken[path] = other
        else:
            rows = [np.ix_(*(indices if axis in along else range(size) for axis, size in enumerate(value.shape)))
                    for indices in (here, there)]  # fmt: skip
            taken[path] = value.copy()
            taken[path][rows[0]] = other[rows[1]]
            by_class.append(path)
    return Match(taken, tuple(by_class), shared, tuple(left))


def _check_fits(config: TrainConfig, network: Network, weights: Weights, found: Match) -> None:
    encoder = [variable.path for variable in network.encoder.variables]
    missing = [path for path in encoder if path in found.left]
    if not found.values or (missing and config.encoder_weights == "none"):
        trained = "" if weights.encoder in (None, config.encoder) else f", which was trained with {weights.encoder}"
        what = f"those of --encoder {config.encoder}" if missing else f"some of --model {config.model}"
        count = f"{len(encoder) - len(missing)} of {len(encoder)}" if missing else "none"
        raise BadSettings(
            f"--start-from {config.start_from}: expected weights of this network, {what} at least, found {count} by "
            f"name and shape in {weights.origin}{trained}; name the network that it is of"
        )


def _told(config: TrainConfig, weights: Weights, found: Match, count: int) -> str:
    line = f"starts from {config.start_from} ({weights.origin}): {len(found.values)} of {count} variables taken"
    if found.by_class:
        line += f", of the {len(found.by_class)} with a row for each class those of {some_of(found.shared)}"
    unused = [path for path in weights.values if path not in found.values]
    line += f"; not taken, and as new: {some_of(found.left)}" if found.left else ""
    line += f"; not used: {some_of(unused)}" if unused else ""
    return one_line(line, 1000)
