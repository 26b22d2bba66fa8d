"""The Oxford-IIIT Pet data set as its two archives unpack.

O. M. Parkhi, A. Vedaldi, A. Zisserman, C. V. Jawahar, "Cats and Dogs", CVPR 2012:
``images/NAME.jpg``, ``annotations/trimaps/NAME.png``, ``annotations/{trainval,test}.txt``. Imports no TensorFlow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskfleet.errors import BadData
from trainer.data.class_table import single_channel
from trainer.data.images import pixels_of, read_labels, read_picture
from trainer.data.lists import check_disjoint, missing_files, read_list
from trainer.data.orientation import pair
from trainer.data.source import Example, Mask, Reading, Source, Split, files_key

CLASSES = ("object", "background", "border")
"""Trimap values 1, 2 and 3."""
BACKGROUND = 1
COLOURS = np.array([[232, 119, 34], [38, 70, 83], [244, 241, 222]], np.uint8)


def is_pets(folder: Path) -> bool:
    return (folder / "annotations" / "trimaps").is_dir()


def open_pets(folder: Path, reading: Reading) -> Source:
    """Training split from ``trainval.txt``, test split from ``test.txt``.

    Raises:
        BadData: a list is missing or names a file that is missing.
    """
    lists = [folder / "annotations" / f"{split}.txt" for split in ("trainval", "test")]
    train, test = (_split(folder, file, reading) for file in lists)
    check_disjoint({lists[0]: train.names, lists[1]: test.names})
    images = [_image(folder, name) for name in (*train.names, *test.names)]
    trimaps = [_trimap(folder, name) for name in (*train.names, *test.names)]
    return Source("oxford_iiit_pet", CLASSES, COLOURS, BACKGROUND, train, test, files_key([*lists, *images, *trimaps]))


def trimap_to_mask(labels: NDArray[Any], where: Path | str) -> Mask:
    """1, 2, 3 -> 0, 1, 2.

    Raises:
        BadData: names the first other value.
    """
    wrong = (labels < 1) | (labels > 3)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise BadData(
            f"{where}: label {labels[row, column]} at row {row}, column {column}: a trimap holds "
            "1 (pet), 2 (background) and 3 (border)"
        )
    return (labels - 1).astype(np.uint8)


def _split(folder: Path, file: Path, reading: Reading) -> Split:
    names = read_list(file, first_word=True)
    missing_files(file, [_image(folder, name) for name in names], "image")
    missing_files(file, [_trimap(folder, name) for name in names], "trimap")

    def read(i: int) -> Example:
        image_file, trimap_file = _image(folder, names[i]), _trimap(folder, names[i])
        picture = read_picture(image_file, max_pixels=reading.max_pixels, bands=reading.bands)
        trimap = read_labels(trimap_file, max_pixels=reading.max_pixels)
        mask = trimap_to_mask(
            single_channel(trimap, trimap_file, "save 1 (pet), 2 (background) and 3 (border)"), trimap_file
        )
        return pair(picture, mask, reading, image_file, trimap_file)

    return Split(names, read, lambda i: pixels_of(_image(folder, names[i])), lambda i: _image(folder, names[i]))


def _image(folder: Path, name: str) -> Path:
    return folder / "images" / f"{name}.jpg"


def _trimap(folder: Path, name: str) -> Path:
    return folder / "annotations" / "trimaps" / f"{name}.png"
