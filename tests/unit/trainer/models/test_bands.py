"""An encoder whose weights were trained on three bands, on pictures of more and of fewer."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from maskfleet.config import TrainConfig
from trainer.models.bands import adapted_kernel
from trainer.models.encoders import build_encoder
from trainer.models.network import build_network

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file: Path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(file)
    return file


def test_the_kernel_follows_the_formula() -> None:
    kernel = RANDOM.normal(size=(3, 3, 3, 8)).astype(np.float32)
    mean = kernel.mean(axis=2)
    np.testing.assert_allclose(adapted_kernel(kernel, 1)[:, :, 0], 3 * mean, rtol=1e-5)
    np.testing.assert_allclose(adapted_kernel(kernel, 2)[:, :, 1], 1.5 * mean, rtol=1e-5)
    five = adapted_kernel(kernel, 5)
    np.testing.assert_allclose(five[:, :, :3], 0.6 * kernel, rtol=1e-5)
    np.testing.assert_allclose(five[:, :, 4], 0.6 * mean, rtol=1e-5)


@pytest.mark.parametrize("bands", [1, 2, 4, 7])
def test_grey_has_the_features_that_it_had_of_three_bands(bands: int, weights: Path) -> None:
    grey = RANDOM.integers(0, 256, (2, 32, 32, 1)).astype(np.float32)
    coarsest = {}
    for count in (3, bands):
        config = TrainConfig(data="folder:x", encoder_weights=str(weights), image_size=32, bands=count)
        coarsest[count] = build_encoder(config)([np.repeat(grey, count, axis=-1)])[-1]
    np.testing.assert_allclose(coarsest[bands], coarsest[3], rtol=1e-3, atol=1e-4)
    assert np.std(coarsest[3]) > 0


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "resnet50"])
def test_random_weights_take_any_bands(encoder: str) -> None:
    config = TrainConfig(data="folder:x", encoder_weights="none", encoder=encoder, image_size=32, bands=6)
    network = build_network(config, 3)
    assert network.model(np.zeros((1, 32, 32, 6), np.float32)).shape == (1, 32, 32, 3)
