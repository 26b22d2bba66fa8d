"""A segmentation network: an encoder, a decoder, and the two joined."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import keras
import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.own_code import is_own
from trainer.models.deeplab import deeplabv3plus
from trainer.models.encoders import COARSEST, STRIDES, build_encoder, padding
from trainer.models.fcn import Decoder, fcn8s, fcn16s, fcn32s
from trainer.models.fused import fuse
from trainer.models.inference import logits_of
from trainer.models.lraspp import lraspp
from trainer.models.own import Own
from trainer.models.pspnet import pspnet
from trainer.models.segformer import segformer
from trainer.models.unet import unet


@dataclass(frozen=True)
class _Kind:
    """A decoder, the strides of the features that it reads, and whether the coarsest are kept finer by dilation."""

    decoder: Decoder
    strides: tuple[int, ...] = STRIDES
    dilated: bool = False


_KINDS: Mapping[str, _Kind] = {
    "unet": _Kind(unet),
    "fcn32s": _Kind(fcn32s, (32,)),
    "fcn16s": _Kind(fcn16s, (16, 32)),
    "fcn8s": _Kind(fcn8s, (8, 16, 32)),
    "deeplabv3plus": _Kind(deeplabv3plus, (4, 32), dilated=True),
    "lraspp": _Kind(lraspp, (8, 32), dilated=True),
    "pspnet": _Kind(pspnet, (32,), dilated=True),
    "segformer": _Kind(segformer, (4, 8, 16, 32)),
}


@dataclass(frozen=True)
class Network:
    """One network and its two halves, which share its variables.

    ``encoder``: pixels 0..255 [b, H, W, bands] -> features, finest first. ``decoder``: features -> logits
    float32 [b, H, W, classes]. ``model``: the decoder after the encoder; what is saved and exported.
    """

    encoder: keras.Model
    decoder: keras.Model
    model: keras.Model

    @property
    def is_frozen(self) -> bool:
        """Whether there is an encoder, and it is not trained at all."""
        return bool(self.encoder.variables) and not self.encoder.trainable_variables

    @cached_property
    def fused_encoder(self) -> keras.Model:
        """What ``encoder`` computes, faster: for training and validation, see :mod:`trainer.models.fused`."""
        return fuse(self.encoder)

    @cached_property
    def fused_decoder(self) -> keras.Model:
        """What ``decoder`` computes, faster."""
        return fuse(self.decoder, frozen_features=self.is_frozen)

    @cached_property
    def logits(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """What ``model`` says of images, for validation and pictures: :func:`trainer.models.inference.logits_of`."""
        return logits_of(self.model)


def build_network(config: TrainConfig, classes: int) -> Network:
    """The network that ``config`` asks for; its initial weights depend on ``config.seed`` alone.

    Raises:
        BadSettings: the encoder's weights can't be read or downloaded, there is no layer to unfreeze from, or a
            function of the user's own does not give the logits that it should.
    """
    own = Own(config.model) if is_own(config.model) else None
    kind = _Kind(own) if own else _KINDS[config.model]
    name = own.name if own else config.model
    with dtype_policy(config.precision), _seeded(config.seed):
        if own and own.takes_pixels:
            encoder = _nothing(config)
        else:
            encoder = build_encoder(config, kind.strides, config.output_stride if kind.dilated else COARSEST)
        features = [
            keras.Input(output.shape[1:], dtype=output.dtype, name=f"feature_{number}")
            for number, output in enumerate(encoder.outputs, start=1)
        ]
        logits = kind.decoder(features, classes, config)
        if logits.shape[1:3] != tuple(config.image_size):
            logits = keras.layers.Cropping2D(padding(config.image_size), dtype="float32", name="crop")(logits)
        decoder = keras.Model(features, logits, name="decoder")
        pixels = keras.Input(encoder.input_shape[1:], dtype="float32", name="pixels")
        model = keras.Model(pixels, decoder(encoder(pixels)), name=name)
    return Network(encoder, decoder, model)


def _nothing(config: TrainConfig) -> keras.Model:
    """The encoder of a network that has none: gives the pixels as they are."""
    pixels = keras.Input((*config.image_size, config.bands), name="pixels", dtype="float32")
    return keras.Model(pixels, [keras.layers.Identity(dtype="float32", name="same_pixels")(pixels)], name="encoder")


@contextmanager
def dtype_policy(precision: str) -> Iterator[None]:
    """Layers that are made inside compute in ``precision`` and keep float32 variables.

    keras.applications takes the policy from Keras's (thread-local) state only.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Every Keras layer draws its own seed from Python's generator, as keras.utils.set_random_seed relies on."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
