"""What ``verify`` reports of good and of bad data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskfleet.config import TrainConfig
from maskfleet.errors import BadData, BadSettings
from tests.helpers.data_folders import SIZE, labels, picture, save, write_list, write_pairs, write_pets
from trainer.data.cache import load_dataset
from trainer.data.samples import write_samples
from trainer.data.verify import verify

PIXELS = SIZE[0] * SIZE[1]


def test_good_data(tmp_path: Path) -> None:
    folder = write_pets(tmp_path)
    save(labels(1, 255), folder / "x.png")
    save(picture().resize((80, 60)), folder / "images" / "cat_0.jpg")
    save(labels(2, 2).repeat(2, axis=0).repeat(2, axis=1), folder / "annotations/trimaps/cat_0.png")
    report = verify(TrainConfig(data=f"folder:{folder}"))
    assert report.first_bad is None
    assert (report.train.examples, report.test.examples) == (3, 2)
    assert report.train.pixels == {
        "object": 2 * PIXELS // 5,
        "background": 4 * PIXELS + 2 * PIXELS * 2 // 5,
        "border": 2 * PIXELS * 2 // 5,
        "ignored": 0,
    }
    assert report.train.images_with == {"object": 2, "background": 3, "border": 2, "ignored": 0}
    assert (report.train.smallest, report.train.largest) == (SIZE, (80, 60))
    assert json.loads(json.dumps(report.as_json()))["test"]["pixels"]["border"] == 2 * PIXELS * 2 // 5
    text = report.text()
    assert "train: 3 images, 40 x 30 to 80 x 60 pixels" in text
    assert "every file is good" in text


def test_it_goes_on_after_bad_files_and_names_the_first(tmp_path: Path) -> None:
    folder = write_pets(tmp_path)
    (folder / "images" / "cat_4.jpg").write_text("no image")
    (folder / "images" / "cat_1.jpg").write_text("no image")
    report = verify(TrainConfig(data=f"folder:{folder}"))
    assert report.first_bad is not None
    assert report.first_bad.startswith(f"{folder}/images/cat_1.jpg: expected an image")
    assert (len(report.train.bad), len(report.test.bad)) == (1, 1)
    assert report.train.images_with["object"] == 2
    assert report.text().endswith("remove it (the first of 2 bad examples)")


def test_masks_of_0_and_255_are_bad(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, mask=labels(0, 255), classes=["ground", "object"])
    report = verify(TrainConfig(data=f"folder:{folder}"))
    assert report.first_bad is not None
    assert "hold only the labels 0 and 255" in report.first_bad


@pytest.mark.parametrize("objects", ["train", "test", "too thin for the network's input"])
def test_masks_of_0_and_255_are_good_where_another_has_an_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objects: str
) -> None:
    """Training takes what is said to be good."""
    monkeypatch.setenv("MASKFLEET_CACHE", str(tmp_path / "cache"))
    folder = write_pairs(tmp_path / "set", mask=labels(0, 255), classes=["ground", "object"])
    for split, names in (("train", ["p0", "p1", "p2"]), ("test", ["p3", "p4"])):
        write_list(folder / f"{split}.txt", names)
    mask = labels(0, 255)
    mask[:, 2 : 3 if "thin" in objects else 30] = 1  # of 40 columns 32 are looked at, and the third is not
    save(mask, folder / "masks" / ("p4.png" if objects == "test" else "p0.png"))
    config = TrainConfig(data=f"folder:{folder}", image_size=32)
    assert verify(config).first_bad is None
    dataset = load_dataset(config.data, None, config.image_size)
    assert (dataset.train.masks == 1).any() == (objects == "train")


def test_data_that_can_not_be_opened(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="expected the folders images and masks"):
        verify(TrainConfig(data=f"folder:{tmp_path}"))


def test_pictures_that_can_not_be_written_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKFLEET_CACHE", str(tmp_path / "cache"))
    config = TrainConfig(data=f"folder:{write_pets(tmp_path / 'pets')}", image_size=32)
    (tmp_path / "file").touch()
    with pytest.raises(BadSettings) as caught:
        write_samples(config, tmp_path / "file" / "deep" / "pictures.png")
    assert str(caught.value) == f"--pictures {tmp_path}/file/deep/pictures.png: can't be written: Not a directory"
