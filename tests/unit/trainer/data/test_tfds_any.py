"""Any data set of TensorFlow Datasets that has a picture and a mask in each example."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from maskfleet.errors import BadData, BadSettings
from tests.helpers.data_folders import labels, picture
from trainer.data.kinds.tfds_folder import _cut
from trainer.data.opening import open_source
from trainer.data.source import Reading


def write(
    root: Path,
    features: dict[str, tfds.features.FeatureConnector],
    stripes: tuple[int, ...] = (0, 1, 2),
    splits: tuple[str, ...] = ("train", "validation", "test"),
) -> Path:
    """``streets`` with three pictures in each split; the mask of picture i is moved by i pixels."""

    class Streets(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, _: object) -> dict[str, Iterator]:
            return {split: self._generate_examples(range(3 * i, 3 * i + 3)) for i, split in enumerate(splits)}

        def _generate_examples(self, numbers: range) -> Iterator:
            for i in numbers:
                mask = np.roll(labels(*stripes), i, axis=1)[..., None]
                three, one = np.asarray(picture(i)), mask
                yield i, {key: one if each.shape[-1] == 1 else three for key, each in features.items()}

    Streets(data_dir=root).download_and_prepare()
    return root


PICTURE, MASK = tfds.features.Image(shape=(None, None, 3)), tfds.features.Image(shape=(None, None, 1))
NAMED = tfds.features.LabeledImage(labels=["sky", "road", "car"], shape=(None, None, 1))


@pytest.mark.parametrize(
    ("features", "classes"),
    [
        ({"image": PICTURE, "segmentation_mask": MASK}, ("class_0", "class_1", "class_2")),
        ({"image_left": PICTURE, "segmentation_label": MASK, "depth": MASK}, ("class_0", "class_1", "class_2")),
        ({"photo": PICTURE, "truth": NAMED}, ("sky", "road", "car")),
    ],
)
def test_picture_and_mask_are_found(features: dict, classes: tuple[str, ...], tmp_path: Path) -> None:
    source = open_source("tfds:streets", write(tmp_path, features))
    assert source.classes == classes
    assert source.validation is not None
    masks = set()
    for split in (source.train, source.validation, source.test):
        assert len(split) == 3
        for i in range(3):
            example = split.read(i)
            image, mask = example.image, example.mask
            (seed,) = (s for s in range(9) if np.array_equal(np.asarray(picture(s)), image))
            np.testing.assert_array_equal(mask, np.roll(labels(0, 1, 2), seed, axis=1))
            masks.add(seed)
    assert masks == set(range(9))


def test_a_data_file_says_what_its_values_mean(tmp_path: Path) -> None:
    write(tmp_path, {"image": PICTURE, "mask": MASK}, stripes=(0, 7, 9), splits=("train",))
    (tmp_path / "streets.yaml").write_text("format: tfds\npath: streets\nnames: {0: ignored, 7: road, 9: car}\n")
    source = open_source(str(tmp_path / "streets.yaml"), tmp_path)
    assert source.classes == ("road", "car")
    assert (len(source.train), len(source.test)) == (2, 1)
    assert set(np.unique(source.train.read(0).mask)) == {0, 1, 255}
    with pytest.raises(BadData, match=r"expected labels 0, 1, 2 … in mask, found 0, 7, 9; name them in a data file"):
        open_source("tfds:streets", tmp_path)


def test_a_data_set_without_a_mask_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadData) as caught:
        open_source("tfds:streets:1.*", write(tmp_path, {"image": PICTURE}))
    assert str(caught.value) == (
        f"{tmp_path}/streets/1.0.0: expected one picture of three channels and one mask of one channel in each "
        "example, found image (None, None, 3)"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("tfds:strets", "--data tfds:strets: there is no such data set in {}, and none in TensorFlow Datasets"),
        ("tfds:../x", "--data tfds:../x: expected tfds:NAME, tfds:NAME/CONFIG or one of these with :VERSION"),
    ],
)
def test_a_name_that_is_none(data: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadSettings) as caught:
        open_source(data, tmp_path)
    assert str(caught.value) == message.format(tmp_path)


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (Reading(bands=4), "has three bands, expected 4"),
        (Reading(mask_threshold=9), "--mask-threshold: is for a folder"),
    ],
)
def test_a_setting_that_is_for_folders_is_refused_of_a_data_file_too(
    reading: Reading, message: str, tmp_path: Path
) -> None:
    (tmp_path / "streets.yaml").write_text("format: tfds\npath: streets\n")
    with pytest.raises(BadSettings, match=message):
        open_source(str(tmp_path / "streets.yaml"), tmp_path, reading)


def note(info: Path, **changes: object) -> None:
    info.write_text(json.dumps({**json.loads(info.read_text()), **changes}))


def test_a_folder_of_other_files_is_not_taken_for_a_cut_one(tmp_path: Path) -> None:
    folder = write(tmp_path, {"image": PICTURE, "mask": MASK}) / "streets" / "1.0.0"
    for file in folder.glob("*.tfrecord-*"):
        file.rename(file.with_name(file.name.replace("tfrecord", "array_record")))
    assert "found 0" in str(_cut(folder))
    note(folder / "dataset_info.json", fileFormat="array_record")
    assert _cut(folder) is None


def test_files_that_are_named_otherwise_are_not_taken_for_missing(tmp_path: Path) -> None:
    folder = write(tmp_path, {"image": PICTURE, "mask": MASK}) / "streets" / "1.0.0"
    for file in folder.glob("*.tfrecord-*"):
        file.rename(file.with_name(file.name.replace("streets-", "")))
    info = folder / "dataset_info.json"
    template = "{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    note(info, splits=[{**each, "filepathTemplate": template} for each in json.loads(info.read_text())["splits"]])
    assert _cut(folder) is None
    assert len(open_source("tfds:streets", tmp_path).train) == 3
