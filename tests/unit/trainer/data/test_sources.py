"""What each layout gives, read from real files."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from maskfleet.errors import BadData
from tests.helpers.data_folders import (
    SIZE,
    labels,
    picture,
    save,
    with_palette,
    write_cvat,
    write_labelme,
    write_list,
    write_pairs,
    write_pets,
    write_voc,
)
from tests.helpers.shared import shared
from trainer.data.class_table import ClassTable
from trainer.data.images import read_image, read_labels
from trainer.data.kinds import synthetic
from trainer.data.opening import Source, open_source
from trainer.data.source import IGNORED, Reading, palette

MASKS = arrays.arrays(np.uint8, (3, 5), elements=st.sampled_from([0, 1, 2, IGNORED]))


def every_mask(source: Source) -> NDArray[np.uint8]:
    return np.stack([split.read(i).mask for split in source.splits.values() for i in range(len(split))])


def test_pets_folder(tmp_path: Path) -> None:
    source = open_source(f"folder:{write_pets(tmp_path)}", None)
    assert source.classes == ("object", "background", "border")
    assert source.background == 1
    assert source.train.names == ("cat_0", "cat_1", "cat_2")
    assert source.test.names == ("cat_3", "cat_4")
    example = source.train.read(1)
    image, mask = example.image, example.mask
    assert image.shape == (SIZE[1], SIZE[0], 3)
    assert np.abs(image.astype(int) - np.asarray(picture(1))).mean() < 4  # JPEG
    np.testing.assert_array_equal(mask, labels(1, 2, 0, 2, 1))


@pytest.mark.shared_data
def test_real_pets() -> None:
    source = open_source(f"folder:{shared('data', 'oxford_iiit_pet')}", None)
    assert (len(source.train), len(source.test)) == (300, 298)
    example = source.test.read(17)
    image, mask = example.image, example.mask
    assert image.shape == (*mask.shape, 3)
    assert set(np.unique(mask)) == {0, 1, 2}


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["Abyssinian_34", "Abyssinian_5"])
def test_a_suffix_may_lie(name: str) -> None:
    """One is a GIF and one an RGBA PNG, both called .jpg; Pillow's own conversion is the reference."""
    folder = shared("data", "odd_files")
    image = read_image(folder / f"{name}.jpg")
    with Image.open(folder / f"{name}.jpg") as reference:
        assert reference.format != "JPEG"
        np.testing.assert_array_equal(image, np.asarray(reference.convert("RGB")))
    trimap = read_labels(folder / f"{name}.png").labels
    assert image.shape == (*trimap.shape, 3)
    assert image.std() > 20


@pytest.mark.parametrize(("kind", "mode"), [("gif", "P"), ("png", "RGBA"), ("webp", "RGB"), ("bmp", "RGB")])
def test_any_format_may_be_called_jpg(kind: str, mode: str, tmp_path: Path) -> None:
    image = picture().convert(mode)
    if mode == "RGBA":
        image.putalpha(7)
    image.save(tmp_path / "image.jpg", kind, **({"lossless": True} if kind == "webp" else {}))
    np.testing.assert_array_equal(read_image(tmp_path / "image.jpg"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_images_of_every_mode_become_rgb(mode: str, tmp_path: Path) -> None:
    grey = np.asarray(picture().convert("L"))
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    file = save(image, tmp_path / ("image.tif" if mode == "CMYK" else "image.png"))
    found = read_image(file)
    assert found.dtype == np.uint8
    expected = np.where(np.asarray(image), 255, 0) if mode == "1" else grey
    np.testing.assert_allclose(found, expected[..., None].repeat(3, axis=2), atol=1)


def test_pairs_with_names_of_classes(tmp_path: Path) -> None:
    source = open_source(f"folder:{write_pairs(tmp_path, classes=['sky', 'background', 'tree', 'sea'])}", None)
    assert source.classes == ("sky", "background", "tree", "sea")
    assert source.background == 1
    assert (every_mask(source) == labels(0, 1, 2)).all()


def test_pairs_without_names_have_the_labels_of_their_masks(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    save(labels(0, 255, 3), tmp_path / "masks" / "p2.png")
    source = open_source(f"folder:{tmp_path}", None)
    assert source.classes == ("class_0", "class_1", "class_2", "class_3")
    assert source.background is None


def test_a_fifth_of_the_pairs_is_for_testing_whatever_is_added(tmp_path: Path) -> None:
    source = open_source(f"folder:{write_pairs(tmp_path, count=20)}", None)
    again = open_source(f"folder:{tmp_path}", None)
    assert (len(source.train), len(source.test)) == (16, 4)
    assert (source.train.names, source.test.names, source.key) == (again.train.names, again.test.names, again.key)
    more = open_source(f"folder:{write_pairs(tmp_path, count=25)}", None)
    assert len(set(source.test.names) & set(more.test.names)) >= 3


def test_pairs_with_lists_need_only_the_listed_files(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "masks" / "p4.png").unlink()
    save(picture(), tmp_path / "images" / "p 7.jpg")
    save(labels(0, 1), tmp_path / "masks" / "p 7.png")
    write_list(tmp_path / "train.txt", ["p3", "p0.jpg"])
    write_list(tmp_path / "test.txt", ["p 7"])
    source = open_source(f"folder:{tmp_path}", None)
    assert source.train.names == ("p3", "p0")
    assert source.test.names == ("p 7",)


@pytest.mark.parametrize(
    "table",
    [
        ["a 0 0 0", "b 255 255 255", "c 200 10 10", "ignored 1 1 1"],
        ["a, 0, 0, 0", "b, 255, 255, 255", "c, 200, 10, 10", "ignored, 1, 1, 1"],
        ["# label:color_rgb:parts:actions", "a:0,0,0::", "b:255,255,255::", "c:200,10,10::", "ignored:1,1,1::"],
    ],
)
def test_colour_tables_of_several_tools(table: list[str], tmp_path: Path) -> None:
    write_list(tmp_path / "table.txt", table)
    read = ClassTable.read(tmp_path / "table.txt")
    assert read.names == ("a", "b", "c")
    assert read.colours.tolist() == [[0, 0, 0], [255, 255, 255], [200, 10, 10]]
    assert read.ignored == ((1, 1, 1),)


@settings(deadline=None)
@given(mask=MASKS, order=st.permutations(range(4)))
def test_masks_are_read_by_colour_whatever_their_palette(
    mask: NDArray[np.uint8], order: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """RGB, and palette PNGs whose entries a drawing program has put in another order."""
    folder = tmp_path_factory.mktemp("masks")
    table = ClassTable(("a", "b", "c"), np.array([[0, 0, 0], [255, 255, 255], [9, 8, 7]], np.uint8), ((200, 0, 0),))
    drawn = np.array([*table.colours, *table.ignored], np.uint8)[np.where(mask == IGNORED, 3, mask)]
    np.testing.assert_array_equal(table.read_mask(save(Image.fromarray(drawn), folder / "rgb.png")), mask)
    entries = np.array([*table.colours, *table.ignored], np.uint8)[order]
    indices = np.array([order.index(i) for i in range(4)], np.uint8)[np.where(mask == IGNORED, 3, mask)]
    np.testing.assert_array_equal(table.read_mask(save(with_palette(indices, entries), folder / "palette.png")), mask)


@settings(deadline=None)
@given(mask=MASKS)
def test_masks_are_read_by_label(mask: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Grey ones also where classes have colours, unless those are grey: the first class is 0, though black is third."""
    folder = tmp_path_factory.mktemp("masks")
    names = ("a", "b", "c")
    coloured = ClassTable(names, np.array([[10, 0, 0], [0, 20, 0], [0, 0, 0]], np.uint8))
    labelled = ClassTable(names, palette(3), by_colour=False)
    for table in (coloured, labelled):
        np.testing.assert_array_equal(table.read_mask(save(mask, folder / "grey.png")), mask)
        wide = Image.fromarray(mask.astype(np.uint16))
        np.testing.assert_array_equal(table.read_mask(save(wide, folder / "wide.png")), mask)
    np.testing.assert_array_equal(labelled.read_mask(save(with_palette(mask), folder / "palette.png")), mask)
    grey = Image.fromarray(mask).convert("RGB")
    np.testing.assert_array_equal(labelled.read_mask(save(grey, folder / "rgb.png")), mask)


@pytest.mark.parametrize(
    ("table", "mode", "expected"),
    [
        (["person 255 0 0", "background 0 0 0"], "L", "person"),
        (["person 255 0 0", "background 0 0 0"], "1", "person"),
        (["person 255 0 0", "background 0 0 0"], "P", "background"),
        (["person 255 0 0", "background 0 0 0"], "RGB", "background"),
        (["person 255 255 255", "background 0 0 0", "ignored 255 0 0"], "L", "background"),
        (["person 255 255 255", "background 0 0 0"], "1", "background"),
        (["person", "background"], "P", "person"),
        (["person", "background"], "RGB", "person"),
    ],
)
def test_a_black_mask_is_read_like_the_masks_beside_it(
    table: list[str], mode: str, expected: str, tmp_path: Path
) -> None:
    """Its pixels are the first class's label and the background's colour: the kind of file decides."""
    write_list(tmp_path / "table.txt", table)
    read = ClassTable.read(tmp_path / "table.txt")
    mask = read.read_mask(save(Image.new(mode, SIZE), tmp_path / "mask.png"))
    assert {read.names[label] for label in np.unique(mask)} == {expected}


def test_black_and_white_masks_are_drawn_in_black_and_white(tmp_path: Path) -> None:
    table = ClassTable(("object", "ground"), np.array([[255, 255, 255], [0, 0, 0]], np.uint8))
    for mode in ("1", "L", "P", "RGB"):
        drawn = Image.fromarray(labels(0, 255)).convert(mode)
        np.testing.assert_array_equal(table.read_mask(save(drawn, tmp_path / "mask.png")), labels(1, 0))


@settings(deadline=None)
@given(share=st.floats(0, 1), suffix=st.sampled_from(["png", "jpg", "gif", "tif", "bmp", "webp"]))
def test_a_truncated_file_is_bad_data_or_still_whole(
    share: float, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = save(picture(), tmp_path_factory.mktemp("cut") / f"image.{suffix}")
    whole = read_image(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    try:
        found = read_image(file)
    except BadData as error:
        message = str(error)
    else:
        np.testing.assert_array_equal(found, whole)
        return
    assert message.startswith(f"{file}: ")
    assert "\n" not in message


@settings(deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning")
@given(data=st.data(), suffix=st.sampled_from(["png", "jpg", "gif", "tif", "bmp", "webp"]))
def test_a_damaged_file_is_bad_data_or_an_image(
    data: st.DataObject, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = save(picture(), tmp_path_factory.mktemp("damaged") / f"image.{suffix}")
    content = bytearray(file.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=20)):
        content[place] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    with contextlib.suppress(BadData):
        assert read_image(file).shape[2] == 3
    with contextlib.suppress(BadData):
        assert read_labels(file).labels.ndim == 2


def test_voc(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOCdevkit" / "VOC2012")
    source = open_source(f"voc:{tmp_path}", None)
    assert (len(source.classes), source.classes[15], source.background) == (21, "person", 0)
    assert source.colours[[1, 15, 20]].tolist() == [[128, 0, 0], [192, 128, 128], [0, 64, 128]]
    assert source.train.names == ("2007_000000", "2007_000001", "2007_000002")
    assert (every_mask(source) == labels(0, 15, 255, 20)).all()


def test_voc_with_one_list_is_divided(tmp_path: Path) -> None:
    lists = write_voc(tmp_path) / "ImageSets" / "Segmentation"
    names = [name for file in ("train.txt", "val.txt") for name in (lists / file).read_text().split()]
    write_list(lists / "trainval.txt", names)
    assert len(open_source(f"voc:{tmp_path}", None).splits["validation"]) == 2, "the lists of the challenge come first"
    for file in ("train.txt", "val.txt"):
        (lists / file).unlink()
    source = open_source(f"voc:{tmp_path}", None)
    assert (len(source.train), len(source.test)) == (4, 1)
    assert {*source.train.names, *source.test.names} == {*names}


def test_voc_masks_without_their_palette(tmp_path: Path) -> None:
    """As tools leave them that convert to RGB, or that write the labels as grey values."""
    mask = labels(0, 15, 255, 20)
    write_voc(tmp_path)
    save(with_palette(mask).convert("RGB"), tmp_path / "SegmentationClass" / "2007_000000.png")
    save(mask, tmp_path / "SegmentationClass" / "2007_000001.png")
    assert (every_mask(open_source(f"voc:{tmp_path}", None)) == mask).all()


@pytest.mark.parametrize("list_name", ["default.txt", "trainval.txt", "my_task.txt"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_cvat_s_export_has_classes_of_its_own(list_name: str, suffix: str, tmp_path: Path) -> None:
    source = open_source(f"voc:{write_cvat(tmp_path, list_name=list_name, suffix=suffix)}", None)
    assert (source.classes, source.background) == (("background", "cat", "dog"), 0)
    assert source.colours.tolist() == [[0, 0, 0], [250, 50, 83], [51, 221, 255]]
    assert (len(source.train), len(source.test)) == (4, 1)
    assert (every_mask(source) == labels(0, 1, 2)).all()
    assert source.train.read(0).image.shape == (SIZE[1], SIZE[0], 3)


@pytest.mark.parametrize("test_list", ["Validation.txt", "Test.txt", "val.txt"])
def test_cvat_s_subsets_are_the_splits(test_list: str, tmp_path: Path) -> None:
    lists = write_cvat(tmp_path) / "ImageSets" / "Segmentation"
    (lists / "default.txt").unlink()
    write_list(lists / "Train.txt", ["frame_3", "frame_0"])
    write_list(lists / test_list, ["frame_1"])
    source = open_source(f"voc:{tmp_path}", None)
    split = "test" if test_list == "Test.txt" else "validation"
    assert {name: part.names for name, part in source.splits.items()} == {
        "train": ("frame_3", "frame_0"),
        split: ("frame_1",),
    }


@pytest.mark.parametrize("masks", ["SegmentationClass", "SegmentationClassPNG"])
def test_labelme_s_folder_has_no_lists(masks: str, tmp_path: Path) -> None:
    write_labelme(tmp_path, masks)
    (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
    np.save(tmp_path / "SegmentationClass" / "0.npy", labels(0, 1))
    source = open_source(f"voc:{tmp_path}", None)
    assert (source.classes, source.background) == (("_background_", "cat", "dog"), 0)
    assert (len(source.train), len(source.test)) == (4, 1)
    assert (every_mask(source) == labels(0, 1, 2, 255)).all()
    (note,) = source.notes
    assert note.endswith("has no lists in ImageSets/Segmentation: a fifth of the masks is for testing")


@pytest.mark.parametrize(
    ("names", "classes", "background"),
    [
        (["__ignore__", "_background_", "cat"], ("_background_", "cat"), 0),
        (["cat", "Background"], ("cat", "Background"), 1),
        (["cat", "__background__"], ("cat", "__background__"), 1),
        (["cat", "background noise"], ("cat", "background noise"), None),
        (["background:::", "cat:::"], ("background", "cat"), 0),
        (["background:0,0,0::", "cat:1,2,3:head,tail:walk,run"], ("background", "cat"), 0),
        (["background:0,0,0::", "my cat:1,2,3::", "ignored:224,224,192::"], ("background", "my cat"), 0),
    ],
)
def test_class_tables_of_several_tools(
    names: list[str], classes: tuple[str, ...], background: int | None, tmp_path: Path
) -> None:
    write_list(tmp_path / "classes.txt", names)
    table = ClassTable.read(tmp_path / "classes.txt")
    assert (table.names, table.background) == (classes, background)


def test_what_is_passed_over_in_a_folder_is_noted(tmp_path: Path) -> None:
    write_pairs(tmp_path, classes=["a", "b", "c"])
    (tmp_path / "labelmap.txt").write_text("x\ny\n")
    (tmp_path / "images" / "old").mkdir()
    for name in ("p9.jxl", "Thumbs.db", "\x1b[31m.txt", "p0.npz", "p1.jp2"):
        (tmp_path / "images" / name).write_bytes(b"")
    os.mkfifo(tmp_path / "masks" / "pipe.png")
    (tmp_path / "masks" / ".hidden").write_bytes(b"")
    assert open_source(f"folder:{tmp_path}", None).notes == (
        f"{tmp_path}/images: passed over the folder old, \\x1b[31m.txt, Thumbs.db, p0.npz, p1.jp2 and 1 more",
        f"{tmp_path}/masks: passed over pipe.png",
        f"{tmp_path}/labelmap.txt: passed over for classes.txt",
    )
    write_list(tmp_path / "train.txt", ["p0", "p1"])
    write_list(tmp_path / "test.txt", ["p2"])
    assert f"{tmp_path}: 2 images are named neither in train.txt nor in test.txt" in (
        open_source(f"folder:{tmp_path}", None).notes
    )


def test_a_folder_is_found_under_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_pairs(tmp_path / "set")
    assert len(open_source("folder:~/set", None).train) == 4


def test_the_limit_on_pixels_holds_for_images_and_masks_of_every_layout(tmp_path: Path) -> None:
    folders = {
        "folder:": [write_pets(tmp_path / "pets"), write_pairs(tmp_path / "pairs", classes=["a", "b", "c"])],
        "voc:": [write_voc(tmp_path / "voc"), write_cvat(tmp_path / "cvat")],
    }
    pixels = SIZE[0] * SIZE[1]
    for kind, places in folders.items():
        for place in places:
            assert len(open_source(f"{kind}{place}", None, Reading(max_pixels=pixels)).train.read(0).mask) == SIZE[1]
            with pytest.raises(BadData, match=f"--max-pixels allows {pixels - 1}"):
                open_source(f"{kind}{place}", None, Reading(max_pixels=pixels - 1)).train.read(0)
    write_pairs(tmp_path / "unnamed")
    with pytest.raises(BadData, match=f"masks/p.*--max-pixels allows {pixels - 1}"):
        open_source(f"folder:{tmp_path / 'unnamed'}", None, Reading(max_pixels=pixels - 1))


def test_the_key_changes_with_the_files(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, classes=["a", "b", "c"])
    keys = [open_source(f"folder:{folder}", None).key]
    save(labels(0, 1, 1, 2), folder / "masks" / "p1.png")
    keys.append(open_source(f"folder:{folder}", None).key)
    write_list(folder / "classes.txt", ["a", "b", "c", "d"])
    keys.append(open_source(f"folder:{folder}", None).key)
    assert len(set(keys)) == 3


def test_synthetic_pictures_are_labelled_like_pets() -> None:
    source = open_source("synthetic", None)
    assert source.classes == ("object", "background", "border")
    assert (len(source.train), len(source.test)) == (240, 60)
    shares = np.mean(
        [np.bincount(source.train.read(i).mask.ravel(), minlength=3) / synthetic.SIZE**2 for i in range(40)], axis=0
    )
    assert (shares > [0.15, 0.55, 0.05]).all()
    for split in (source.train, source.test):
        example = split.read(3)
        image, mask = example.image, example.mask
        again = split.read(3).image
        np.testing.assert_array_equal(image, again)
        # The border lies between the object and the ground: they never touch.
        for first, second in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
            assert not ((first == 0) & (second == 1)).any()
            assert not ((first == 1) & (second == 0)).any()
    assert not np.array_equal(source.train.read(0).image, source.test.read(0).image)


def test_files_are_read_without_tensorflow() -> None:
    """So that bad data is told before TensorFlow's seconds of start."""
    program = "import sys, trainer.data.cache, trainer.data.verify; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
