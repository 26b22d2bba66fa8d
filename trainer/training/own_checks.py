"""Tries a user's own functions before anything is written: what ours promise is asked of them too."""

from __future__ import annotations

import numpy as np

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.own_code import is_own
from trainer.data.augmentation import Augmentation
from trainer.data.cache import Dataset
from trainer.models.network import Network, build_network
from trainer.objective.own import OwnTerm
from trainer.own_code import users_code


def check_own(config: TrainConfig, dataset: Dataset) -> None:
    """Tries loss and augmentation on two examples of ``dataset``, whose own are checked as they are read.

    Raises:
        BadSettings: one fails, or gives something else than it should; with the user's file and line.
    """
    examples, classes = dataset.chooses, len(dataset.classes)
    for term in filter(is_own, config.loss.split("+")):
        OwnTerm(term).check(examples.masks, classes)
    if (change := Augmentation.of(config).own) is not None:
        change.check(examples.images, examples.masks, classes)


def check_own_network(config: TrainConfig, network: Network, classes: int) -> None:
    """Whether the seed alone decides the initial weights of a network of the user's own, and it can be saved.

    Raises:
        BadSettings: it does not, or can't.
    """
    if not is_own(config.model):
        return
    said = f"--model {config.model}"
    with users_code(said):
        if config.export:
            network.model.get_config()
    again = build_network(config.model_copy(update={"encoder_weights": "none"}), classes).decoder
    first = {variable.path: variable.numpy() for variable in network.decoder.variables}
    second = {variable.path: variable.numpy() for variable in again.variables}
    different = [path for path in {**first, **second} if not np.array_equal(first.get(path, ()), second.get(path, ()))]
    if different:
        raise BadSettings(
            f"{said}: expected the same layers and initial weights for the same seed, found other ones of "
            f"{different[0]} at a second call; use Keras's initializers, and draw nothing at random"
        )
