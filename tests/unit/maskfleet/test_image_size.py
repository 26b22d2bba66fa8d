"""The size of a network's input, as users and files write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.image_size import Size
from maskfleet.settings import Layer, read_settings_file


def sized(value: Any) -> TrainConfig:
    return TrainConfig.resolve([Layer("--{}", {"image_size": value})])


@pytest.mark.parametrize(
    ("value", "size", "written"),
    [
        (224, (224, 224), 224),
        ("96", (96, 96), 96),
        ("360x480", (360, 480), "360x480"),
        ("48X32", (48, 32), "48x32"),
        ("64x64", (64, 64), 64),
        (" 40x50 ", (40, 50), "40x50"),
    ],
)
def test_a_size_is_a_side_or_height_and_width(value: Any, size: tuple[int, int], written: int | str) -> None:
    config = sized(value)
    assert config.image_size == Size(*size)
    assert config.model_dump(mode="json")["image_size"] == written
    assert sized(written) == config


@pytest.mark.parametrize(
    "value", [16, "31x64", "64x", "x64", "64x64x3", "64*64", -64, 64.0, "", [64, 64], 20000, "9" * 30]
)
def test_other_sizes_are_refused_in_a_line(value: Any) -> None:
    with pytest.raises(
        BadSettings, match=r"--image-size: expected a number of pixels from 32 .* or two of them: 360x480, found"
    ):
        sized(value)


def test_the_config_of_an_earlier_run_means_what_it_meant(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"settings": {"data": "folder:/pets", "image_size": 160}}))
    config = TrainConfig.from_sources([file], Layer("--{}", {}))
    assert config.image_size == Size(160, 160)
    assert config.model_dump(mode="json")["image_size"] == 160
    assert read_settings_file(file).values["image_size"] == 160


def test_sentences_have_the_width_first_as_all_about_pictures() -> None:
    assert (str(Size(360, 480)), Size(360, 480).across, str(Size(96, 96))) == ("360x480", "480 x 360", "96")
