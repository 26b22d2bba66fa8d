"""Photographs that EXIF turns: image, mask and prediction as the picture is displayed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.PngImagePlugin
import pytest
from numpy.typing import NDArray

from maskfleet.config import TrainConfig
from maskfleet.errors import BadData
from maskfleet.image_size import Size
from tests.helpers.data_folders import save
from trainer.data.cache import load_dataset
from trainer.data.images import read_labels, read_picture
from trainer.data.opening import open_source
from trainer.data.orientation import orientation_of, orientation_of_png
from trainer.data.source import Example, Reading
from trainer.data.verify import verify
from trainer.results.legend import Legend
from trainer.results.predict import Predictor
from trainer.results.predict_files import predict_files

LABELS = np.array([[0, 0, 1, 1], [0, 0, 0, 2], [0, 0, 0, 0]], np.uint8)
"""(3, 4), a shape that is another one by each turn and mirroring."""
SQUARE = LABELS[:, :3].copy()
TURNS = tuple(range(1, 9))
SIDEWAYS = (5, 6, 7, 8)


def photograph(labels: NDArray[np.uint8]) -> PIL.Image.Image:
    """Shows what its mask says: label 0 black, 1 grey, 2 white."""
    return PIL.Image.fromarray(np.repeat((labels * 127)[..., None], 3, axis=2))


def turned(file: Path, image: PIL.Image.Image, orientation: int) -> Path:
    """Stored as it is, to be displayed as EXIF says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = orientation
    image.save(file, exif=exif)
    return file


def displayed(file: Path) -> NDArray[np.uint8]:
    """As viewers show it, by Pillow's own means; of a path it would map a TIFF that lies sideways wrongly."""
    with file.open("rb") as content, PIL.Image.open(content) as picture:
        return np.asarray(PIL.ImageOps.exif_transpose(picture).convert("L"))


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("behind", [False, True])
def test_a_large_png_s_turn_is_known_without_its_pixels(
    orientation: int, behind: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = turned(tmp_path / "a.png", photograph(LABELS), orientation)
    if behind:  # its pixels, where some programs put it
        whole = file.read_bytes()
        start, end = whole.index(b"eXIf") - 4, whole.index(b"IEND") - 4
        length = int.from_bytes(whole[start : start + 4]) + 12
        file.write_bytes(whole[:start] + whole[start + length : end] + whole[start : start + length] + whole[end:])
        with PIL.Image.open(file) as picture:
            assert orientation_of(picture) == orientation
    monkeypatch.setattr(PIL.PngImagePlugin.PngImageFile, "load", None)
    assert orientation_of_png(file) == orientation


def test_a_png_without_a_turn_or_an_end_is_as_stored(tmp_path: Path) -> None:
    photograph(LABELS).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    assert orientation_of_png(tmp_path / "a.png") == orientation_of_png(tmp_path / "b.png") == 1


def pair(folder: Path, orientation: int, labels: NDArray[np.uint8], drawn_on: str) -> Path:
    """One pair twice, for training and for testing."""
    for name in ("a", "b"):
        image = turned(folder / "images" / f"{name}.png", photograph(labels), orientation)
        mask = displayed(image) // 127 if drawn_on == "displayed" else labels
        save(mask, folder / "masks" / f"{name}.png")
    (folder / "classes.txt").write_text("ground\nwall\nsky\n")
    return folder


def first(folder: Path, reading: Reading) -> Example:
    return open_source(f"folder:{folder}", None, reading).train.read(0)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_an_image_is_read_as_it_is_displayed(orientation: int, suffix: str, tmp_path: Path) -> None:
    file = turned(tmp_path / f"x.{suffix}", photograph(LABELS), orientation)
    picture = read_picture(file)
    np.testing.assert_allclose(picture.pixels[..., 0], displayed(file), atol=2 if suffix == "webp" else 0)
    assert picture.orientation == orientation


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("drawn_on", ["displayed", "stored"])
def test_a_mask_fits_the_displayed_picture_wherever_it_was_drawn(
    orientation: int, drawn_on: str, tmp_path: Path
) -> None:
    """Where a quarter turn changes the size, that tells; the setting may then say anything."""
    folder = pair(tmp_path, orientation, LABELS, drawn_on)
    for said in ("displayed", "stored") if orientation in SIDEWAYS else (drawn_on,):
        example = first(folder, Reading(masks_drawn_on=said))
        image, mask, assumed = example.image, example.mask, example.assumed
        np.testing.assert_array_equal(image[..., 0], mask * 127)
        np.testing.assert_array_equal(image[..., 0], displayed(folder / "images/a.png"))
        assert assumed == (orientation not in (1, *SIDEWAYS))


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("drawn_on", ["displayed", "stored"])
def test_of_a_square_the_setting_decides(orientation: int, drawn_on: str, tmp_path: Path) -> None:
    folder = pair(tmp_path, orientation, SQUARE, drawn_on)
    example = first(folder, Reading(masks_drawn_on=drawn_on))
    image, mask, assumed = example.image, example.mask, example.assumed
    np.testing.assert_array_equal(image[..., 0], mask * 127)
    assert assumed == (orientation != 1)


@pytest.mark.parametrize("orientation", TURNS)
def test_a_mask_with_a_tag_of_its_own_is_turned_too(orientation: int, tmp_path: Path) -> None:
    for suffix in ("png", "tif"):
        file = turned(tmp_path / f"x.{suffix}", PIL.Image.fromarray(LABELS * np.uint8(127)), orientation)
        np.testing.assert_array_equal(read_labels(file).labels, displayed(file))
        np.testing.assert_array_equal(read_labels(file).colours[..., 1], displayed(file))


@pytest.mark.parametrize("tag", [0, 9, 65535])
def test_a_tag_without_sense_turns_nothing(tag: int, tmp_path: Path) -> None:
    picture = read_picture(turned(tmp_path / "x.png", photograph(LABELS), tag))
    np.testing.assert_array_equal(picture.pixels[..., 0], LABELS * 127)
    assert picture.orientation == 1


def test_a_damaged_tag_turns_nothing(tmp_path: Path) -> None:
    photograph(LABELS).save(tmp_path / "x.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert read_picture(tmp_path / "x.png").pixels.shape == (3, 4, 3)


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    folder = pair(tmp_path, 6, LABELS, "displayed")
    save(LABELS[:2], folder / "masks/a.png")
    with pytest.raises(BadData) as raised:
        first(folder, Reading())
    assert str(raised.value) == (
        f"{folder}/masks/a.png: expected the size of its image {folder}/images/a.png, 3 x 4 pixels (as stored 4 x 3), "
        "found 4 x 2; save the mask at the image's size"
    )


def test_verify_data_says_where_the_setting_decided(tmp_path: Path) -> None:
    report = verify(TrainConfig(data=f"folder:{pair(tmp_path, 3, LABELS, 'stored')}", masks_drawn_on="stored"))
    assert (
        "2 images are turned by EXIF, and sizes can't tell whether their masks are too: they are taken as drawn on the "
        "stored picture, as --masks-drawn-on says (a, b)"
    ) in report.warnings


def test_the_setting_makes_another_cache(tmp_path: Path) -> None:
    data = f"folder:{pair(tmp_path / 'data', 3, LABELS, 'displayed')}"
    masks = [
        load_dataset(data, None, 4, tmp_path / "cache", reading=Reading(masks_drawn_on=said)).train.masks[0]
        for said in ("displayed", "stored")
    ]
    np.testing.assert_array_equal(masks[0], masks[1][::-1, ::-1])
    assert masks[0].any()


@pytest.mark.parametrize("orientation", TURNS)
def test_a_prediction_is_as_the_picture_is_displayed(orientation: int, tmp_path: Path) -> None:
    def network(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return 9 * np.eye(3, dtype=np.float32)[images[..., 0] // 127]

    labels = LABELS.repeat(8, axis=0).repeat(8, axis=1)
    file = turned(tmp_path / "x.png", photograph(labels), orientation)
    legend = Legend.unnamed(3)
    predictor = Predictor(network, Size.of(8), 3, window=True)
    assert [problem for _, problem in predict_files(predictor, legend, [file], tmp_path / "out")] == [None]
    with PIL.Image.open(tmp_path / "out/x.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), displayed(file) // 127)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("drawn_on", ["displayed", "stored"])
def test_shapes_fit_the_displayed_picture_wherever_they_were_drawn(
    orientation: int, drawn_on: str, tmp_path: Path
) -> None:
    """A box around the picture's white corner, as labelme notes it."""
    stored = np.zeros((20, 30), np.uint8)
    stored[:6, 22:] = 2
    for name in ("a", "b"):
        shown = displayed(turned(tmp_path / f"{name}.png", photograph(stored), orientation)) // 127
        drawn = shown if drawn_on == "displayed" else stored
        rows, columns = np.nonzero(drawn)
        corners = [[int(columns.min()), int(rows.min())], [int(columns.max()) + 1, int(rows.max()) + 1]]
        shape = {"label": "sky", "points": corners, "shape_type": "rectangle"}
        noted = {"imagePath": f"{name}.png", "imageHeight": drawn.shape[0], "imageWidth": drawn.shape[1]}
        (tmp_path / f"{name}.json").write_text(json.dumps({"version": "5", "flags": {}, "shapes": [shape], **noted}))
    said = drawn_on if orientation not in SIDEWAYS else "displayed"
    source = open_source(f"labelme:{tmp_path}", None, Reading(masks_drawn_on=said))
    example = source.train.read(0)
    image, mask = example.image, example.mask
    np.testing.assert_array_equal(mask * 2 * 127, image[..., 0])
