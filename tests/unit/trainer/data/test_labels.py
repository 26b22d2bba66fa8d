"""Which values of a mask are which class, and which mask is whose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskfleet.errors import BadData, BadSettings
from tests.helpers.data_folders import labels, save, with_palette, write_list, write_pairs
from trainer.data.class_table import ClassTable
from trainer.data.mask_names import MaskPattern, masks_by_image
from trainer.data.opening import open_source
from trainer.data.source import IGNORED, Reading


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
