"""What several decoders are made of."""

from __future__ import annotations

from keras import KerasTensor, layers

from maskfleet.config import TrainConfig
from trainer.models.upsampling import normalization


def convolution_block(
    x: KerasTensor, filters: int, size: int, config: TrainConfig, name: str, *, rate: int = 1, separable: bool = False
) -> KerasTensor:
    """[b, h, w, c] -> [b, h, w, filters]: convolution of ``size`` x ``size``, normalisation, ReLU.

    Args:
        rate: of dilation.
        separable: one kernel for each channel, then a product over the channels (Howard et al., "MobileNets", 2017).
    """
    options = {"padding": "same", "use_bias": False}
    if separable:
        x = layers.DepthwiseConv2D(size, dilation_rate=rate, name=f"{name}_depthwise", **options)(x)
        x = layers.Conv2D(filters, 1, name=f"{name}_pointwise", **options)(x)
    else:
        x = layers.Conv2D(filters, size, dilation_rate=rate, name=f"{name}_conv", **options)(x)
    x = normalization(config, f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def image_level(x: KerasTensor, filters: int, name: str) -> KerasTensor:
    """[b, h, w, c] -> [b, h, w, filters], the same everywhere: the mean over the image, a product, ReLU.

    It is normalised over its channels. Batch normalisation, as the papers have it, would see one value an image:
    noise with the batches of a small machine, and nothing but zeros with one example.
    """
    size = x.shape[1:3]
    x = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_conv")(x)
    x = layers.LayerNormalization(name=f"{name}_norm")(x)
    x = layers.ReLU(name=f"{name}_relu")(x)
    return layers.UpSampling2D(size, name=f"{name}_everywhere")(x)


def enlarge_features(x: KerasTensor, factor: int, config: TrainConfig, name: str) -> KerasTensor:
    """[b, h, w, c] -> [b, factor h, factor w, c] by interpolation; bilinear where scores have transposed convolutions.

    A transposed convolution over hundreds of channels would hold more weights than all the rest.
    """
    if factor == 1:
        return x
    interpolation = "bilinear" if config.upsampling == "transposed" else config.upsampling
    # TensorFlow's bicubic interpolation has no gradient below float32, and does not say so.
    return layers.UpSampling2D(factor, interpolation=interpolation, dtype="float32", name=name)(x)


def dropped(x: KerasTensor, config: TrainConfig) -> KerasTensor:
    """With dropout before the scores, if asked for."""
    return layers.Dropout(0.1, name="dropout")(x) if config.dropout else x


def scores(x: KerasTensor, classes: int, name: str) -> KerasTensor:
    """[b, h, w, c] -> float32 [b, h, w, classes]."""
    return layers.Conv2D(classes, 1, dtype="float32", name=name)(x)
