"""Whatever makes training faster gives the losses that the plain computation gives."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from maskfleet.config import TrainConfig
from tests.helpers.training_steps import losses, set_up
from trainer.data.cache import Dataset, load_dataset

STEPS = 50


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("synthetic", None, 32)


def losses_of(dataset: Dataset, *, fused: bool, **settings: Any) -> list[float]:
    # Statistics of small batches and large steps would let any difference in the last bit grow without end.
    steady = {"normalization": "frozen", "optimizer": "sgd", "learning_rate": 1e-2}
    config = TrainConfig(image_size=32, zoom=0.0, colour=0.0, **steady, **settings)
    return list(itertools.islice(losses(set_up(config, dataset, fused=fused)), STEPS))


@pytest.mark.parametrize(
    ("model", "upsampling"), [("unet", "transposed"), ("unet", "bilinear"), ("deeplabv3plus", "bilinear")]
)
def test_a_fused_decoder_gives_the_same_losses(dataset: Dataset, model: str, upsampling: str) -> None:
    settings = {"model": model, "upsampling": upsampling, "unfreeze_from": "none", "cache_features": False}
    plain = losses_of(dataset, fused=False, **settings)
    np.testing.assert_allclose(losses_of(dataset, fused=True, **settings), plain, rtol=1e-5)
    assert plain[-1] < plain[0]


def test_an_encoder_that_is_trained_behind_frozen_statistics_gives_the_same_losses(
    dataset: Dataset, tmp_path: Path
) -> None:
    file = tmp_path / "encoder.weights.h5"
    keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3)).save_weights(file)
    settings = {"encoder_weights": str(file), "unfreeze_from": "stride-8"}
    plain = losses_of(dataset, fused=False, **settings)
    np.testing.assert_allclose(losses_of(dataset, fused=True, **settings), plain, rtol=1e-5)
    assert plain[-1] < plain[0]


@pytest.mark.parametrize(
    ("model", "flip", "precision"),
    [("unet", "random", "float32"), ("unet", "frozen", "bfloat16"), ("lraspp", "random", "float32")],
)
def test_cached_features_give_the_same_bits(dataset: Dataset, model: str, flip: str, precision: str) -> None:
    settings = {"model": model, "unfreeze_from": "none", "flip": flip, "precision": precision}
    cached = losses_of(dataset, fused=True, cache_features=True, **settings)
    assert cached == losses_of(dataset, fused=True, cache_features=False, **settings)


@pytest.mark.parametrize("unfreeze_from", ["none", "all"])
def test_several_steps_in_one_call_give_the_same_bits(dataset: Dataset, unfreeze_from: str) -> None:
    one_by_one = losses_of(dataset, fused=True, unfreeze_from=unfreeze_from)
    assert losses_of(dataset, fused=True, unfreeze_from=unfreeze_from, steps_per_call=7) == one_by_one


@pytest.mark.parametrize(
    "settings",
    [
        {"unfreeze_from": "none"},
        {"unfreeze_from": "none", "upsampling": "transposed", "loss": "focal+dice"},
        {"model": "fcn8s", "unfreeze_from": "none", "loss": "lovasz"},
    ],
)
def test_a_network_that_xla_compiles_gives_the_same_losses(dataset: Dataset, settings: dict[str, Any]) -> None:
    plain = losses_of(dataset, fused=True, **settings)
    np.testing.assert_allclose(losses_of(dataset, fused=True, xla=True, **settings), plain, rtol=1e-5)
