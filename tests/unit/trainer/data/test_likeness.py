"""Pictures that stand in two splits are found, and what else ``verify`` says of splits."""

from __future__ import annotations

import io
import json
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from maskfleet.config import TrainConfig
from tests.helpers.data_folders import labels, picture, save, write_list, write_pairs
from trainer.data.kinds.synthetic import picture as drawn
from trainer.data.likeness import alike, likeness
from trainer.data.verify import verify


def compressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50)
    return Image.open(buffer)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same": lambda image: image,
    "compressed": compressed,
    "half": lambda image: image.resize((64, 64)),
    "enlarged": lambda image: image.resize((301, 287)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_other_pictures_are_not(change: str) -> None:
    images = [Image.fromarray(drawn(number)[0]) for number in range(60)]
    first = [likeness(np.asarray(image)) for image in images[:40]]
    second = [likeness(np.asarray(image)) for image in images[40:]]
    assert alike(first, second) == []
    copy = np.asarray(CHANGES[change](images[7]).convert("RGB"))
    assert alike(first, [*second[:3], likeness(copy), *second[3:]]) == [(7, 3)]


def test_pictures_that_show_nothing_are_alike_only_if_they_are_equal() -> None:
    black, nearly = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40, 3), np.uint8)
    nearly[3, 3] = 1
    assert alike([likeness(black)], [likeness(nearly), likeness(black)]) == [(0, 1)]


def test_no_pictures_are_alike_to_none() -> None:
    some = [likeness(drawn(0)[0])]
    assert alike([], some) == alike(some, []) == []


def test_verify_names_pictures_in_two_splits_under_any_name(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, count=6)
    for split, names in (("train", ["p0", "p1", "p2"]), ("val", ["p3"]), ("test", ["p4", "p5"])):
        write_list(folder / f"{split}.txt", names)
    save(picture(1), folder / "images/p5.jpg")
    picture(3).resize((80, 60)).save(folder / "images/p4.jpg", quality=60)
    save(labels(0, 1, 2).repeat(2, axis=0).repeat(2, axis=1), folder / "masks/p4.png")
    report = verify(TrainConfig(data=f"folder:{folder}"))
    assert report.alike == (("train", "p1", "test", "p5"), ("validation", "p3", "test", "p4"))
    assert report.first_bad is None
    assert report.warnings == tuple(
        f"1 picture is in the test split and, equal or nearly so, in the {split} split ({names}): what is scored on "
        "them is too good; keep each on one side (--group-by, or the lists)"
        for split, names in (("train", "p5 as p1"), ("validation", "p4 as p3"))
    )
    assert json.loads(json.dumps(report.as_json()))["validation"]["examples"] == 1


def test_verify_names_classes_that_a_split_lacks(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, classes=["a", "b", "c", "d"])
    for split, names in (("train", ["p0", "p1", "p2"]), ("val", ["p3"])):
        write_list(folder / f"{split}.txt", names)
    save(labels(0, 1, 3), folder / "masks/p3.png")
    report = verify(TrainConfig(data=f"folder:{folder}"))
    assert "no training mask has a pixel of d" in report.warnings
    assert "no validation mask has a pixel of c" in report.warnings
    assert "validation: 1 images" in report.text()
    assert "test: " not in report.text()


def test_verify_names_torn_groups_and_reads_the_rest(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path)
    for split, names in (("train", ["p0", "p1", "p2"]), ("test", ["p3", "p4"])):
        write_list(folder / f"{split}.txt", names)
    report = verify(TrainConfig(data=f"folder:{folder}", group_by="^."))
    assert report.first_bad is not None
    assert "expected all pictures of a group in one split, found p in train and test" in report.first_bad
    assert report.train.pixels["class_1"] > 0


def test_verify_looks_at_the_splits_that_the_settings_make(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, count=20)
    report = verify(TrainConfig(data=f"folder:{folder}", validation_share=0.25))
    assert {name: split.examples for name, split in report.splits.items()} == {"train": 12, "validation": 4, "test": 4}


def test_a_picture_is_not_copied_to_be_compared() -> None:
    image = np.zeros((2000, 2000, 3), np.uint8)
    tracemalloc.start()
    try:
        assert likeness(image).checksum == zlib.crc32(image.tobytes())
        tracemalloc.reset_peak()
        likeness(image)
        assert tracemalloc.get_traced_memory()[1] < image.nbytes / 4
    finally:
        tracemalloc.stop()
