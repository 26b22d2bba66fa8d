"""Several trained networks as one, which says the mean of what they say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import keras

from maskfleet.errors import BadSettings
from maskfleet.text import some_of
from trainer.results.trained import Trained


def joined(members: Sequence[Trained], places: Sequence[Path]) -> Trained:
    """One network whose probabilities are the mean of the members'; a single one as it is.

    Args:
        places: where the members lie, for what is said of them.

    Raises:
        BadSettings: their classes, the sizes or bands of their inputs, or how a picture is fitted to them differ.
    """
    first = members[0]
    for place, member in zip(places[1:], members[1:], strict=True):
        for what, wanted, found in (
            ("classes", first.legend.classes, member.legend.classes),
            ("input size", (first.size.across,), (member.size.across,)),
            ("--fit", (first.fit,), (member.fit,)),
            ("--bands", (str(first.bands),), (str(member.bands),)),
        ):
            if wanted != found:
                raise BadSettings(
                    f"{place}: expected the {what} of {places[0]} ({some_of(wanted)}), found {some_of(found)}; "
                    "name networks that have the same"
                )
    if len(members) == 1:
        return first
    pixels = keras.Input(first.model.input_shape[1:], dtype="float32", name="pixels")
    logarithms = []
    for number, member in enumerate(members):
        member.model.name = f"member_{number}"  # those of a model have to differ
        logarithms.append(keras.layers.Activation("log_softmax", dtype="float32")(member.model(pixels)))
    # Logits, as every network gives them: their softmax is the mean. From logarithms, so that classes whose
    # probability is too small for a float32 keep their distance: logits are enlarged before they are compared.
    logits = keras.ops.logsumexp(keras.ops.stack(logarithms), axis=0) - math.log(len(members))
    return Trained(keras.Model(pixels, logits, name="ensemble"), first.legend, first.config)
