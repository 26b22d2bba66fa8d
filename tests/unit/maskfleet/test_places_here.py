"""What settings name, and is not on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.places_here import check_places


def test_weights_that_are_not_there_are_told_of_before_anything_is_imported(tmp_path: Path) -> None:
    file = tmp_path / "weights.h5"
    config = TrainConfig(encoder_weights=str(file))
    with pytest.raises(BadSettings) as error:
        check_places(config)
    assert str(error.value) == (
        f"--encoder-weights {file}: expected 'imagenet', 'none' or a file of Keras weights, found no such file"
    )
    file.touch()
    check_places(config)


def test_a_folder_in_the_place_of_weights_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="or a file of Keras weights, found a folder"):
        check_places(TrainConfig(encoder_weights=str(tmp_path)))


@pytest.mark.parametrize("weights", ["imagenet", "none"])
def test_named_weights_are_no_file(weights: str) -> None:
    check_places(TrainConfig(encoder_weights=weights))
