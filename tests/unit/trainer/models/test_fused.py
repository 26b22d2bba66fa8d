"""The network in fewer operations: the same function of the same variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from tests.unit.trainer.models.test_network import DECODERS, MODELS, decoder_inputs
from trainer.models.enlarging import ProductTransposedConvolution, enlarging_taps
from trainer.models.fused import NormalizedConvolution, fuse, is_graph
from trainer.models.inference import logits_of
from trainer.models.network import build_network, dtype_policy

KINDS = ("nearest", "bilinear", "bicubic")


def value_and_gradients(model: keras.Model, inputs: list[tf.Tensor]) -> list[np.ndarray]:
    """The output, and the gradients of its square with respect to variables and inputs."""

    @tf.function(autograph=False)
    def run(*inputs: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            output = model(list(inputs), training=True)
            loss = tf.reduce_sum(output**2)
        return [output, *tape.gradient(loss, [*model.trainable_variables, *inputs])]

    return [value.numpy() for value in run(*inputs)]


def assert_same(model: keras.Model, inputs: list[tf.Tensor], **options: Any) -> None:
    fused = fuse(model, **options)
    assert len(fused.layers) < len(model.layers), "nothing was fused"
    assert_same_results(fused, model, inputs)


def assert_same_results(fused: keras.Model, model: keras.Model, inputs: list[tf.Tensor]) -> None:
    assert {id(variable) for variable in fused.variables} == {id(variable) for variable in model.variables}
    for plain, fast in zip(value_and_gradients(model, inputs), value_and_gradients(fused, inputs), strict=True):
        np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=2e-6 * np.abs(plain).max())


def skip_and_features(size: int) -> tuple[list[Any], list[tf.Tensor]]:
    shapes = (size, size + 1, 5), (size, size + 1, 3)
    generator = tf.random.Generator.from_seed(1)
    return [keras.Input(shape) for shape in shapes], [generator.normal((2, *shape)) for shape in shapes]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "filters"), [(1, 4), (4, 33), (6, 2), (9, 18)])
def test_interpolation_and_convolution_are_one(kind: str, size: int, filters: int) -> None:
    symbols, values = skip_and_features(size)
    x = keras.layers.Concatenate()(symbols)
    x = keras.layers.UpSampling2D(2, interpolation=kind)(x)
    model = keras.Model(symbols, keras.layers.Conv2D(filters, 3, padding="same", bias_initializer="ones")(x))
    assert_same(model, values)


def test_a_transposed_convolution_is_split_where_the_features_are_frozen() -> None:
    symbols, values = skip_and_features(4)
    x = keras.layers.Concatenate()(symbols)
    layer = keras.layers.Conv2DTranspose(7, 3, strides=2, padding="same", bias_initializer="ones")
    assert_same(keras.Model(symbols, layer(x)), values, frozen_features=True)


@pytest.mark.parametrize(("size", "filters"), [(1, 4), (4, 33), (6, 2)])
def test_a_transposed_convolution_is_a_product(size: int, filters: int) -> None:
    symbols, values = skip_and_features(size)
    layer = keras.layers.Conv2DTranspose(filters, 3, strides=2, padding="same", bias_initializer="ones")
    plain = keras.Model(symbols, layer(keras.layers.Concatenate()(symbols)))
    assert_same_results(keras.Model(symbols, ProductTransposedConvolution(layer)(symbols)), plain, values)


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_in_bfloat16_what_enlarges_gives_float32_of_the_same_values(upsampling: str) -> None:
    config = TrainConfig(upsampling=upsampling, decoder_filters=64)
    with dtype_policy("bfloat16"):
        features = decoder_inputs("unet", 64, 64)
        halves = [keras.layers.ReLU()(each) for each in features]
        model = keras.Model(features, DECODERS["unet"](halves, 4, config))
    values = [np.random.default_rng(0).normal(size=(2, *each.shape[1:])).astype(np.float32) for each in features]
    fast, plain = fuse(model, frozen_features=True)(values), model(values)
    assert fast.dtype == tf.float32
    np.testing.assert_allclose(fast, plain, atol=0.02 * np.abs(plain).max())


@pytest.mark.parametrize(
    "convolution",
    [
        keras.layers.Conv2D(2, 5, padding="same"),
        keras.layers.Conv2D(2, 3, padding="valid"),
        keras.layers.Conv2D(2, 3, padding="same", strides=2),
        keras.layers.Conv2D(2, 3, padding="same", dilation_rate=2),
        keras.layers.Conv2D(4, 3, padding="same", groups=4),
        keras.layers.Conv2D(2, 3, padding="same", activation="relu"),
    ],
)
def test_another_convolution_stays_as_it_is(convolution: keras.layers.Layer) -> None:
    symbols, values = skip_and_features(4)
    x = keras.layers.UpSampling2D(2, interpolation="bilinear")(keras.layers.Concatenate()(symbols))
    model = keras.Model(symbols, convolution(x))
    np.testing.assert_array_equal(fuse(model, frozen_features=True)(values), model(values))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("upsampling", ["transposed", *KINDS])
def test_every_decoder_computes_the_same(name: str, upsampling: str) -> None:
    features = decoder_inputs(name, 32, 64)
    model = keras.Model(features, DECODERS[name](features, 4, TrainConfig(model=name, upsampling=upsampling)))
    values = [np.random.default_rng(0).normal(size=(2, *each.shape[1:])).astype(np.float32) for each in features]
    np.testing.assert_allclose(fuse(model, frozen_features=True)(values), model(values), atol=1e-5)


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_product_is_split_and_done_before_features_are_enlarged(use_bias: bool) -> None:
    symbols = [keras.Input((4, 8, 5)), keras.Input((2, 4, 3)), keras.Input((1, 1, 6))]
    enlarged = keras.layers.UpSampling2D(2, interpolation="bilinear")(symbols[1])
    everywhere = keras.layers.UpSampling2D((4, 8))(symbols[2])
    x = keras.layers.Concatenate()([symbols[0], enlarged, everywhere])
    product = keras.layers.Conv2D(7, 1, use_bias=use_bias, bias_initializer="ones")
    generator = tf.random.Generator.from_seed(1)
    assert_same(keras.Model(symbols, product(x)), [generator.normal((2, *each.shape[1:])) for each in symbols])


@pytest.mark.parametrize("rate", [3, 7, 8])
def test_a_kernel_that_is_dilated_beyond_the_image_is_its_centre(rate: int) -> None:
    image = keras.Input((4, 8, 5))
    layer = keras.layers.DepthwiseConv2D(3, padding="same", dilation_rate=rate, bias_initializer="ones")
    model = keras.Model(image, layer(image))
    fused = fuse(model)
    assert (layer in fused.layers) == (rate < 8)
    assert_same_results(fused, model, [tf.random.Generator.from_seed(1).normal((2, 4, 8, 5))])


def test_what_reads_beyond_an_end_reads_nothing() -> None:
    before, same, after = enlarging_taps(2, "nearest").transpose(1, 0, 2)
    np.testing.assert_array_equal(same, [[1, 0], [1, 0], [0, 1], [0, 1]])
    np.testing.assert_array_equal(before, [[0, 0], [1, 0], [1, 0], [0, 1]])
    np.testing.assert_array_equal(after, [[1, 0], [0, 1], [0, 1], [0, 0]])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("trainable", [True, False])
def test_batch_normalisation_is_one_kernel_and_keeps_the_same_statistics(training: bool, trainable: bool) -> None:
    def network() -> keras.Model:
        layer = keras.layers.BatchNormalization(momentum=0.7, trainable=trainable)
        image = keras.Input((3, 4, 2))
        model = keras.Model(image, layer(image))
        for variable, start in zip(layer.weights, ([2.0, 3.0], [4.0, 5.0], [0.5, -0.5], [1.5, 2.5]), strict=True):
            variable.assign(start)
        return model

    x = tf.random.Generator.from_seed(0).normal((5, 3, 4, 2), 1.0, 2.0)
    plain, fused = network(), network()
    y = fuse(fused)(x, training=training)
    np.testing.assert_allclose(y, plain(x, training=training), atol=1e-5)
    for changed, expected in zip(fused.variables, plain.variables, strict=True):
        np.testing.assert_allclose(changed, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "convolution",
    [
        keras.layers.Conv2D(5, 1, use_bias=False),
        keras.layers.Conv2D(4, 3, padding="same", strides=2, bias_initializer="ones"),
        keras.layers.Conv2D(4, 3, padding="same", dilation_rate=2, use_bias=False),
        keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False),
        keras.layers.DepthwiseConv2D(3, padding="same", dilation_rate=2),
        keras.layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, bias_initializer="ones"),
    ],
)
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_frozen_statistics_scale_the_convolution_before_them(convolution: keras.layers.Layer, precision: str) -> None:
    convolution = convolution.__class__.from_config({**convolution.get_config(), "dtype": precision})
    layer = keras.layers.BatchNormalization(trainable=False, dtype=precision)
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, layer(convolution(image)))
    generator = np.random.default_rng(0)
    for variable in layer.weights:
        variable.assign(generator.uniform(0.5, 2.0, variable.shape))
    pixels = tf.constant(generator.normal(size=(2, 8, 8, 3)), tf.float32)
    if precision == "float32":
        assert_same(model, [pixels])
    else:
        np.testing.assert_allclose(
            tf.cast(fuse(model)(pixels), tf.float32), tf.cast(model(pixels), tf.float32), rtol=0.05, atol=0.05
        )


def test_a_convolution_that_another_layer_reads_too_stays() -> None:
    image = keras.Input((4, 4, 2))
    convolved = keras.layers.Conv2D(2, 3, padding="same")(image)
    normalized = keras.layers.BatchNormalization(trainable=False)(convolved)
    model = keras.Model(image, keras.layers.Concatenate()([convolved, normalized]))
    assert_same_results(fuse(model), model, [tf.ones((1, 4, 4, 2))])


@pytest.mark.parametrize("encoder", ["mobilenet_v3", "efficientnet_v2_b0", "resnet50", "vgg16", "mit_b0"])
def test_every_encoder_computes_the_same(encoder: str) -> None:
    model = "segformer" if encoder == "mit_b0" else "unet"
    config = TrainConfig(model=model, encoder=encoder, encoder_weights="none", image_size=32, unfreeze_from="none")
    network = build_network(config, classes=2)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    for fused, plain in zip(network.fused_encoder(pixels), network.encoder(pixels), strict=True):
        np.testing.assert_allclose(fused, plain, rtol=1e-3, atol=1e-3 * np.abs(plain).max())


def test_a_layer_that_is_used_twice_is_fused_twice() -> None:
    symbols, values = skip_and_features(4)
    enlarge, convolve = keras.layers.UpSampling2D(2), keras.layers.Conv2D(8, 3, padding="same", use_bias=False)
    product, normalize = keras.layers.Conv2D(8, 1), keras.layers.BatchNormalization()
    x = keras.layers.Concatenate()(symbols)
    for _ in range(2):
        x = product(keras.layers.Concatenate()([normalize(convolve(enlarge(x)))] * 2))
    model = keras.Model(symbols, x)
    np.testing.assert_allclose(fuse(model)(values), model(values), atol=1e-5)


@pytest.mark.parametrize("layer", [
    keras.layers.Conv2D(3, 1),
    keras.layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
    keras.Sequential([keras.layers.UpSampling2D(2), keras.layers.Conv2D(3, 3, padding="same")]),
])  # fmt: skip
@pytest.mark.parametrize("axis", [1, 2])
def test_features_beside_each_other_are_not_their_channels(layer: keras.Layer, axis: int) -> None:
    symbols = [keras.Input((4, 4, 5)), keras.Input((4, 4, 5))]
    x = keras.layers.Concatenate(axis=axis)(symbols)
    for each in layer.layers if isinstance(layer, keras.Sequential) else [layer]:
        x = each(x)
    model = keras.Model(symbols, x)
    generator = tf.random.Generator.from_seed(1)
    values = [generator.normal((2, 4, 4, 5)) for _ in symbols]
    assert_same_results(fuse(model, frozen_features=True), model, values)


def test_single_places_are_enlarged_where_there_is_nothing_else() -> None:
    symbols = [keras.Input((1, 1, 5)), keras.Input((1, 1, 3))]
    x = keras.layers.Concatenate()([keras.layers.UpSampling2D((4, 8))(each) for each in symbols])
    generator = tf.random.Generator.from_seed(1)
    values = [generator.normal((2, *each.shape[1:])) for each in symbols]
    assert_same(keras.Model(symbols, keras.layers.Conv2D(7, 1)(x)), values)


def doubling(kind: type[keras.Layer]) -> type[keras.Layer]:
    """A class as users write them: one of Keras's that computes something else."""

    class Doubling(kind):  # type: ignore[misc,valid-type]
        def call(self, inputs: Any) -> Any:
            return 2 * super().call(inputs)

    return Doubling


class DoublingNormalization(keras.layers.BatchNormalization):
    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return 2 * super().call(inputs, training=training)


class DoublingModel(keras.Model):
    def call(self, *args: Any, **kwargs: Any) -> Any:
        return 2 * super().call(*args, **kwargs)


def own_model(x: Any) -> Any:
    image = keras.Input(x.shape[1:])
    return DoublingModel(image, keras.layers.Conv2D(3, 1)(image))(x)


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize(
    "block",
    [
        lambda x: keras.layers.BatchNormalization()(doubling(keras.layers.Conv2D)(3, 1)(x)),
        lambda x: keras.layers.BatchNormalization()(doubling(keras.layers.DepthwiseConv2D)(3, padding="same")(x)),
        lambda x: DoublingNormalization()(keras.layers.Conv2D(3, 1)(x)),
        lambda x: doubling(keras.layers.Conv2D)(3, 3, padding="same")(keras.layers.UpSampling2D(2)(x)),
        lambda x: keras.layers.Conv2D(3, 3, padding="same")(doubling(keras.layers.UpSampling2D)(2)(x)),
        lambda x: keras.layers.Conv2D(3, 1)(doubling(keras.layers.Concatenate)()([x, x])),
        lambda x: doubling(keras.layers.DepthwiseConv2D)(3, padding="same", dilation_rate=4)(x),
        lambda x: doubling(keras.layers.Conv2DTranspose)(3, 3, strides=2, padding="same")(x),
        own_model,
    ],
)
def test_a_user_s_own_class_stays_as_it_is(block: Callable[[Any], Any], learns: bool) -> None:
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, block(image))
    generator = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(generator.uniform(0.5, 2.0, variable.shape))
    pixels = tf.constant(generator.normal(size=(2, 4, 4, 3)), tf.float32)
    plain = model(pixels, training=learns)
    np.testing.assert_allclose(fuse(model, learns=learns)(pixels, training=learns), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("encoder", ["mobilenet_v2", "resnet50"])
def test_a_network_that_learns_no_more_computes_the_same_with_its_statistics_folded(name: str, encoder: str) -> None:
    config = TrainConfig(model=name, encoder=encoder, encoder_weights="none", image_size=32, unfreeze_from="all")
    model = build_network(config, classes=3).model
    generator = np.random.default_rng(0)
    for variable in model.variables:
        if "moving_" in variable.path or "/gamma" in variable.path:
            variable.assign(generator.uniform(0.8, 1.2, variable.shape))
    images = tf.constant(generator.integers(0, 256, (2, 32, 32, 3), np.uint8))
    plain = model(images, training=False)
    np.testing.assert_allclose(logits_of(model)(images), plain, rtol=1e-4, atol=1e-5 * np.abs(plain).max())
    kinds = {type(layer) for part in fuse(model, learns=False).layers if is_graph(part) for layer in part.layers}
    assert NormalizedConvolution in kinds
