"""From the raw folder of every layout and format to the score of ``trainer evaluate``, held against numpy alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from maskfleet.config import TrainConfig
from maskfleet.image_size import Size
from tests.helpers.data_folders import picture
from tests.helpers.layouts import LAYOUTS, Layout
from trainer.cli import main
from trainer.data.cache import Dataset, load_dataset
from trainer.data.source import IGNORED, Reading

SIDE = 32


def opened(layout: Layout, place: Path, cache: Path) -> Dataset:
    config = TrainConfig.from_sources([], TrainConfig.parse_flags(["--data", str(place), *layout.flags]))
    return load_dataset(config.data, None, Size(SIDE, SIDE), cache, reading=Reading.of(config))


def at_input_size(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The label under the middle of each of the network's pixels."""
    rows, columns = ((np.arange(SIDE) + 0.5) * side / SIDE for side in mask.shape)
    return mask[rows.astype(int)][:, columns.astype(int)]


def number(name: str) -> int:
    return int(re.findall(r"\d+", name.rpartition("/")[2])[-1])


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.id)
def test_what_is_trained_on_is_what_numpy_makes(layout: Layout, tmp_path: Path) -> None:
    """Pictures, masks and names of all splits; another worker's own reading of the same files gives the same bits."""
    place = layout.write(tmp_path / "set")
    dataset = opened(layout, place, tmp_path / "cache")
    assert len(dataset.classes) == layout.classes
    for split in dataset.splits.values():
        for name, image, mask in zip(split.names, split.images, split.masks, strict=True):
            np.testing.assert_array_equal(mask, at_input_size(layout.truth(number(name))))
            expected = picture(number(name)).resize((SIDE, SIDE), PIL.Image.Resampling.BILINEAR)
            assert np.abs(image.astype(int) - np.asarray(expected)).mean() < 9, "JPEG and scaling alone differ"
    another = opened(layout, place, tmp_path / "another cache")
    assert another.fingerprint == dataset.fingerprint
    for name, split in dataset.splits.items():
        assert another.splits[name].names == split.names
        np.testing.assert_array_equal(another.splits[name].images, split.images)
        np.testing.assert_array_equal(another.splits[name].masks, split.masks)


@pytest.mark.parametrize("layout", [each for each in LAYOUTS if not each.flags], ids=lambda layout: layout.id)
def test_evaluate_scores_every_layout_as_numpy_does(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of one matrix, whose predictions numpy makes too, counted over the judging split's own pictures."""
    place = layout.write(tmp_path / "set")
    weights = np.random.default_rng(3).normal(size=(1, 1, 3, layout.classes)).astype(np.float32)
    image = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(image, keras.layers.Conv2D(layout.classes, 1, use_bias=False)(image))
    model.set_weights([weights])
    model.save(tmp_path / "network.keras")
    monkeypatch.setenv("MASKFLEET_CACHE", str(tmp_path / "cache"))
    command = ["evaluate", str(tmp_path / "network.keras"), "--data", str(place), "--size=network", "-o", "json"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    dataset = opened(layout, place, tmp_path / "cache")
    assert found["images"] == len(dataset.judges)
    matrix = np.zeros((layout.classes, layout.classes), int)
    for name, pixels in zip(dataset.judges.names, dataset.judges.images, strict=True):
        scaled = pixels.astype(np.float32)
        predicted = (scaled @ weights[0, 0]).argmax(axis=-1)
        expected = at_input_size(layout.truth(number(name)))
        known = expected != IGNORED
        np.add.at(matrix, (expected[known], predicted[known]), 1)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - matrix.diagonal()
    assert found["miou"] == pytest.approx((matrix.diagonal()[union > 0] / union[union > 0]).mean(), abs=2e-3)
    assert found["pixel_accuracy"] == pytest.approx(matrix.trace() / matrix.sum(), abs=2e-3)
