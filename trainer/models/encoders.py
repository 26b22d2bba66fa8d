"""The encoders under the networks: a classifier, cut into features of up to five strides."""

from __future__ import annotations

import difflib
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
from keras import KerasTensor, layers

from maskfleet.config import TrainConfig
from maskfleet.encoder_weights import weights_file
from maskfleet.environment import ENCODER_WEIGHTS_VARIABLE
from maskfleet.errors import BadSettings
from maskfleet.image_size import Size
from maskfleet.text import one_line
from trainer.cache_folder import cache_root, locked
from trainer.models.bands import of_bands, take_weights
from trainer.models.dilation import dilate
from trainer.models.mix_transformer import STAGES, mix_transformer

STRIDES = (2, 4, 8, 16, 32)
COARSEST = STRIDES[-1]
_ANY_SIDE = 224


def _rescaled(pixels: KerasTensor, scale: float | Sequence[float], offset: float | Sequence[float]) -> KerasTensor:
    """``scale`` and ``offset``: of all bands, or of red, green and blue."""
    scale, offset = (
        value if isinstance(value, float) or pixels.shape[-1] == 3 else of_bands(value, pixels.shape[-1])
        for value in (scale, offset)
    )
    return layers.Rescaling(scale, offset, dtype="float32", name="scale_pixels")(pixels)


def _to_minus_one_and_one(pixels: KerasTensor) -> KerasTensor:
    return _rescaled(pixels, 1 / 127.5, -1.0)


def _to_unit(pixels: KerasTensor) -> KerasTensor:
    return _rescaled(pixels, 1 / 255, 0.0)


def _standardize(pixels: KerasTensor) -> KerasTensor:
    """Each channel less ImageNet's mean, over its standard deviation, as in PyTorch."""
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    scale = [1 / 255 / d for d in deviation]
    offset = [-m / d for m, d in zip(mean, deviation, strict=True)]
    return _rescaled(pixels, scale, offset)


def _to_caffe(pixels: KerasTensor) -> KerasTensor:
    """Blue, green, red, each less ImageNet's mean, as in Caffe; other bands than three in the order they have."""
    scaled = _rescaled(pixels, 1.0, [-123.68, -116.779, -103.939])
    return keras.ops.flip(scaled, axis=-1) if pixels.shape[-1] == 3 else scaled


@dataclass(frozen=True)
class _Architecture:
    """Where to take the features, and how pixels 0..255 become what it was trained with.

    Attributes:
        taps: layers of strides up to 32, each twice the one before.
        whole: dilated, its coarsest features are those of the classifier's last layer, as in its paper.
    """

    build: Callable[..., keras.Model]
    taps: tuple[str, ...]
    scale: Callable[[KerasTensor], KerasTensor]
    whole: bool = False

    def tap(self, stride: int) -> str:
        """The layer whose features have ``stride``."""
        return self.taps[STRIDES.index(stride) - len(STRIDES)]


def _mix_transformer(widths: Sequence[int], depths: Sequence[int]) -> _Architecture:
    return _Architecture(
        partial(mix_transformer, widths, depths), tuple(f"stage_{stage}" for stage in STAGES), _standardize
    )


_ARCHITECTURES: Mapping[str, _Architecture] = {
    "mobilenet_v2": _Architecture(
        keras.applications.MobileNetV2,
        (
            "block_1_expand_relu",
            "block_3_expand_relu",
            "block_6_expand_relu",
            "block_13_expand_relu",
            "block_16_project",
        ),
        _to_minus_one_and_one,
    ),
    "mobilenet_v3": _Architecture(
        partial(keras.applications.MobileNetV3Large, include_preprocessing=False),
        (
            "expanded_conv_add",
            "expanded_conv_2_add",
            "expanded_conv_5_add",
            "expanded_conv_11_add",
            "expanded_conv_14_add",
        ),
        _to_minus_one_and_one,
        whole=True,
    ),
    "efficientnet_v2_b0": _Architecture(
        partial(keras.applications.EfficientNetV2B0, include_preprocessing=False),
        ("block1a_project_activation", "block2b_add", "block3b_add", "block5e_add", "block6h_add"),
        _standardize,
    ),
    "resnet50": _Architecture(
        keras.applications.ResNet50,
        ("conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
        _to_caffe,
    ),
    "vgg16": _Architecture(
        keras.applications.VGG16,
        ("block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3", "block5_pool"),
        _to_caffe,
    ),
    "mit_b0": _mix_transformer((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": _mix_transformer((64, 128, 320, 512), (2, 2, 2, 2)),
    "mit_b2": _mix_transformer((64, 128, 320, 512), (3, 4, 6, 3)),
}


"""Names the file of ImageNet weights that a container image may have been built with; a pod then downloads none."""


def build_encoder(config: TrainConfig, strides: Sequence[int] = STRIDES, output_stride: int = COARSEST) -> keras.Model:
    """Pixels [b, H, W, bands] in 0..255, of ``config.image_size`` -> features of ``strides``, finest first.

    Each side is padded to a multiple of 32, so that the features have the size P / stride, P being the padded size.

    Args:
        output_stride: 8 or 16: the features that would be coarser have this stride, by dilation.

    Raises:
        BadSettings: the weights can't be read or downloaded, or there is no layer to unfreeze from.
    """
    architecture = _ARCHITECTURES[config.encoder]
    pixels = keras.Input((*config.image_size, config.bands), name="pixels", dtype="float32")
    # The scaling is part of the network: evaluation, export and prediction can't get it wrong.
    x = _to_unit(pixels) if config.input_range == "unit" else architecture.scale(pixels)
    if any(map(any, around := padding(config.image_size))):
        x = layers.ZeroPadding2D(around, dtype="float32", name="pad")(x)
    if config.bands != 3 and config.encoder_weights != "none":
        classifier = architecture.build(include_top=False, weights=None, input_tensor=x)
        colours = keras.Input((_ANY_SIDE, _ANY_SIDE, 3), dtype="float32")  # which no weight hangs on
        blue_first = architecture.scale is _to_caffe and config.input_range != "unit"
        take_weights(classifier, _classifier(config, colours), blue_first=blue_first)
    else:
        classifier = _classifier(config, x)
    if not config.encoder_is_trained:
        # Keras's momentum of .99 and more suits ImageNet's million steps; here the statistics would not move.
        for layer in classifier.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = config.batch_norm_momentum
    features = {stride: architecture.tap(stride) for stride in strides}
    if output_stride < COARSEST:
        if architecture.whole:
            features[COARSEST] = classifier.layers[-1].name
        classifier = dilate(classifier, architecture.taps, output_stride)
    outputs = [classifier.get_layer(tap).output for tap in features.values()]
    encoder = keras.Model(classifier.inputs, outputs, name="encoder")
    _freeze(encoder, config)
    return encoder


def _classifier(config: TrainConfig, x: KerasTensor) -> keras.Model:
    """The encoder's network over ``x``, with the weights that ``config`` asks for; trained ones want three bands."""
    architecture = _ARCHITECTURES[config.encoder]
    if config.encoder_weights == "imagenet":
        return _with_baked_weights(architecture, x, config.encoder) or _with_imagenet_weights(architecture, x)
    classifier = architecture.build(include_top=False, weights=None, input_tensor=x)
    if config.encoder_weights != "none":
        _load_weights(classifier, config.encoder_weights, config.encoder)
    return classifier


def padding(size: Size) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows to add above and below, and columns to the left and right, to reach multiples of 32."""
    (top, bottom), (left, right) = (
        (missing // 2, missing - missing // 2) for missing in (-side % COARSEST for side in size)
    )
    return (top, bottom), (left, right)


def _freeze(encoder: keras.Model, config: TrainConfig) -> None:
    """Leaves the layers from ``config.unfreeze_from`` on to be trained.

    Batch normalisation that was trained stays in inference mode: the statistics of small batches of few images
    would destroy what the other weights rely on.
    """
    names = [layer.name for layer in encoder.layers]
    start = config.unfreeze_from
    if start == "none":
        encoder.trainable = False
        return
    taps = _ARCHITECTURES[config.encoder].taps
    strides = STRIDES[-len(taps) : -1]
    after = {f"stride-{stride}": names.index(tap) + 1 for stride, tap in zip(strides, taps, strict=False)}
    first_layers = {name: number for number, name in enumerate(names)} | after | {"all": 0}
    if start not in first_layers:
        near = difflib.get_close_matches(start, first_layers, n=1, cutoff=0)
        raise BadSettings(
            f"--unfreeze-from {start}: expected 'all', 'none', stride-N for N of {', '.join(map(str, strides))}, or "
            f"a layer of {config.encoder}, found no such layer; did you mean {near[0]}?"
        )
    first = first_layers[start]
    trained = config.encoder_is_trained
    for number, layer in enumerate(encoder.layers):
        keep = trained and isinstance(layer, layers.BatchNormalization)
        layer.trainable = number >= first and not keep


def _load_weights(classifier: keras.Model, source: str, encoder: str) -> None:
    path, start, size = weights_file(source), b"", None
    try:
        with path.open("rb") as file:
            start, size = file.read(64).lstrip(), os.fstat(file.fileno()).st_size
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # of layers that would keep their random weights
            classifier.load_weights(path)
    except (ValueError, OSError, KeyError, TypeError, zipfile.BadZipFile, UserWarning) as error:
        found = one_line(str(error))
        if start.startswith(b"<"):
            found = "found a page of HTML or XML; download the file itself"
        elif size == 0:
            found = "found an empty file; copy or download it again"
        elif "file signature not found" in found:
            found = "found no HDF5 file"
        elif "truncated file" in found or isinstance(error, zipfile.BadZipFile):
            found = "found a file that is cut or damaged; copy or download it again"
        elif isinstance(error, UserWarning):
            found = "found those of another network, or in the format of earlier versions (then call it NAME.h5)"
        raise BadSettings(
            f"--encoder-weights {source}: expected Keras weights (.h5) of {encoder} without its top: {found}"
        ) from error


def _with_baked_weights(architecture: _Architecture, x: KerasTensor, encoder: str) -> keras.Model | None:
    """With the weights in the container's image; None if there are none, or of another encoder."""
    baked = os.environ.get(ENCODER_WEIGHTS_VARIABLE)
    if not baked or not Path(baked).is_file():
        return None
    classifier = architecture.build(include_top=False, weights=None, input_tensor=x)
    try:
        _load_weights(classifier, baked, encoder)
    except BadSettings as error:
        print(f"the weights in this image are not used: {error}", flush=True)
        return None
    return classifier


def _with_imagenet_weights(architecture: _Architecture, x: KerasTensor) -> keras.Model:
    """With the weights that keras.applications offers for the size nearest to the input's."""
    try:
        # Keras downloads to the final name: a second worker on this machine would read half a file.
        with locked(cache_root() / ".encoder-weights.lock"):
            return architecture.build(include_top=False, weights="imagenet", input_shape=x.shape[1:], input_tensor=x)
    except OSError as error:
        raise BadSettings(
            f"--encoder-weights imagenet: the copy in Keras's cache (~/.keras/models) can't be read, delete it: "
            f"{one_line(str(error))}"
        ) from error
    except Exception as error:  # keras.utils.get_file raises Exception itself
        if "fetch failure" not in str(error):
            raise
        raise BadSettings(
            "--encoder-weights imagenet: can't download them (is there a network?); give a FILE of weights, "
            f"or 'none' to start from random ones: {one_line(str(error))}"
        ) from error
