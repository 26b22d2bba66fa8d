"""The networks: the tutorial's parameters, any size and precision, the same weights in every process."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.image_size import parse_size
from maskfleet.settings import Layer
from trainer.models import encoders
from trainer.models import network as network_module
from trainer.models.blocks import image_level
from trainer.models.encoders import build_encoder
from trainer.models.network import Network, build_network, dtype_policy
from trainer.models.upsampling import bilinear_kernel

MODELS = tuple(network_module._KINDS)
DECODERS = {name: kind.decoder for name, kind in network_module._KINDS.items()}


def decoder_inputs(model: str, height: int, width: int, dtype: str = "float32") -> list[keras.KerasTensor]:
    """Of the sizes that the encoder's features have, each with four channels."""
    kind = network_module._KINDS[model]
    strides = [min(stride, 16) if kind.dilated else stride for stride in kind.strides]
    return [keras.Input((height // stride, width // stride, 4), dtype=dtype) for stride in strides]


def config(**settings: Any) -> TrainConfig:
    return TrainConfig(**{"encoder_weights": "none", "image_size": 32, **settings})


@pytest.fixture(scope="module")
def tutorial() -> Network:
    return build_network(config(preset="tutorial", unfreeze_from="none", image_size=128), classes=3)


def pixels(size: int, examples: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (examples, size, size, 3), dtype=np.uint8)


def test_the_unet_has_the_tutorials_parameters(tutorial: Network) -> None:
    assert tutorial.model.count_params() == 6_504_227
    assert sum(int(np.prod(v.shape)) for v in tutorial.model.trainable_variables) == 4_660_323
    parameters = Counter[str]()
    for layer in tutorial.decoder.layers:
        parameters[layer.name.rsplit("_", 1)[0]] += layer.count_params()
    blocks = {name: parameters[name] for name in ("up_1", "up_2", "up_3", "up_4", "logits")}
    assert blocks == {"up_1": 1_476_608, "up_2": 2_507_776, "up_3": 516_608, "up_4": 156_928, "logits": 4_323}


def test_the_encoder_gives_the_tutorials_taps_finest_first(tutorial: Network) -> None:
    shapes = [tuple(output.shape[1:]) for output in tutorial.encoder.outputs]
    assert shapes == [(64, 64, 96), (32, 32, 144), (16, 16, 192), (8, 8, 576), (4, 4, 320)]


def test_the_model_is_the_decoder_after_the_encoder_and_takes_bytes_as_floats(tutorial: Network) -> None:
    images = pixels(128)
    halves = tutorial.decoder(tutorial.encoder(images.astype(np.float32)))
    np.testing.assert_array_equal(tutorial.model(images), halves)


def test_the_frozen_encoder_keeps_its_batch_statistics_in_training(tutorial: Network) -> None:
    images = pixels(128)
    for tap, training in zip(tutorial.encoder(images), tutorial.encoder(images, training=True), strict=True):
        np.testing.assert_array_equal(tap, training)


@pytest.mark.parametrize(("encoder", "downloads"), [("mobilenet_v2", []), ("mobilenet_v3", ["mobilenet_v3"])])
def test_the_image_s_weights_are_used_for_the_encoder_that_they_are_of(
    encoder: Any, downloads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = encoders._ARCHITECTURES["mobilenet_v2"]
    file = tmp_path / "encoder.weights.h5"
    architecture.build(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(file)
    monkeypatch.setenv(encoders.ENCODER_WEIGHTS_VARIABLE, str(file))
    asked: list[str] = []

    def download(architecture: Any, x: Any) -> Any:
        asked.append(encoder)
        return architecture.build(include_top=False, weights=None, input_tensor=x)

    monkeypatch.setattr(encoders, "_with_imagenet_weights", download)
    build_encoder(config(encoder=encoder, encoder_weights="imagenet"))
    assert asked == downloads


@pytest.mark.parametrize(
    ("settings", "lowest", "highest"),
    [({"input_range": "unit"}, 0, 1), ({"input_range": "encoder"}, -1, 1)],
)
def test_pixels_are_scaled_inside_the_encoder(settings: dict[str, Any], lowest: float, highest: float) -> None:
    scale = build_encoder(config(**settings)).get_layer("scale_pixels")
    np.testing.assert_allclose(scale(np.array([0.0, 255.0])), [lowest, highest])


@pytest.mark.parametrize("model", ["unet", "fcn8s"])
@pytest.mark.parametrize(
    ("size", "coarsest"), [("45", (2, 2)), ("45x70", (2, 3)), ("64x33", (2, 2)), ("32x96", (1, 3))]
)
def test_a_size_that_is_no_multiple_of_32_is_padded_and_cropped_back(
    size: str, coarsest: tuple[int, int], model: str
) -> None:
    network = build_network(config(image_size=size, model=model), classes=2)
    assert network.encoder.outputs[-1].shape[1:3] == coarsest
    height, width = parse_size(size)
    images = np.random.default_rng(0).uniform(0, 255, (1, height, width, 3)).astype(np.float32)
    logits = network.model(images)
    assert logits.shape == (1, height, width, 2)
    fused = network.fused_decoder(network.fused_encoder(images))
    np.testing.assert_allclose(fused, logits, atol=1e-3 * np.abs(logits).max() + 1e-6)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_computes_features_but_neither_variables_nor_logits(precision: str) -> None:
    network = build_network(config(precision=precision), classes=2)
    assert {output.dtype for output in network.encoder.outputs} == {precision}
    assert {variable.dtype for variable in network.model.variables} == {"float32"}
    assert network.model(pixels(32)).dtype == "float32"


def test_the_seed_alone_decides_the_initial_weights() -> None:
    first, again, other = (
        build_network(config(seed=seed, model="fcn8s"), classes=2).model.get_weights() for seed in (1, 1, 2)
    )
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert any(not np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def test_instance_normalisation_and_dropout_are_options_of_the_blocks() -> None:
    network = build_network(config(normalization="instance", dropout=True, decoder_filters=128), classes=2)
    norm = network.decoder.get_layer("up_1_norm")
    gamma = np.asarray(norm.gamma)
    assert abs(gamma.mean() - 1) < 0.01
    assert 0.01 < gamma.std() < 0.03
    values = np.random.default_rng(0).normal(3, 5, (2, 4, 4, 128))
    centred = (np.asarray(norm(values)) - np.asarray(norm.beta)) / gamma
    np.testing.assert_allclose(centred.mean((1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(centred.std((1, 2)), 1, atol=1e-3)
    images = pixels(32)
    assert not np.array_equal(network.model(images, training=True), network.model(images, training=False))


def test_with_frozen_normalisation_an_example_s_logits_know_nothing_of_its_batch() -> None:
    network = build_network(config(normalization="frozen"), classes=2)
    images = np.random.default_rng(0).uniform(0, 255, (3, *pixels(32).shape[1:])).astype(np.float32)
    features = network.encoder(images, training=False)
    together = network.decoder(features, training=True)
    alone = network.decoder([feature[:1] for feature in features], training=True)
    np.testing.assert_allclose(alone[0], together[0], atol=1e-6)
    assert not [v.path for v in network.decoder.trainable_variables if "norm" in v.path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--encoder-weights {}: expected 'imagenet', 'none' or a file of Keras weights, found no such file"),
        (b"text", "--encoder-weights {}: expected Keras weights (.h5) of mobilenet_v2 without its top: "),
        (
            b"",
            "--encoder-weights {}: expected Keras weights (.h5) of mobilenet_v2 without its top: "
            "found an empty file; copy or download it again",
        ),
        (
            b"\n<!DOCTYPE html><html>Sign in</html>",
            "--encoder-weights {}: expected Keras weights (.h5) of mobilenet_v2 without its top: "
            "found a page of HTML or XML; download the file itself",
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".keras", ".bin"])
def test_bad_encoder_weights_are_one_line(content: bytes | None, message: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadSettings) as caught:
        build_encoder(config(encoder_weights=str(path)))
    assert str(caught.value).startswith(message.format(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_encoder_weights_that_are_cut_or_of_another_network_are_one_line(suffix: str, tmp_path: Path) -> None:
    path, other = tmp_path / f"weights{suffix}", tmp_path / f"other{suffix}"
    for file, build in ((path, keras.applications.MobileNetV2), (other, keras.applications.MobileNetV3Large)):
        network = build(include_top=False, weights=None)
        network.save(file) if suffix == ".keras" else network.save_weights(file)
    build_encoder(config(encoder_weights=str(path)))
    path.write_bytes(path.read_bytes()[:-1000])
    for file, found in ((path, "found a file that is cut or damaged"), (other, "found those of another network")):
        with pytest.raises(BadSettings) as caught:
            build_encoder(config(encoder_weights=str(file)))
        assert f"without its top: {found}" in str(caught.value)
        assert len(str(caught.value)) < 500


def test_encoder_weights_lie_under_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    keras.applications.MobileNetV2(include_top=False, weights=None).save_weights(tmp_path / "w.weights.h5")
    build_encoder(config(encoder_weights="~/w.weights.h5"))


@pytest.mark.parametrize("upsampling", ["transposed", "nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_decoder_with_every_upsampling_gives_logits_of_any_shape_and_learns(
    model: str, upsampling: str, precision: str
) -> None:
    with dtype_policy(precision):
        inputs = decoder_inputs(model, 32, 64, dtype=precision)
        logits = DECODERS[model](inputs, 4, config(model=model, upsampling=upsampling, dropout=True))
        decoder = keras.Model(inputs, logits)
    with tf.GradientTape() as tape:
        logits = decoder([tf.ones((2, *each.shape[1:])) for each in inputs], training=True)
        loss = tf.reduce_mean(tf.square(logits - 1))
    assert logits.shape == (2, 32, 64, 4)
    assert logits.dtype == tf.float32
    assert all(gradient is not None for gradient in tape.gradient(loss, decoder.trainable_variables))


@pytest.mark.parametrize(
    ("model", "encoder", "classes", "parameters"),
    [
        # Those of torchvision's weights for 21 classes.
        ("lraspp", "mobilenet_v3", 21, 3_221_538),
        # segmentation_models_pytorch for 1 class, and the 26,560 biases of Keras's ResNet50.
        ("deeplabv3plus", "resnet50", 1, 26_677_585 + 26_560),
        # The encoder; by the paper, products to a quarter of the channels, 3 x 3 over twice of them, and the scores.
        ("pspnet", "mobilenet_v2", 21, 1_811_072 + 4 * (320 * 80 + 160) + 9 * 640 * 512 + 1024 + 513 * 21),
        # Those of the SegFormers for ADE20K's 150 classes.
        ("segformer", "mit_b0", 150, 3_752_694),
        ("segformer", "mit_b1", 150, 13_715_798),
        ("segformer", "mit_b2", 150, 27_461_974),
    ],
)
def test_networks_have_the_parameters_of_the_reference(model: str, encoder: str, classes: int, parameters: int) -> None:
    network = build_network(config(model=model, encoder=encoder, image_size=64), classes)
    assert sum(math.prod(variable.shape) for variable in network.model.trainable_variables) == parameters


@pytest.mark.parametrize("encoder", ["mobilenet_v3", "efficientnet_v2_b0", "vgg16"])
def test_every_encoder_can_be_dilated(encoder: str) -> None:
    built = build_encoder(config(encoder=encoder, image_size=45), (4, 8, 16, 32), output_stride=8)
    assert [64 // output.shape[1] for output in built.outputs] == [4, 8, 8, 8]


@pytest.mark.parametrize("model", MODELS)
def test_every_network_takes_a_size_that_no_stride_divides(model: str) -> None:
    network = build_network(config(model=model, image_size=45, output_stride=8), classes=2)
    assert network.model(pixels(45)).shape == (2, 45, 45, 2)


@pytest.mark.parametrize(
    ("encoder", "output_stride", "first"),
    [("mobilenet_v2", 16, 1), ("mobilenet_v2", 8, 3), ("resnet50", 16, 0), ("resnet50", 8, 0), ("vgg16", 16, 0)],
)
def test_a_dilated_encoder_computes_the_same_on_a_finer_grid(encoder: str, output_stride: int, first: int) -> None:
    settings = config(encoder=encoder, image_size=64)
    plain, dilated = build_encoder(settings), build_encoder(settings, output_stride=output_stride)
    dilated.set_weights(plain.get_weights())
    images = pixels(64).astype(np.float32)
    coarse, fine, step = plain(images)[-1], dilated(images)[-1], 32 // output_stride
    np.testing.assert_allclose(fine[:, first::step, first::step], coarse, rtol=1e-4, atol=1e-5 * np.abs(coarse).max())


def test_attention_sees_the_whole_image_and_its_files_load_anywhere(tmp_path: Path) -> None:
    model = build_network(config(model="segformer", encoder="mit_b0", image_size=64), classes=2).model
    image = tf.constant(pixels(64, 1).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(image)
        corner = model(image)[0, 0, 0, 0]
    assert tape.gradient(corner, image)[0, -1, -1, 0] != 0
    model.save(tmp_path / "segformer.keras")
    again = keras.models.load_model(tmp_path / "segformer.keras")
    np.testing.assert_array_equal(again(image), model(image))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "unet", "encoder": "mit_b0"}, "--model unet --encoder mit_b0: expected segformer, fcn8s"),
        ({"model": "pspnet", "encoder": "mit_b2"}, "nothing to dilate; or choose another encoder"),
        ({"model": "segformer", "encoder": "mit_b1", "encoder_weights": "imagenet"}, "give --encoder-weights FILE"),
        ({"output_stride": 32}, "--output-stride: "),
        ({"model": "deeplab"}, "--model: "),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSettings) as caught:
        TrainConfig.resolve([Layer("--{}", {"encoder_weights": "none", **settings})])
    assert said in str(caught.value)


def test_what_stands_for_the_whole_image_is_not_lost_with_one_example_a_step() -> None:
    features = keras.Input((2, 3, 8))
    model = keras.Model(features, image_level(features, 4, "image"))
    one, other = (model(np.random.default_rng(seed).normal(size=(1, 2, 3, 8)), training=True) for seed in (0, 1))
    assert one.shape == (1, 2, 3, 4)
    np.testing.assert_array_equal(one[:, 0, 0], one[:, 1, 2])
    assert np.abs(one - other).max() > 0.1


def test_the_transposed_convolution_of_the_fcn_starts_as_bilinear_interpolation() -> None:
    scores = np.random.default_rng(0).normal(size=(1, 6, 6, 3)).astype(np.float32)
    for factor in (2, 8):
        enlarge = keras.layers.Conv2DTranspose(3, 2 * factor, strides=factor, padding="same", use_bias=False)
        enlarge.build(scores.shape)
        enlarge.kernel.assign(bilinear_kernel(factor, 3))
        expected = tf.image.resize(scores, (6 * factor, 6 * factor))
        inner = slice(factor, -factor)  # at the rim it interpolates to zero
        np.testing.assert_allclose(enlarge(scores)[:, inner, inner], expected[:, inner, inner], atol=1e-5)


@pytest.mark.parametrize("trainable", [True, False])
def test_the_fcn_fuses_scores_and_keeps_fixed_interpolation_if_asked(trainable: bool) -> None:
    network = build_network(config(model="fcn8s", upsampling="transposed", upsampling_trainable=trainable), classes=2)
    trained = {variable.path.split("/")[0] for variable in network.decoder.trainable_variables}
    scores = {"score_32", "score_16", "score_8"}
    assert trained == (scores | {"up_32", "up_16", "logits"} if trainable else scores)
    np.testing.assert_array_equal(network.decoder.get_layer("logits").kernel, bilinear_kernel(8, 2))


@pytest.mark.parametrize("encoder", ["mobilenet_v3", "vgg16"])  # squeeze and excitation; an operation without a layer
def test_a_network_comes_back_from_its_file(encoder: str, tmp_path: Path) -> None:
    model = build_network(config(encoder=encoder, model="fcn8s"), classes=2).model
    model.save(tmp_path / "fcn8s.keras")
    again = keras.models.load_model(tmp_path / "fcn8s.keras")
    np.testing.assert_array_equal(again(pixels(32)), model(pixels(32)))


@pytest.mark.parametrize(
    ("encoder", "preprocess"),
    [
        ("mobilenet_v2", keras.applications.mobilenet_v2.preprocess_input),
        ("resnet50", keras.applications.resnet.preprocess_input),
        ("vgg16", keras.applications.vgg16.preprocess_input),
        ("mobilenet_v3", lambda images: images / 127.5 - 1),
        ("efficientnet_v2_b0", lambda images: (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
    ],
)
def test_every_encoder_sees_the_pixels_it_was_trained_with_and_gives_strides_2_to_32(
    encoder: str, preprocess: Callable[[np.ndarray], np.ndarray]
) -> None:
    built = build_encoder(config(encoder=encoder))
    assert [output.shape[1] for output in built.outputs] == [16, 8, 4, 2, 1]
    first = next(layer for layer in built.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.ZeroPadding2D))
    seen = keras.Model(built.input, first.input)(pixels(32).astype(np.float32))
    np.testing.assert_allclose(seen, preprocess(pixels(32).astype(np.float32)), atol=1e-4)


def test_unfreezing_trains_the_layers_from_there_on_but_no_trained_batch_statistics(tmp_path: Path) -> None:
    random = build_encoder(config(unfreeze_from="all"))
    assert len(random.trainable_variables) == 51 + 2 * 50  # all convolutions; the last one's norm is cut off
    keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3)).save_weights(
        tmp_path / "mobilenet.weights.h5"
    )
    trained = config(encoder_weights=str(tmp_path / "mobilenet.weights.h5"), unfreeze_from="block_16_expand")
    names = [variable.path for variable in build_encoder(trained).trainable_variables]
    assert names == ["block_16_expand/kernel", "block_16_depthwise/kernel", "block_16_project/kernel"]


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "mobilenet_v3", "efficientnet_v2_b0", "resnet50", "vgg16"])
def test_unfreezing_from_a_stride_trains_what_comes_after_its_features(encoder: str) -> None:
    network = build_network(config(encoder=encoder, unfreeze_from="stride-8", encoder_weights="none"), classes=2)
    image = tf.constant(pixels(32).astype(np.float32))
    with tf.GradientTape(persistent=True) as tape:
        features = network.encoder(image)
    trained = network.encoder.trainable_variables
    reached = [any(g is not None for g in tape.gradient(feature, trained)) for feature in features]
    assert reached == [False, False, False, True, True]


def test_random_weights_are_all_trained_unless_something_else_is_asked_for() -> None:
    assert TrainConfig(encoder_weights="none").unfreeze_from == "all"
    assert TrainConfig(encoder_weights="none", unfreeze_from="none").unfreeze_from == "none"
    assert TrainConfig(encoder_weights="none", preset="tutorial").unfreeze_from == "all"
    assert TrainConfig(encoder_weights="imagenet", preset="tutorial").unfreeze_from == "none"
    assert TrainConfig(data="folder:pets").unfreeze_from == "stride-8"


def test_an_unknown_layer_to_unfreeze_from_names_the_nearest() -> None:
    with pytest.raises(
        BadSettings, match=r"--unfreeze-from block_13: expected 'all', 'none', stride-N .* did you mean block_13_"
    ):
        build_encoder(config(unfreeze_from="block_13"))
