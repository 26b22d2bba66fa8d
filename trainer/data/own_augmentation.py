"""An augmentation of the user's own: what its function is called with, and what it has to give."""

from __future__ import annotations

from typing import Protocol, cast

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.errors import BadInput
from trainer.data.source import IGNORED
from trainer.own_code import load, refuse, users_code


class OwnAugmentation(Protocol):
    """``--augmentation MODULE:FUNCTION``: changes one example, after all that the other settings change."""

    def __call__(self, image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Image uint8 [H, W, 3] and mask uint8 [H, W] -> the same, changed, by TensorFlow's operations.

        ``seed``, int64 [2], is another for each example and epoch, and all that is random has to follow from it
        (``tf.random.stateless_…``), so that a run that goes on, or has other workers, sees the same pictures.
        """


class OwnChange:
    """The function that ``--augmentation`` names, checked as it is called. Equal to one of the same name."""

    def __init__(self, name: str):
        self._said = f"--augmentation {name}"
        self._function = cast(OwnAugmentation, load("--augmentation", name))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OwnChange) and other._said == self._said

    def __hash__(self) -> int:
        return hash(self._said)

    def __call__(self, image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Raises BadSettings if it fails, or gives no such pair."""
        with users_code(self._said):
            pair = self._function(image, mask, seed)
        expected = f"expected an image uint8 {image.shape} and a mask uint8 {mask.shape}"
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(map(tf.is_tensor, pair)):
            raise self._refused(f"{expected}, found {_named(pair)}")
        if any(found.dtype != tf.uint8 for found in pair) or not all(
            found.shape.is_compatible_with(given.shape) for found, given in zip(pair, (image, mask), strict=True)
        ):
            found = " and ".join(f"{each.dtype.name} {each.shape}" for each in pair)
            raise self._refused(f"{expected}, found {found}")
        return tf.ensure_shape(pair[0], image.shape), tf.ensure_shape(pair[1], mask.shape)

    def check(self, images: NDArray[np.uint8], masks: NDArray[np.uint8], classes: int) -> None:
        """Tries it on two examples.

        Raises:
            BadSettings: it fails, gives labels that are no classes, or something else for the same seed.
        """
        for number, (image, mask) in enumerate(zip(images[:2], masks[:2], strict=True)):
            arguments = (tf.constant(image), tf.constant(mask), tf.constant([number, 7], tf.int64))
            (changed, labels), again = self(*arguments), self(*arguments)
            strange = set(np.unique(labels)) - {*range(classes), IGNORED}
            if strange:
                raise self._refused(f"expected labels below {classes}, or {IGNORED}, found {min(strange)}")
            if np.any(changed != again[0]) or np.any(labels != again[1]):
                raise self._refused(
                    "expected the same result for the same seed, found another: use tf.random.stateless_…"
                )

    def _refused(self, problem: str) -> BadInput:
        return refuse(self._said, self._function, problem)


def _named(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {', '.join(type(each).__name__ for each in value)}"
    return type(value).__name__
