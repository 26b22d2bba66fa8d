"""The cache of a frozen encoder's features: what it holds, when it is used, and when it is made anew."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.image_size import Size
from trainer.data.cache import Dataset, load_dataset
from trainer.models.network import Network, build_network
from trainer.training import features as module
from trainer.training.features import Features, cached_features

FROZEN = {"image_size": "32x64", "encoder_weights": "none", "unfreeze_from": "none", "zoom": 0.0, "colour": 0.0}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKFLEET_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "_in_use", [])
    return tmp_path


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("synthetic", None, Size(32, 64))


@pytest.fixture(scope="module")
def network() -> Network:
    return build_network(TrainConfig(**FROZEN), classes=3)


def features(network: Network, dataset: Dataset, lines: list[str], **settings: Any) -> Features | None:
    config = TrainConfig(**{**FROZEN, **settings})
    return cached_features(config, network, dataset, 7, lines.append, lambda: None)


def folders(cache: Path) -> list[Path]:
    return sorted([*cache.glob("features-*/"), *cache.glob(".features-*/")])


def test_it_holds_the_features_of_images_and_of_their_mirror_images(network: Network, dataset: Dataset) -> None:
    found = features(network, dataset, [])
    assert found is not None
    last = len(dataset.train) - 1
    images = dataset.train.images[[3, last]]
    for flips, pictures in (([False, False], images), ([True, True], images[:, :, ::-1])):
        cached = found.of_training(tf.constant([3, last], tf.int64), tf.constant(flips))
        for values, expected in zip(cached, network.encoder(pictures), strict=True):
            np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-5)
    for values, expected in zip(
        found.of_split("test", tf.range(7, dtype=tf.int64)), network.encoder(dataset.test.images[:7]), strict=True
    ):
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-5)


def test_it_is_computed_once_and_deleted_when_others_are_and_nobody_reads_it(
    network: Network, dataset: Dataset, cache: Path
) -> None:
    lines: list[str] = []
    features(network, dataset, lines)
    (first,) = folders(cache)
    (cache / ".features-0.killed").mkdir()
    features(network, dataset, lines)
    assert len(lines) == 1
    other = build_network(TrainConfig(**FROZEN, seed=1), classes=3)
    features(other, dataset, lines)
    assert len(lines) == 2
    assert len(folders(cache)) == 2, "the first is still in use, what was killed is gone"
    for file in module._in_use:
        file.close()
    third = build_network(TrainConfig(**FROZEN, seed=2), classes=3)
    features(third, dataset, lines)
    (last,) = folders(cache)
    assert last != first


def test_what_a_cleaner_has_left_of_a_cache_is_made_anew_or_deleted(
    network: Network, dataset: Dataset, cache: Path
) -> None:
    assert features(network, dataset, []) is not None
    (folder,) = folders(cache)
    for file in (folder / "used", folder / "train-0"):
        file.unlink()
    (cache / "features-0").mkdir()
    assert features(network, dataset, []) is not None
    assert folders(cache) == [folder]
    assert (folder / "train-0").exists()


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "spoil", "problem"),
    [
        ("train-0", lambda file: os.truncate(file, file.stat().st_size // 2), r"has \d+ bytes instead of \d+"),
        ("train-0", Path.unlink, "is missing"),
        ("test-4", lambda file: file.write_bytes(bytes(file.stat().st_size)), "has other bytes"),
        ("train-3", flip_a_byte, "has other bytes"),
        ("digests.json", Path.unlink, "is missing"),
        ("digests.json", lambda file: file.write_text(""), "can't be read"),
    ],
)
def test_damaged_features_are_made_anew(
    network: Network, dataset: Dataset, cache: Path, name: str, spoil: Callable[[Path], object], problem: str
) -> None:
    first = features(network, dataset, [])
    assert first is not None
    (folder,) = folders(cache)
    contents = {file.name: file.read_bytes() for file in folder.iterdir()}
    spoil(folder / name)
    lines: list[str] = []
    assert features(network, dataset, lines) is not None
    assert re.fullmatch(rf"{folder}: these cached features are damaged \({name} {problem}\) and made anew", lines[0]), (
        lines
    )
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == contents
    assert folders(cache) == [folder]


@pytest.mark.parametrize(
    "settings", [{"zoom": 0.1}, {"colour": 0.1}, {"flip_vertical": True}, {"cache_features": False}]
)
def test_nothing_is_cached_where_images_change_or_nobody_wants_it(
    network: Network, dataset: Dataset, cache: Path, settings: dict[str, Any]
) -> None:
    assert features(network, dataset, [], **settings) is None
    assert folders(cache) == []


def test_a_trained_encoder_has_no_cached_features(dataset: Dataset) -> None:
    network = build_network(TrainConfig(**{**FROZEN, "unfreeze_from": "all"}), classes=3)
    assert features(network, dataset, [], unfreeze_from="all") is None


@pytest.mark.parametrize("resource", ["_SHARE_OF_MEMORY", "_SHARE_OF_DISK"])
def test_what_does_not_fit_is_said_and_not_kept(
    network: Network, dataset: Dataset, cache: Path, resource: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, resource, 0.0)
    lines: list[str] = []
    assert features(network, dataset, lines) is None
    (line,) = lines
    assert line.startswith("the encoder's features are not cached: ")
    assert "are more than 0% of the" in line
    assert folders(cache) == []


def test_a_full_disk_is_said_and_leaves_nothing_behind(
    network: Network, dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "posix_fallocate", full)
    lines: list[str] = []
    assert features(network, dataset, lines) is None
    assert lines[-1].endswith("No space left on device")
    assert folders(cache) == []
