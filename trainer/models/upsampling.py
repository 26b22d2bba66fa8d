"""Ways to enlarge: learned with a transposed convolution, or interpolated."""

from __future__ import annotations

import keras
import numpy as np
import numpy.typing as npt
from keras import KerasTensor, layers

from maskfleet.config import TrainConfig


def upsampling_block(x: KerasTensor, filters: int, config: TrainConfig, name: str) -> KerasTensor:
    """[b, h, w, c] -> [b, 2h, 2w, filters]: enlarging convolution, normalisation, dropout if asked for, ReLU.

    The block of pix2pix (Isola et al., CVPR 2017) as TensorFlow's segmentation tutorial uses it.
    """
    x = enlarging_convolution(x, filters, config, f"{name}_conv", use_bias=False)
    x = normalization(config, f"{name}_norm")(x)
    if config.dropout:
        x = layers.Dropout(0.5, name=f"{name}_dropout")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def enlarging_convolution(
    x: KerasTensor, filters: int, config: TrainConfig, name: str, *, use_bias: bool, dtype: str | None = None
) -> KerasTensor:
    """[b, h, w, c] -> [b, 2h, 2w, filters]: a transposed convolution 3x3, or interpolation and a convolution 3x3."""
    options = {"padding": "same", "use_bias": use_bias, "dtype": dtype, "name": name}
    if not use_bias:  # the blocks of pix2pix; the tutorial's last layer has Keras's default
        options["kernel_initializer"] = keras.initializers.RandomNormal(0.0, 0.02)
    if config.upsampling == "transposed":
        return layers.Conv2DTranspose(filters, 3, strides=2, **options)(x)
    # TensorFlow's bicubic interpolation has no gradient below float32, and does not say so.
    x = layers.UpSampling2D(2, interpolation=config.upsampling, dtype="float32", name=f"{name}_enlarge")(x)
    return layers.Conv2D(filters, 3, **options)(x)


def enlarge_scores(x: KerasTensor, factor: int, config: TrainConfig, name: str) -> KerasTensor:
    """[b, h, w, classes] -> float32 [b, factor h, factor w, classes], each class for itself at the beginning.

    Transposed, it starts as bilinear interpolation (Long, Shelhamer, Darrell, CVPR 2015, section 3.3) and
    learns from there unless ``config.upsampling_trainable`` is off.
    """
    if config.upsampling != "transposed":
        return layers.UpSampling2D(factor, interpolation=config.upsampling, dtype="float32", name=name)(x)
    classes = x.shape[-1]
    layer = layers.Conv2DTranspose(
        classes, 2 * factor, strides=factor, padding="same", use_bias=False, dtype="float32", name=name
    )
    enlarged = layer(x)
    layer.kernel.assign(bilinear_kernel(factor, classes))
    layer.trainable = config.upsampling_trainable
    return enlarged


def bilinear_kernel(factor: int, classes: int) -> npt.NDArray[np.float32]:
    """Kernel [2 factor, 2 factor, classes, classes] whose transposed convolution interpolates bilinearly."""
    offsets = np.abs(np.arange(2 * factor) - (factor - 0.5)) / factor
    line = np.maximum(0, 1 - offsets)
    kernel: npt.NDArray[np.float32] = np.einsum("i,j,kl->ijkl", line, line, np.eye(classes)).astype(np.float32)
    return kernel


def normalization(config: TrainConfig, name: str) -> layers.Layer:
    """The one that ``config`` asks for in decoders."""
    if config.normalization in ("batch", "frozen"):
        trained = config.normalization == "batch"
        return layers.BatchNormalization(momentum=config.batch_norm_momentum, trainable=trained, name=name)
    return layers.GroupNormalization(
        groups=-1,  # one group a channel: instance normalisation
        epsilon=1e-5,
        gamma_initializer=keras.initializers.RandomNormal(1.0, 0.02),
        name=name,
    )
