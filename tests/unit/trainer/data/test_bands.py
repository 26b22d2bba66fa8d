"""Pictures of other than three bands, and of 16 bits: read as NumPy has them, and refused in one line."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import rasterio
from numpy.typing import NDArray

from maskfleet.config import TrainConfig
from maskfleet.errors import BadData, BadSettings
from maskfleet.settings import Layer
from tests.helpers.data_folders import save, write_list
from trainer.data import rasters
from trainer.data.cache import load_dataset
from trainer.data.images import read_picture
from trainer.data.opening import open_source
from trainer.data.orientation import upright
from trainer.data.source import Reading

RANDOM = np.random.default_rng(0)


def samples(bands: int, bits: int = 8, height: int = 12, width: int = 18) -> NDArray[np.integer]:
    """With the largest value that so many bits have."""
    values = RANDOM.integers(0, 1 << bits, (height, width, bands)).astype(np.uint8 if bits == 8 else np.uint16)
    values[0, 0] = (1 << bits) - 1
    return values


def write_raster(file: Path, values: NDArray[np.generic], **more: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    height, width, bands = values.shape
    options = {"driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": values.dtype, **more}
    with rasterio.open(file, "w", **options) as raster:
        raster.write(np.moveaxis(values, -1, 0))
    return file


def write_array(file: Path, values: NDArray[np.generic]) -> Path:
    np.save(file.with_suffix(".npy"), values)
    return file.with_suffix(".npy")


@pytest.mark.parametrize("bands", [1, 2, 4, 5, 13])
@pytest.mark.parametrize("write", [write_raster, write_array], ids=["TIFF", "NPY"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_bands_are_those_of_the_file(bands: int, write: object, bits: int, tmp_path: Path) -> None:
    values = samples(bands, bits)
    found = read_picture(write(tmp_path / "x.tif", values), bands=bands)  # type: ignore[operator]
    np.testing.assert_allclose(found.pixels, values * (255 / ((1 << bits) - 1)), atol=0.5)
    assert found.depth == (None if bits == 8 else bits)


@pytest.mark.parametrize(
    "layout",
    [
        {"compress": "deflate", "predictor": 2},
        {"compress": "lzw"},
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"interleave": "band"},
    ],
)
def test_tiffs_of_any_layout_are_read(layout: dict[str, object], tmp_path: Path) -> None:
    values = samples(6, 16)
    found = read_picture(write_raster(tmp_path / "x.tif", values, **layout), bands=6)
    np.testing.assert_allclose(found.pixels, values / 257, atol=0.5)


def test_colours_of_16_bits_in_a_compressed_tiff_are_read_whole(tmp_path: Path) -> None:
    """By Pillow, as three bands are, against rasterio."""
    values = samples(3, 12)
    for layout in ({"compress": "deflate"}, {"compress": "lzw"}, {"ENDIANNESS": "BIG"}):
        file = write_raster(tmp_path / "x.tif", values, photometric="RGB", **layout)
        picture = read_picture(file)
        np.testing.assert_allclose(picture.pixels, values * (255 / 4095), atol=0.5)
        assert picture.depth == 12


def test_grey_and_transparency_are_bands_where_so_many_are_asked_for(tmp_path: Path) -> None:
    values = samples(4)
    file = save(PIL.Image.fromarray(values, "RGBA"), tmp_path / "x.png")
    np.testing.assert_array_equal(read_picture(file, bands=4).pixels, values)
    file = save(PIL.Image.fromarray(values[..., 0]), tmp_path / "grey.png")
    np.testing.assert_array_equal(read_picture(file, bands=1).pixels, values[..., :1])


BAD = {
    "bands": (samples(5), "expected 4 band(s), as --bands says, found 5; give --bands 5, if all pictures have them"),
    "floats": (samples(4).astype(np.float32), "expected samples of 8 or 16 bits from 0 on, found float32"),
    "negative": (samples(4).astype(np.int16) - 1, "expected samples of 8 or 16 bits from 0 on, found int16 below 0"),
    "32 bits": (samples(4).astype(np.uint32), "expected samples of 8 or 16 bits from 0 on, found uint32"),
    "turned": (np.moveaxis(samples(4), -1, 0), "save it as height x width x bands"),
    "flat": (samples(4).ravel(), "expected an array of height x width x bands, found 864"),
    "large": (samples(4, 8, 40, 40), "has 40 x 40 = 1600 pixels, and --max-pixels allows 900"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("write", [write_raster, write_array], ids=["TIFF", "NPY"])
def test_other_samples_are_refused_in_one_line(case: str, write: object, tmp_path: Path) -> None:
    values, message = BAD[case]
    if values.ndim == 1 and write is write_raster:
        pytest.skip("a TIFF has two axes")
    file = write(tmp_path / "x.tif", values)  # type: ignore[operator]
    with pytest.raises(BadData) as raised:
        read_picture(file, bands=4, max_pixels=900)
    assert str(raised.value).startswith(f"{file}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"II*\0 and no more", b"\x93NUMPY and no more"])
@pytest.mark.parametrize("name", ["x.tif", "x.npy"])
def test_damaged_files_are_refused_in_one_line(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadData) as raised:
        read_picture(tmp_path / name, bands=4)
    assert str(raised.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("data", ["synthetic", "oxford_iiit_pet", "tfds:cityscapes", "packed:x", "python:x:y"])
def test_data_of_three_bands_is_refused_before_anything_is_read(data: str) -> None:
    with pytest.raises(BadSettings, match=r"--bands 4: --data .* has three bands; name a folder or a data file"):
        TrainConfig.resolve([Layer("flags", {"data": data, "bands": 4})])


@pytest.mark.parametrize("data", ["synthetic", "oxford_iiit_pet", "tfds:cityscapes", "packed:x", "python:x:y"])
def test_data_of_three_bands_is_refused_of_a_network_of_others(data: str) -> None:
    with pytest.raises(BadSettings, match=r"--data .*: has three bands, expected 4"):
        open_source(data, None, Reading(bands=4))


def test_the_white_that_a_tiff_says_counts_in_any_number_of_bands(tmp_path: Path) -> None:
    values = samples(4, 10)
    file = write_raster(tmp_path / "x.tif", values)
    with rasterio.open(file, "r+") as raster:
        raster.update_tags(TIFFTAG_MAXSAMPLEVALUE="4095")
    picture = read_picture(file, bands=4)
    np.testing.assert_allclose(picture.pixels, values * (255 / 4095), atol=0.5)
    assert picture.depth == 12
    with rasterio.open(file) as raster:
        np.testing.assert_array_equal(rasters.Raster(raster, 4, "x", is_tiff=True)[:], picture.pixels)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_tiff_of_any_bands_is_read_as_it_is_displayed(orientation: int, tmp_path: Path) -> None:
    values = samples(1)
    PIL.Image.fromarray(values[..., 0]).save(tmp_path / "x.tif", tiffinfo={274: orientation})
    for bands in (1, 3):
        picture = read_picture(tmp_path / "x.tif", bands=bands)
        np.testing.assert_array_equal(picture.pixels[..., :1], upright(values, orientation))
        assert picture.orientation == orientation


def test_a_turned_tiff_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rasters, "LARGE", 0)
    for orientation in (1, 6):
        PIL.Image.fromarray(samples(3)).save(tmp_path / "x.tif", tiffinfo={274: orientation})
        assert rasters.is_raster(tmp_path / "x.tif") is (orientation == 1)


def test_a_palette_is_no_brightness(tmp_path: Path) -> None:
    for suffix in ("png", "tif"):
        file = save(PIL.Image.fromarray(samples(3)).quantize(8), tmp_path / f"x.{suffix}")
        with pytest.raises(BadData, match="expected brightness, as --bands says, found indices into a palette"):
            read_picture(file, bands=1)


def test_a_png_of_16_bits_a_channel_is_not_read_by_its_upper_bytes(tmp_path: Path) -> None:
    values = samples(4, 16)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 18, 12, 16, 6, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    content = b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in chunks
    )
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(BadData, match="16 bits a channel are read of a TIFF or NPY"):
        read_picture(tmp_path / "x.png", bands=4)


def test_a_small_photograph_needs_no_rasterio(tmp_path: Path) -> None:
    save(PIL.Image.fromarray(samples(3)), tmp_path / "x.jpg")
    program = "import sys, pathlib, trainer.data.rasters as r; r.is_raster(pathlib.Path(sys.argv[1])); " + (
        "sys.exit('rasterio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path / "x.jpg")]).returncode == 0


def test_the_cache_has_each_band_scaled_as_grey(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    values = {name: samples(5) for name in ("a", "b")}
    for name, each in values.items():
        write_raster(folder / "images" / f"{name}.tif", each)
        save(each[..., 0] % 2, folder / "masks" / f"{name}.png")
    for split, name in (("train", "a"), ("test", "b")):
        write_list(folder / f"{split}.txt", [name])
    dataset = load_dataset(f"folder:{folder}", None, 32, tmp_path / "cache", reading=Reading(bands=5))
    for band in range(5):
        expected = PIL.Image.fromarray(values["a"][..., band]).resize((32, 32), PIL.Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(dataset.train.images[0, ..., band], expected)
