"""Which values of a mask are which class, and which mask is whose."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from maskfleet.errors import BadData, BadSettings
from tests.helpers.annotated_folders import write_coco, write_yolo
from tests.helpers.data_folders import labels, save, with_palette, write_list, write_pairs
from trainer.data.class_table import ClassTable
from trainer.data.images import check_label_sets, labels_in
from trainer.data.mask_names import MaskPattern, masks_by_image
from trainer.data.opening import open_source
from trainer.data.source import IGNORED, Reading, Source


def soft_masks(folder: Path, suffix: str) -> Path:
    """Five pairs whose masks have a grey edge, in values of 0 to 255, of 16 bits, or in shares of 1."""
    write_pairs(folder)
    for file in sorted((folder / "masks").iterdir()):
        file.unlink()
        grey = labels(0, 100, 128, 255)
        if suffix in (".npy", ".tif"):
            shares = grey.astype(np.float32) / 255
            np.save(file.with_suffix(suffix), shares) if suffix == ".npy" else save(
                Image.fromarray(shares), file.with_suffix(suffix)
            )
        elif suffix == "16.png":
            save(Image.fromarray(grey.astype(np.uint16) * 257), file)
        elif suffix == "RGB.png":
            save(Image.fromarray(grey).convert("RGB"), file)
        else:
            save(grey, file.with_suffix(suffix))
    return folder


@pytest.mark.parametrize(
    ("suffix", "threshold"),
    [(".png", 127), (".bmp", 127), (".jpg", 115), ("16.png", 32767), ("RGB.png", 127), (".npy", 0.5), (".tif", 0.5)],
)
@pytest.mark.parametrize("by_file", [False, True])
def test_a_threshold_makes_two_classes(suffix: str, threshold: float, by_file: bool, tmp_path: Path) -> None:
    folder = soft_masks(tmp_path, suffix)
    if by_file:
        (folder / "data.yaml").write_text(f"images: images\nmasks: masks\nmask_threshold: {threshold}\n")
        source = open_source(str(folder / "data.yaml"), None)
    else:
        source = open_source(f"folder:{folder}", None, Reading(mask_threshold=threshold))
    assert source.classes == ("background", "object")
    assert source.background == 0
    assert not source.read_by_label
    np.testing.assert_array_equal(source.train.read(0).mask, labels(0, 0, 1, 1))


def bordered() -> NDArray[np.uint8]:
    """Black and white with a grey border, which is too regular to be chance."""
    mask = labels(0, 255)
    mask[:, 18:22] = (60, 120, 180, 220)
    return mask


@pytest.mark.parametrize(
    ("write", "advice"),
    [
        pytest.param(lambda folder: write_pairs(folder, mask=bordered()), "127", id="smooth edges"),
        pytest.param(lambda folder: write_pairs(folder, mask=bordered(), classes=["ground", "cat"]), "127", id="named"),
        pytest.param(lambda folder: write_pairs(folder, mask=labels(0, 255)), "127", id="black and white"),
        pytest.param(lambda folder: soft_masks(folder, ".jpg"), "127", id="JPEG"),
        pytest.param(lambda folder: soft_masks(folder, ".npy"), "0.5", id="an array"),
        pytest.param(lambda folder: soft_masks(folder, ".tif"), "0.5", id="a TIFF of shares"),
    ],
)
def test_the_advice_to_give_a_threshold_can_be_followed(
    write: Callable[[Path], Path], advice: str, tmp_path: Path
) -> None:
    folder = write(tmp_path)
    with pytest.raises(BadData) as raised:
        verify_first(folder, None)
    found = re.search(r"--mask-threshold ([\d.]+)", str(raised.value))
    assert found is not None, raised.value
    assert found[1] == advice
    assert verify_first(folder, float(found[1])).classes[1] in ("object", "cat")


def verify_first(folder: Path, threshold: float | None) -> Source:
    source = open_source(f"folder:{folder}", None, Reading(mask_threshold=threshold))
    check_label_sets({labels_in(source.train.read(0).mask)}, folder)
    assert set(np.unique(source.train.read(0).mask)) == {0, 1}
    return source


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a", "b", "c"], "expected two names, of the background and of the class that is over it, found a, b, c"),
        (["0 a", "255 b"], "the class that is over it, found a, b with values of their own"),
        (["a 0 0 0", "b 9 9 9", "ignored 1 1 1"], "the class that is over it, found a, b with values of their own"),
    ],
)
def test_a_threshold_is_for_two_classes(classes: list[str], message: str, tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, mask=labels(0, 255), classes=classes)
    with pytest.raises(BadData) as raised:
        open_source(f"folder:{folder}", None, Reading(mask_threshold=127))
    assert str(raised.value).startswith(f"{folder}/classes.txt: --mask-threshold 127: ")
    assert str(raised.value).endswith(message)


def test_a_threshold_is_part_of_what_the_data_is(tmp_path: Path) -> None:
    folder = soft_masks(tmp_path, ".png")
    keys = {open_source(f"folder:{folder}", None, Reading(mask_threshold=each)).key for each in (50, 127)}
    assert len(keys) == 2


@pytest.mark.parametrize("data", ["voc:{}", "synthetic", "coco:{}"])
def test_a_threshold_is_for_pictures_with_masks(data: str, tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="--mask-threshold: is for a folder of images and masks, found"):
        open_source(data.format(tmp_path), None, Reading(mask_threshold=127))


@pytest.mark.parametrize("write", [write_yolo, write_coco], ids=["YOLO", "COCO"])
def test_a_threshold_is_for_no_shapes_that_a_data_file_names(write: Callable[[Path], Path], tmp_path: Path) -> None:
    write(tmp_path)
    if not (tmp_path / "data.yaml").exists():
        (tmp_path / "data.yaml").write_text("format: coco\n")
    with pytest.raises(BadSettings, match="--mask-threshold: is for a folder of images and masks, found --data file:"):
        open_source(str(tmp_path / "data.yaml"), None, Reading(mask_threshold=127))


def test_a_mask_in_colours_has_no_threshold(tmp_path: Path) -> None:
    red = np.zeros((30, 40, 3), np.uint8)
    red[3, 4] = (255, 0, 0)
    source = open_source(f"folder:{write_pairs(tmp_path, mask=red)}", None, Reading(mask_threshold=127))
    with pytest.raises(BadData, match="found an RGB image; --mask-threshold is for masks in grey; leave it out"):
        source.train.read(0)


@pytest.mark.parametrize(
    ("lines", "names", "stripes"),
    [
        pytest.param(["background", "cat"], ("background", "cat"), {0: 0, 1: 1, 255: 255}, id="names alone"),
        pytest.param(["background", "cat", "ignored"], ("background", "cat"), {0: 0, 1: 1, 2: 255}, id="ignored, last"),
        pytest.param(["ignored", "wall", "floor"], ("wall", "floor"), {0: 255, 1: 0, 2: 1, 255: 255}, id="ADE20K"),
        pytest.param(["Ignore", "wall", "floor"], ("wall", "floor"), {0: 255, 1: 0}, id="called ignore"),
        pytest.param(["7 road", "11 house"], ("road", "house"), {7: 0, 11: 1, 255: 255}, id="gaps"),
        pytest.param(["11: house", "7: road"], ("house", "road"), {7: 1, 11: 0}, id="the file's own order"),
        pytest.param(
            ["0 ignored", "7 road", "8 road", "9 car"], ("road", "car"), {0: 255, 7: 0, 8: 0, 9: 1}, id="merged"
        ),
        pytest.param(["1 road", "2 car", "* ignored"], ("road", "car"), {0: 255, 1: 0, 2: 1, 77: 255}, id="the others"),
        pytest.param(["* rest", "2 car"], ("rest", "car"), {0: 0, 2: 1, 77: 0, 255: 255}, id="the others, a class"),
        pytest.param(["0 ground", "255 cat"], ("ground", "cat"), {0: 0, 255: 1}, id="255 is a class"),
        pytest.param(["0 ground 1 1 1", "9 cat 3 3 3"], ("ground", "cat"), {0: 0, 9: 1}, id="values and colours"),
    ],
)
def test_a_table_says_what_values_mean(
    lines: list[str], names: tuple[str, ...], stripes: dict[int, int], tmp_path: Path
) -> None:
    folder = write_pairs(tmp_path, mask=labels(*stripes), classes=lines)
    source = open_source(f"folder:{folder}", None)
    assert source.classes == names
    np.testing.assert_array_equal(source.train.read(0).mask, labels(*stripes.values()))


@given(values=st.lists(st.integers(-5, 70000), min_size=2, max_size=9, unique=True), data=st.data())
def test_any_value_is_any_class(
    values: list[int], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also those that only a NumPy array or 16 bits hold, as numpy itself looks them up."""
    folder = tmp_path_factory.mktemp("values")
    classes = data.draw(st.lists(st.sampled_from(["a", "b", "ignored"]), min_size=len(values), max_size=len(values)))
    classes[:2] = "a", "b"
    write_list(folder / "classes.txt", [f"{value} {name}" for value, name in zip(values, classes, strict=True)])
    picked = np.array(data.draw(st.lists(st.sampled_from(range(len(values))), min_size=6, max_size=6))).reshape(2, 3)
    np.save(folder / "mask.npy", np.array(values)[picked])
    expected = np.array([{"a": 0, "b": 1, "ignored": IGNORED}[name] for name in classes], np.uint8)[picked]
    np.testing.assert_array_equal(ClassTable.read(folder / "classes.txt").read_mask(folder / "mask.npy"), expected)


def test_values_are_for_palettes_and_colours_for_rgb(tmp_path: Path) -> None:
    write_list(tmp_path / "classes.txt", ["3 road 9 8 7", "5 car 0 0 0", "* ignored"])
    table = ClassTable.read(tmp_path / "classes.txt")
    palette = save(with_palette(labels(3, 5, 6)), tmp_path / "palette.png")
    np.testing.assert_array_equal(table.read_mask(palette), labels(0, 1, 255))
    drawn = save(np.array([(9, 8, 7), (0, 0, 0)], np.uint8)[labels(0, 1)], tmp_path / "rgb.png")
    np.testing.assert_array_equal(table.read_mask(drawn), labels(0, 1))


@pytest.mark.parametrize(
    "text",
    [
        "name,r,g,b\nsky,1,2,3\nroad,4,5,6\n",
        "name, r, g, b\r\nsky, 1, 2, 3\r\nroad, 4, 5, 6\r\n",
        '\ufeffid,label,red,green,blue\n0,"sky",1,2,3\n1,"road",4,5,6\n',
        "sky,1,2,3\nroad,4,5,6\n",
    ],
)
def test_class_dict_csv(text: str, tmp_path: Path) -> None:
    mask = np.array([(1, 2, 3), (4, 5, 6)], np.uint8)[labels(0, 1)]
    folder = write_pairs(tmp_path, mask=Image.fromarray(mask))
    (folder / "class_dict.csv").write_text(text, encoding="utf-8")
    source = open_source(f"folder:{folder}", None)
    assert source.classes == ("sky", "road")
    assert source.colours.tolist() == [[1, 2, 3], [4, 5, 6]]
    np.testing.assert_array_equal(source.train.read(0).mask, labels(0, 1))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["7 road", "car"], "expected a value before the name such as '3 car', as other lines have one, found 'car'"),
        (["7 road", "7 car"], "gives the value 7 to two classes, the second car"),
        (["7 road", "99999999999 car"], "expected a value as a whole number that a mask can hold, found '99999999999'"),
        (["ignored", "car"], "expected 2 to 255 classes, one a line, found 1"),
        (
            ["7 road", "8 car 300 0 0"],
            "expected a colour such as '7 road 128 0 0', as other lines have one, found '7 road'",
        ),
        (["7 a 1 1 1", "8 b 1 1 1"], "a and b have the same colour (1, 1, 1)"),
    ],
)
def test_a_table_that_contradicts_itself(lines: list[str], message: str, tmp_path: Path) -> None:
    write_list(tmp_path / "classes.txt", lines)
    with pytest.raises(BadData) as caught:
        ClassTable.read(tmp_path / "classes.txt")
    assert str(caught.value) == f"{tmp_path / 'classes.txt'}: {message}"


def test_a_value_that_no_class_has(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, mask=labels(7, 9), classes=["7 road", "8 car"])
    with pytest.raises(BadData) as caught:
        open_source(f"folder:{folder}", None).train.read(0)
    assert str(caught.value) == (
        f"{folder}/masks/p1.png: value 9 at row 0, column 20 is none of those that the classes have (7, 8, 255); add "
        "it to them (in classes.txt: '9 NAME' or '9 ignored', for all others '* ignored')"
    )


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{}", "{}_mask"),
        ("{}", "{}_seg"),
        ("{}", "mask_{}"),
        ("{}_sat", "{}_mask"),
        ("image-{}", "gt-{}"),
        ("{}_leftImg8bit", "{}_gtFine_labelIds"),
    ],
)
@pytest.mark.parametrize("keys", [["p0", "p1", "p2"], ["0000", "0010", "0100", "1000"], ["1", "2", "10", "11"]])
def test_masks_that_are_called_otherwise_are_found(image: str, mask: str, keys: list[str]) -> None:
    masks = {mask.format(key): Path(f"{mask.format(key)}.png") for key in keys}
    pairs, others = masks_by_image([image.format(key) for key in keys], masks, None, Path("masks"))
    assert pairs == {image.format(key): Path(f"{mask.format(key)}.png") for key in keys}
    assert not others


def test_a_pattern_chooses_among_masks(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, mask=labels(0, 1))
    for file in list((folder / "masks").iterdir()):
        save(labels(1, 0), folder / "masks" / f"{file.stem}_labels.png")
        file.rename(file.with_name(f"{file.stem}_colour.png"))
    source = open_source(f"folder:{folder}", None, Reading(mask_pattern="{name}_labels.png"))
    np.testing.assert_array_equal(source.train.read(0).mask, labels(1, 0))
    assert "passed over p0_colour" in source.notes[0]


@pytest.mark.parametrize("text", ["mask", "{name}{name}", "a=b={name}", "{name}=mask", "a/{name}"])
def test_a_pattern_that_is_none(text: str) -> None:
    with pytest.raises(BadSettings, match=r"expected a mask's name with \{name\}"):
        MaskPattern.parse(text)


def test_a_pattern_is_for_pairs_alone(tmp_path: Path) -> None:
    (tmp_path / "SegmentationClass").mkdir()
    with pytest.raises(BadSettings, match="--mask-pattern: is for a folder of images and masks, found"):
        open_source(f"voc:{tmp_path}", None, Reading(mask_pattern="{name}_x"))
