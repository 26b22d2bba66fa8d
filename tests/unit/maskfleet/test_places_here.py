"""What settings name, and is not on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskfleet.config import TrainConfig
from maskfleet.data_places import BUCKET_NAME
from maskfleet.errors import BadSettings
from maskfleet.places_here import check_places
from maskfleet.tfds_names import builders


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


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("tfds:oxford_iiit_pets", "--data tfds:oxford_iiit_pets: there is no such data set in {}, and none in "
         "TensorFlow Datasets; did you mean tfds:oxford_iiit_pet?"),
        ("tfds:zzzz", "--data tfds:zzzz: there is no such data set in {}, and none in TensorFlow Datasets"),
        ("python:no_such:data", "--data no_such:data: there is no module no_such; --code DIR names the folder that it "
         "lies in"),
        ("packed:gs://", f"--data packed:gs://: expected gs://BUCKET/PREFIX, {BUCKET_NAME}"),
    ],
)  # fmt: skip
def test_data_that_is_nowhere_is_refused_before_tensorflow_is_imported(data: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadSettings) as error:
        check_places(TrainConfig(data=data, data_dir=tmp_path))
    assert str(error.value) == words.format(tmp_path)


def test_data_that_may_be_there_is_left_to_who_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "own.py").touch()
    monkeypatch.chdir(tmp_path)
    for data in ("tfds:mine", "tfds:ade20k/c:1.0", "tfds:../x", "python:own:data", "python:json.decoder:x"):
        if data != "tfds:ade20k/c:1.0" or "ade20k" in builders():
            check_places(TrainConfig(data=data, data_dir=tmp_path))


def test_no_module_is_imported_to_be_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud.py").write_text("raise RuntimeError('imported')")
    monkeypatch.chdir(tmp_path)
    check_places(TrainConfig(data="python:loud:data"))
