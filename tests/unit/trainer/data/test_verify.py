"""What ``verify`` reports of good and of bad data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from maskfleet.config import TrainConfig
from maskfleet.errors import BadData, BadSettings
from tests.helpers.data_folders import SIZE, labels, picture, save, write_list, write_pairs, write_pets
from tests.helpers.shared import shared
from trainer.data.cache import load_dataset
from trainer.data.samples import write_samples
from trainer.data.verify import verify

PIXELS = SIZE[0] * SIZE[1]


@pytest.mark.parametrize(
    ("fit", "at", "pixels"),
    [("squash", "64 x 32", 4 * 32 * 64), ("pad", "64 x 32", 4 * 32 * 43), ("crop", "their own size", 4 * PIXELS)],
)
def test_classes_are_counted_at_the_size_that_training_sees(fit: str, at: str, pixels: int, tmp_path: Path) -> None:
    settings = {"data": f"folder:{write_pairs(tmp_path, classes=['a', 'b', 'c'])}", "image_size": "32x64", "fit": fit}
    report = verify(TrainConfig.model_validate(settings))
    assert sum(report.train.pixels_scaled.values()) == pixels
    assert f"images; at {at}: " in report.text()
    assert report.as_json()["image_size"] == "32x64"


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


def test_a_split_of_which_nothing_could_be_read_lacks_no_class(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, classes=["a", "b", "c"])
    write_list(folder / "train.txt", ["p0", "p1"])
    write_list(folder / "test.txt", ["p2"])
    (folder / "masks" / "p2.png").write_text("no mask")
    report = verify(TrainConfig(data=f"folder:{folder}"))
    assert len(report.test.bad) == 1
    assert [line for line in report.warnings if "pixel of" in line] == []
    for name in ("p0", "p1"):
        (folder / "masks" / f"{name}.png").write_text("no mask")
    assert [line for line in verify(TrainConfig(data=f"folder:{folder}")).warnings if "pixel of" in line] == []


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


def test_small_objects_are_counted_at_the_training_size_and_those_that_vanish_are_named(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, classes=["ground", "roof", "bolt", "tree"])
    for i in range(5):
        mask = labels(0, 1)
        if i < 2:
            mask[7, 2] = 2  # of 40 x 30 pixels, 32 x 32 are looked at
        if i == 2:
            mask[0, 0] = 2
        save(mask, folder / "masks" / f"p{i}.png")
    report = verify(TrainConfig(data=f"folder:{folder}", image_size=32))
    assert report.first_bad is None
    reports = (report.train, report.test)
    assert sum(split.images_with["bolt"] for split in reports) == 3
    assert sum(split.images_with_scaled["bolt"] for split in reports) == 1
    assert sum(split.pixels_scaled["roof"] for split in reports) == 5 * 32 * 16
    assert sorted(name for split in reports for name in split.vanished.get("bolt", ())) == ["p0", "p1"]
    missing = report.warnings[0]
    vanished = [
        line for line in report.warnings if line.startswith("bolt: 2 of the 3 images that have it lose all its")
    ]
    assert len(vanished) == 1
    assert "at 32 x 32, which training sees (p" in vanished[0]
    assert missing == "no mask has a pixel of tree"
    assert "at 32 x 32:" in report.text()
    assert f"warning: {vanished[0]}" in report.text()
    assert "vanished" in json.loads(json.dumps(report.as_json()))["train"]


def test_a_class_that_only_one_split_has_is_warned_of(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, mask=labels(0, 1), classes=["a", "b", "c"])
    write_list(folder / "train.txt", ["p0", "p1"])
    write_list(folder / "test.txt", ["p2"])
    save(labels(0, 2), folder / "masks" / "p2.png")
    assert verify(TrainConfig(data=f"folder:{folder}")).warnings == (
        f"{folder}: 2 images are named neither in train.txt nor in test.txt",
        "no training mask has a pixel of c",
        "no test mask has a pixel of b",
    )


def test_black_and_white_and_transparent_images_are_warned_of(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, count=6, classes=["a", "b", "c"])
    see_through = picture().convert("RGBA")
    see_through.putalpha(100)
    for i, image in enumerate(
        [Image.new("L", SIZE), Image.new("RGB", SIZE, (3, 2, 15)), Image.new("L", SIZE, 255), see_through]
    ):
        (folder / f"images/p{i}.jpg").unlink()
        save(image, folder / f"images/p{i}.png")
    report = verify(TrainConfig(data=f"folder:{folder}"))
    assert report.first_bad is None
    assert {line.split(" (")[0] for line in report.warnings} == {
        "2 images are all black, or nearly so",
        "1 image is all white, or nearly so",
        "1 image is read without what its file has beside: transparency",
    }
    assert {*report.train.black, *report.test.black} == {"p0", "p1"}
    lowest, highest = zip(report.train.pixel_range or (0, 0), report.test.pixel_range or (0, 0), strict=True)
    assert (min(lowest), max(highest)) == (0, 255)
    assert "pixels, of values 0 to 255" in report.text()


def test_foreign_text_is_shown_as_text(tmp_path: Path) -> None:
    """A name can hold what moves the cursor of a terminal."""
    folder = write_pairs(tmp_path / "refused", classes=["a", "b\x1b[2K", "c"])
    with pytest.raises(BadData) as caught:
        verify(TrainConfig(data=f"folder:{folder}"))
    assert r"expected a name of a class in plain text, found b\x1b[2K; rename it" in str(caught.value)
    folder = write_pairs(tmp_path / "shown", classes=["a", "b", "c", "d\u202e"])
    text = verify(TrainConfig(data=f"folder:{folder}")).text()
    assert r"d\u202e" in text
    assert "\u202e" not in text


@pytest.mark.shared_data
def test_real_photographs_have_no_other_warning_than_of_a_picture_in_both_splits(tmp_path: Path) -> None:
    report = verify(TrainConfig(data=f"folder:{shared('data', 'oxford_iiit_pet')}"))
    assert report.first_bad is None
    (warning,) = report.warnings  # the data set itself has one picture twice, under two names
    assert "(Abyssinian_99 as Abyssinian_151)" in warning
    assert report.train.pixel_range == (0, 255)


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
