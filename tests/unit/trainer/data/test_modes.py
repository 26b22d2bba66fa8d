"""Every mode that Pillow has, as an image and as a mask: read for what its pixels mean, or refused with the mend."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from maskfleet.errors import BadData
from tests.helpers.data_folders import save, write_png, write_tiff
from trainer.data.images import read_image, read_labels, read_picture

LABELS = np.tile(np.arange(4, dtype=np.uint8), (6, 2))
"""0, 1, 2, 3 …: what each mask shall be read as."""
GREY = LABELS * np.uint8(85)
"""0, 85, 170, 255 …: what each image shall be read as."""

Pixels = NDArray[Any]
Refused = str


class Mode(NamedTuple):
    """How a file of one mode comes to be, for an image and for a mask, and what it is read as."""

    image: PIL.Image.Image
    read_as: Pixels | Refused
    mask: PIL.Image.Image
    labels: Pixels | Refused
    suffix: str = "tif"


def of(values: Pixels, mode: str = "L") -> PIL.Image.Image:
    return PIL.Image.fromarray(values).convert(mode)


def wide(values: Pixels, mode: str) -> PIL.Image.Image:
    raw = values.astype(">u2" if mode == "I;16B" else "<u2")
    return PIL.Image.frombytes(mode, (raw.shape[1], raw.shape[0]), raw.tobytes())


def blank(mode: str) -> PIL.Image.Image:
    return PIL.Image.new(mode, (8, 6))


BLACK_AND_WHITE = np.where(LABELS > 1, 255, 0).astype(np.uint8)
NO_WHITE = "whose black and white are not known; save it with 8 bits a channel, from 0 to 255"
NO_MASK = "save it as PNG with a value for each class"
WHITE_16 = GREY.astype(np.uint16) * 257
PALETTE = of(GREY, "P")  # with indices of Pillow's own
LABEL_PALETTE = PIL.Image.fromarray(LABELS)
LABEL_PALETTE.putpalette([7, 7, 7, 9, 9, 9, 200, 0, 0, 0, 200, 0])

MODES: dict[str, Mode | None] = {
    "1": Mode(of(BLACK_AND_WHITE, "1"), BLACK_AND_WHITE, of(BLACK_AND_WHITE, "1"), BLACK_AND_WHITE // 255),
    "L": Mode(of(GREY), GREY, of(LABELS), LABELS),
    "LA": Mode(of(GREY, "LA"), GREY, of(LABELS, "LA"), LABELS, "png"),
    "P": Mode(PALETTE, GREY, LABEL_PALETTE, LABELS, "png"),
    "PA": Mode(PALETTE.convert("PA"), GREY, LABEL_PALETTE.convert("PA"), LABELS),
    "RGB": Mode(of(GREY, "RGB"), GREY, of(LABELS, "RGB"), LABELS, "png"),
    "RGBA": Mode(of(GREY, "RGBA"), GREY, of(LABELS, "RGBA"), LABELS, "png"),
    "RGBX": Mode(of(GREY, "RGBX"), GREY, of(LABELS, "RGBX"), "found further bands; save it without them"),
    "CMYK": Mode(of(GREY, "CMYK"), GREY, of(LABELS, "CMYK"), f"found colours in CMYK; {NO_MASK}"),
    "YCbCr": Mode(of(GREY, "YCbCr"), GREY, of(LABELS, "YCbCr"), f"found colours in YCbCr; {NO_MASK}", "im"),
    "LAB": Mode(blank("LAB"), f"found colours in CIELAB, {NO_WHITE}", blank("LAB"), f"in CIELAB; {NO_MASK}"),
    "I": Mode(
        PIL.Image.fromarray(GREY.astype(np.int32)),
        f"found signed integers or 32 bits, {NO_WHITE}",
        PIL.Image.fromarray(LABELS.astype(np.int32)),
        LABELS,
    ),
    "F": Mode(
        PIL.Image.fromarray(GREY / np.float32(255)),
        f"found floating-point numbers, {NO_WHITE}",
        PIL.Image.fromarray(LABELS.astype(np.float32)),
        LABELS,
    ),
    "I;16": Mode(wide(WHITE_16, "I;16"), GREY, wide(LABELS, "I;16"), LABELS),
    "I;16B": Mode(wide(WHITE_16, "I;16B"), GREY, wide(LABELS, "I;16B"), LABELS),
    "I;16L": Mode(wide(WHITE_16, "I;16L"), GREY, wide(LABELS, "I;16L"), LABELS, "im"),
    # No file opens in these.
    "La": None,
    "RGBa": None,
    "HSV": None,
    "I;16N": None,
}


def test_every_mode_of_pillow_is_in_the_table() -> None:
    assert set(MODES) == set(PIL.Image.MODES)


@pytest.mark.parametrize("mode", [mode for mode, case in MODES.items() if case is None])
def test_no_file_has_such_a_mode(mode: str) -> None:
    PIL.Image.init()
    for kind in PIL.Image.SAVE.keys() - {"HEIF"}:  # whose plugin knows RGBa; it is read as RGBA is
        buffer = io.BytesIO()
        try:
            blank(mode).save(buffer, kind)
            opened = PIL.Image.open(io.BytesIO(buffer.getvalue())).mode
        except Exception:  # what each writer raises for a mode that it does not have
            continue
        assert opened != mode


@pytest.mark.parametrize("mode", [mode for mode, case in MODES.items() if case is not None])
@pytest.mark.parametrize("kind", ["image", "mask"])
def test_a_mode_is_read_for_what_it_means_or_refused(mode: str, kind: str, tmp_path: Path) -> None:
    case = MODES[mode]
    assert case is not None
    file = save(case.image if kind == "image" else case.mask, tmp_path / f"x.{case.suffix}")
    with PIL.Image.open(file) as opened:
        assert opened.mode == ("RGB" if mode == "RGBX" else mode)  # of four bands, Pillow opens three
    expected = case.read_as if kind == "image" else case.labels
    read = grey_of if kind == "image" else labels_of
    if isinstance(expected, str):
        with pytest.raises(BadData) as raised:
            read(file)
        assert str(raised.value).startswith(f"{file}: expected ")
        assert expected in str(raised.value)
        assert "\n" not in str(raised.value)
    else:
        np.testing.assert_allclose(read(file), expected, atol=1 if mode in ("YCbCr", "CMYK") else 0)


def grey_of(file: Path) -> Pixels:
    pixels = read_image(file)
    assert pixels.dtype == np.uint8
    return pixels.astype(int).mean(axis=2)


def labels_of(file: Path) -> Pixels:
    mask = read_labels(file)
    return mask.labels if mask.kind != "RGB" else mask.colours[..., 0]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_grey_of_few_bits_has_the_labels_of_the_file(bits: int, kind: str, tmp_path: Path) -> None:
    """Pillow stretches 2 and 4 bits to 255, so that labels 0, 1, 2, 3 come out as 0, 85, 170, 255."""
    values = LABELS & np.uint8(min(3, (1 << bits) - 1))
    if kind == "png":
        file = write_png(tmp_path / "x.png", bits, 0, values)
    elif bits < 8:
        pytest.skip("a TIFF of few bits is packed otherwise")
    else:
        file = write_tiff(tmp_path / "x.tif", values.astype(f"u{bits // 8}"), photometric=1)
    mask = read_labels(file)
    np.testing.assert_array_equal(mask.labels, values)
    full = {1: 255, 2: 85, 4: 17}.get(bits, 1)
    np.testing.assert_array_equal(mask.colours[..., 1], values.astype(int) * full)


@pytest.mark.parametrize("used", [8, 10, 12, 14, 16])
@pytest.mark.parametrize(
    "write",
    [
        lambda file, values: write_png(file, 16, 0, values),
        lambda file, values: write_tiff(file, values.astype(np.uint16), 1),
    ],
    ids=["PNG", "TIFF"],
)
def test_grey_of_16_bits_is_scaled_by_the_bits_in_use(
    used: int, write: Callable[[Path, Pixels], Path], tmp_path: Path
) -> None:
    """A microscope's 12 bits were black when the upper byte alone was read."""
    picture = read_picture(write(tmp_path / "x", (LABELS.astype(int) * ((1 << used) - 1) // 3)))
    np.testing.assert_array_equal(picture.pixels[..., 0], GREY)
    assert picture.depth == used


def test_grey_of_16_bits_is_rounded_not_cut(tmp_path: Path) -> None:
    ramp = np.linspace(0, 4095, 48).astype(int).reshape(6, 8)
    found = read_image(write_png(tmp_path / "x.png", 16, 0, ramp))[..., 0]
    np.testing.assert_allclose(found, ramp * 255 / 4095, atol=0.5)


def test_a_tiff_says_itself_which_value_is_white(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(LABELS.astype(np.uint16) * 1000)
    image.save(tmp_path / "x.tif", tiffinfo={281: 65535})
    assert read_image(tmp_path / "x.tif").max() == round(3000 * 255 / 65535)


WRITERS_OF_DEEP_COLOUR: dict[str, Callable[[Path, Pixels], Path]] = {
    "RGB PNG": lambda file, values: write_png(file, 16, 2, values),
    "RGBA PNG": lambda file, values: write_png(file, 16, 6, np.dstack([values, np.full_like(values[..., 0], 65535)])),
    "RGB TIFF": lambda file, values: write_tiff(file, values.astype(np.uint16), 2),
}


@pytest.mark.parametrize("used", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", WRITERS_OF_DEEP_COLOUR)
def test_colours_of_16_bits_are_scaled_by_the_bits_in_use(used: int, kind: str, tmp_path: Path) -> None:
    """A camera's 12 bits were all but black when the upper byte alone was read."""
    values = np.random.default_rng(used).integers(0, 1 << used, (6, 8, 3))
    values[0, 0] = (1 << used) - 1
    picture = read_picture(WRITERS_OF_DEEP_COLOUR[kind](tmp_path / "x", values))
    np.testing.assert_allclose(picture.pixels, values * 255 / ((1 << used) - 1), atol=0.5)
    assert picture.depth == used


def test_grey_of_16_bits_with_transparency_is_read_whole(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (6, 8))
    values[0, 0] = 4095
    file = write_png(tmp_path / "x", 16, 4, np.dstack([values, np.full_like(values, 65535)]))
    np.testing.assert_allclose(read_image(file)[..., 1], values * 255 / 4095, atol=0.5)


def test_a_file_without_a_name_is_read_whole_too(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (6, 8, 3))
    content = io.BytesIO(write_png(tmp_path / "x", 16, 2, values).read_bytes())
    np.testing.assert_allclose(read_image(content, "x"), values * 255 / 4095, atol=0.5)


def test_16_bits_that_are_in_use_are_read(tmp_path: Path) -> None:
    for file in (
        write_png(tmp_path / "grey", 16, 0, WHITE_16),
        write_png(tmp_path / "rgb", 16, 2, WHITE_16[..., None].repeat(3, axis=2)),
        write_tiff(tmp_path / "tiff", WHITE_16[..., None].repeat(3, axis=2), 2),
    ):
        np.testing.assert_array_equal(grey_of(file), GREY)
    assert not read_image(write_png(tmp_path / "black", 16, 0, np.zeros((4, 4), int))).any()


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0, 0.5], "found 0.5 at row 0, column 1"),
        ([0, np.nan], "found nan at row 0, column 1"),
        ([np.inf, 1], "found inf at row 0, column 0"),
        ([0, 1e12], "found 1e+12 at row 0, column 1"),
    ],
)
def test_a_float_mask_of_other_than_whole_numbers_is_refused(values: list[float], found: str, tmp_path: Path) -> None:
    file = save(PIL.Image.fromarray(np.array([values], np.float32)), tmp_path / "x.tif")
    with pytest.raises(BadData) as raised:
        read_labels(file)
    assert f"expected labels as whole numbers, {found}" in str(raised.value)


def test_a_float_mask_keeps_what_is_no_class(tmp_path: Path) -> None:
    file = save(PIL.Image.fromarray(np.array([[-1.0, 0, 255]], np.float32)), tmp_path / "x.tif")
    assert read_labels(file).labels.tolist() == [[-1, 0, 255]]


def drawn_in_alpha(mode: str) -> PIL.Image.Image:
    image = PIL.Image.new(mode, (8, 6))
    image.putalpha(PIL.Image.fromarray(BLACK_AND_WHITE))
    return image


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_a_mask_in_the_alpha_channel_is_refused(mode: str, tmp_path: Path) -> None:
    file = save(drawn_in_alpha("L" if mode == "LA" else "RGB"), tmp_path / "x.png")
    with pytest.raises(BadData, match="pixels of one colour differ in transparency"):
        read_labels(file)


def test_a_mask_in_the_alpha_of_a_palette_is_refused_by_colour_and_read_by_index(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(LABELS)
    image.putpalette([0, 0, 0] * 256)
    image.save(tmp_path / "x.png", transparency=bytes([0, 255, 255, 255]))
    mask = read_labels(tmp_path / "x.png")
    np.testing.assert_array_equal(mask.labels, LABELS)
    with pytest.raises(BadData, match="pixels of one colour differ in transparency"):
        _ = mask.colours


def test_a_mask_whose_alpha_says_no_more_than_its_colours_is_read(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(BLACK_AND_WHITE).convert("RGB")
    image.putalpha(PIL.Image.fromarray(BLACK_AND_WHITE))
    mask = read_labels(save(image, tmp_path / "x.png"))
    np.testing.assert_array_equal(mask.colours[..., 0], BLACK_AND_WHITE)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda mask, file: mask.save(file, "JPEG"), "expected a mask as PNG, found JPEG, which changes labels"),
        (
            lambda mask, file: mask.convert("RGB").save(file, "TIFF", compression="jpeg"),
            "found a TIFF with JPEG's compression, which changes labels",
        ),
        (
            lambda mask, file: mask.save(file, "TIFF", save_all=True, append_images=[mask]),
            "expected one mask, found several frames or pages",
        ),
        (lambda mask, file: write_tiff(file, LABELS, photometric=0), "found a TIFF whose 0 is white"),
        (
            lambda mask, file: write_tiff(file, LABELS[..., None].repeat(5, axis=2), 2, extra=[0, 0]),
            "found further bands; save it without them",
        ),
        (
            lambda mask, file: write_png(file, 16, 2, LABELS[..., None].repeat(3, axis=2)),
            "found 16 bits a channel in colour",
        ),
        (
            lambda mask, file: write_tiff(file, LABELS.astype(np.float64), 1),
            "found a TIFF of a kind that can't be read (its bands or bits)",
        ),
    ],
)
def test_masks_that_would_be_read_as_something_else_are_refused(
    spoil: Callable[[PIL.Image.Image, Path], object], message: str, tmp_path: Path
) -> None:
    spoil(PIL.Image.fromarray(LABELS), tmp_path / "x.png")
    with pytest.raises(BadData) as raised:
        read_labels(tmp_path / "x.png")
    assert message in str(raised.value)


def test_what_is_dropped_of_an_image_is_told(tmp_path: Path) -> None:
    grey = PIL.Image.fromarray(GREY)
    see_through = grey.convert("RGBA")
    see_through.putalpha(7)
    with_index = grey.convert("P")
    files = {
        (): [
            save(grey, tmp_path / "grey.png"),
            save(grey.convert("RGBA"), tmp_path / "opaque.png"),
        ],
        ("transparency",): [
            save(see_through, tmp_path / "rgba.png"),
            save(see_through, tmp_path / "rgba.webp"),
            tmp_path / "index.gif",
            tmp_path / "bytes.png",
        ],
        ("further bands",): [write_tiff(tmp_path / "nir.tif", GREY[..., None].repeat(4, axis=2), 2, extra=[0])],
        ("frames or pages after the first",): [tmp_path / "pages.tif", tmp_path / "moving.gif"],
    }
    with_index.save(tmp_path / "index.gif", transparency=int(np.asarray(with_index)[0, 0]))
    with_index.save(tmp_path / "bytes.png", transparency=bytes(range(256)))
    grey.save(tmp_path / "pages.tif", save_all=True, append_images=[grey])
    grey.save(tmp_path / "moving.gif", save_all=True, append_images=[grey.rotate(180)])
    for dropped, having in files.items():
        for file in having:
            assert read_picture(file).dropped == dropped, file


def test_pillow_warns_of_nothing(tmp_path: Path) -> None:
    """Of palettes with transparency in bytes and of large pictures it does by itself."""
    image = PIL.Image.fromarray(GREY).convert("P")
    image.save(tmp_path / "bytes.png", transparency=bytes(range(256)))
    PIL.Image.new("1", (10_000, 9_000)).save(tmp_path / "large.png")
    program = (
        "import sys; from pathlib import Path; from trainer.data.images import read_image, read_labels\n"
        "for file in Path(sys.argv[1]).iterdir(): read_image(file), read_labels(file)"
    )
    command = [sys.executable, "-W", "always", "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_picture_over_the_limit_is_told_in_our_words_and_can_be_allowed(tmp_path: Path) -> None:
    file = save(PIL.Image.new("1", (300, 200)), tmp_path / "x.png")
    for read in (read_image, read_labels):
        with pytest.raises(BadData) as raised:
            read(file, max_pixels=59_999)
        assert str(raised.value) == (
            f"{file}: has 300 x 200 = 60000 pixels, and --max-pixels allows 59999; give a larger number if memory "
            "holds it (some 10 bytes a pixel), or save it smaller"
        )
    assert read_image(file, max_pixels=60_000).shape == (200, 300, 3)
    beyond = save(PIL.Image.new("1", (13_500, 13_400)), tmp_path / "beyond.png")  # more than Pillow's limit
    with pytest.raises(BadData, match="--max-pixels allows 178956970"):
        read_image(beyond)
    assert read_labels(beyond, max_pixels=200_000_000).labels.shape == (13_400, 13_500)
