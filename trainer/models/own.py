"""A network of the user's own: what its function is called with, and what it has to give."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

from keras import KerasTensor
from keras.src.backend.common import global_state

from maskfleet.config import TrainConfig
from trainer.own_code import load, refuse, users_code


class OwnNetwork(Protocol):
    """``--model MODULE:FUNCTION``, a whole network: its first parameter is called ``pixels``."""

    def __call__(self, pixels: KerasTensor, classes: int, config: TrainConfig) -> KerasTensor:
        """Pixels float32 [b, H, W, bands] of 0..255 -> logits float32 [b, H, W, classes], by Keras's layers.

        Scaling the pixels is the network's own. Initial weights are to be Keras's: they follow from ``config.seed``.
        """


class OwnDecoder(Protocol):
    """``--model MODULE:FUNCTION``, a decoder on the encoder of ``--encoder``: its first parameter is ``features``."""

    def __call__(self, features: Sequence[KerasTensor], classes: int, config: TrainConfig) -> KerasTensor:
        """Features of strides 2, 4, 8, 16, 32 -> logits float32 [b, P, Q, classes].

        P and Q are the sides of the input, padded to multiples of 32: twice those of the first features.
        """


class Own:
    """The function that ``--model`` names, checked as it is called."""

    def __init__(self, name: str):
        self.name = name.rpartition(":")[2]
        self._said = f"--model {name}"
        self._function = cast(OwnNetwork | OwnDecoder, load("--model", name))
        with users_code(self._said):
            parameters = [*inspect.signature(self._function).parameters]
        if len(parameters) != 3 or parameters[0] not in ("pixels", "features"):
            found = ", ".join(parameters) or "none"
            raise refuse(self._said, self._function,
                         f"expected the parameters (pixels, classes, config) or (features, classes, config), found "
                         f"{found}")  # fmt: skip
        self.takes_pixels = parameters[0] == "pixels"
        """The image, and not an encoder's features."""

    def __call__(self, features: Sequence[KerasTensor], classes: int, config: TrainConfig) -> KerasTensor:
        """As a decoder of ours. Of ``features`` a whole network has one, the pixels.

        Raises:
            BadSettings: it fails, or gives no such logits.
        """
        height, width = (side * (1 if self.takes_pixels else 2) for side in features[0].shape[1:3])
        with users_code(self._said), _names_from_the_first_on():
            function: Any = self._function
            logits = function(features[0] if self.takes_pixels else features, classes, config)
        expected = f"expected logits float32 [b, {height}, {width}, {classes}]"
        if not isinstance(logits, KerasTensor):
            raise refuse(self._said, self._function, f"{expected}, found {type(logits).__name__}")
        if tuple(logits.shape) != (None, height, width, classes):
            shape = ", ".join("b" if size is None else str(size) for size in logits.shape)
            raise refuse(self._said, self._function, f"{expected}, found [{shape}]")
        if logits.dtype != "float32":
            mend = 'give the last layer dtype="float32"'
            raise refuse(self._said, self._function, f"{expected}, found {logits.dtype}; {mend}")
        return logits


@contextmanager
def _names_from_the_first_on() -> Iterator[None]:
    """Keras numbers layers without a name through a whole process; a checkpoint needs the same names in each."""
    before = global_state.get_global_attribute(_NUMBERS)
    global_state.set_global_attribute(_NUMBERS, defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute(_NUMBERS, before)


_NUMBERS = "object_name_uids"
