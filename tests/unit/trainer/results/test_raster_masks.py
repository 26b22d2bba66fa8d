"""Pictures that are read and whose masks are written a part at a time: the same masks as in memory, in their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from maskfleet.errors import BadData
from maskfleet.image_size import Size
from tests.unit.trainer.data.test_bands import write_raster
from trainer.data import rasters
from trainer.data.source import Reading
from trainer.results.legend import Legend
from trainer.results.predict import Predictor
from trainer.results.predict_files import is_done, predict_files

LEGEND = Legend.unnamed(5)
PLACE = from_origin(443_000, 5_700_000, 10, 10)


def network(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of five classes, by each pixel and the one above; to the bit the same in any batch."""
    mixed = images[..., :1].astype(np.float32) * np.arange(1, 6, dtype=np.float32)
    return np.sin(mixed + np.roll(mixed, 1, 1) / 2)


def predictor(*, window: bool) -> Predictor:
    return Predictor(network, Size.of(16), 5, window=window)


def in_memory(pixels: NDArray[np.uint8], *, window: bool) -> NDArray[np.uint8]:
    mask = np.empty(pixels.shape[:2], np.uint8)
    (tiles,) = predictor(window=window).tiles([pixels])
    for tile in tiles:
        mask[tile.rows, tile.columns] = tile.scores.argmax(-1)
    return mask


def pixels(bands: int = 3, height: int = 90, width: int = 70) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, bands), np.uint8)


@pytest.fixture
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rasters, "LARGE", 0)
    monkeypatch.setattr(rasters, "_STRIP", 1)


@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("bands", [1, 3, 5])
@pytest.mark.parametrize("layout", [{}, {"tiled": True, "blockxsize": 32, "blockysize": 16, "compress": "deflate"}])
def test_a_georeferenced_tiff_has_its_mask_in_its_place(
    window: bool, bands: int, layout: dict[str, object], tmp_path: Path
) -> None:
    values, out = pixels(bands), tmp_path / "out"
    file = write_raster(tmp_path / "x.tif", values, crs="EPSG:32632", transform=PLACE, **layout)
    done = list(predict_files(predictor(window=window), LEGEND, [file], out, reading=Reading(bands=bands)))
    assert done == [(file, None)]
    with rasterio.open(out / "x.tif") as mask:
        assert (mask.crs.to_epsg(), mask.transform, mask.count) == (32632, PLACE, 1)
        assert mask.colormap(1)[1] == (*LEGEND.colours[1].tolist(), 255)
        np.testing.assert_array_equal(mask.read(1), in_memory(values, window=window))
    with PIL.Image.open(out / "x_overlay.png") as overlay:
        assert overlay.width == 70
        assert overlay.height > 90
    assert {entry.name for entry in out.iterdir()} == {"x.tif", "x_overlay.png"}
    assert is_done(file, out)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_large_photograph_has_the_mask_of_a_small_one(
    orientation: int, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = PIL.Image.Exif()
    exif[274] = orientation
    file = tmp_path / f"x.{suffix}"
    PIL.Image.fromarray(pixels(height=600, width=70)).save(file, exif=exif, subsampling=0)
    found = []
    for large in (1 << 25, 0):
        monkeypatch.setattr(rasters, "LARGE", large)
        monkeypatch.setattr(rasters, "_STRIP", 1)
        out = tmp_path / str(large)
        ((_, problem),) = predict_files(predictor(window=True), LEGEND, [file], out, with_probabilities=True)
        assert problem is None
        assert sorted(entry.name for entry in out.iterdir()) == ["x.npy", "x.png", "x_overlay.png"]
        pictures = [PIL.Image.open(out / name) for name in ("x.png", "x_overlay.png")]
        assert pictures[0].mode == "P"
        found.append([np.asarray(pictures[0]), np.asarray(pictures[1]), np.asarray(pictures[0].convert("RGB")),
                      np.load(out / "x.npy")])  # fmt: skip
    for small, large_one in zip(*found, strict=True):
        assert small.shape == large_one.shape
        # GDAL's decoder of JPEG rounds a pixel in thousands otherwise, and the network makes much of that.
        assert np.mean(small == large_one) > (0.998 if suffix == "jpg" else 0.999999)


def test_16_bits_are_scaled_by_the_range_of_the_whole_raster(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (90, 70, 4)).astype(np.uint16)
    values[80, 60] = 4095
    file = write_raster(tmp_path / "x.tif", values, crs="EPSG:32632", transform=PLACE)
    assert list(predict_files(predictor(window=True), LEGEND, [file], tmp_path / "out", reading=Reading(bands=4))) == [
        (file, None)
    ]
    scaled = ((values.astype(np.uint32) * 255 + 2047) // 4095).astype(np.uint8)
    with rasterio.open(tmp_path / "out/x.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), in_memory(scaled, window=True))


@pytest.mark.usefixtures("nothing_is_small")
def test_what_is_wrong_is_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    out = tmp_path / "out"
    cut = write_raster(tmp_path / "cut.tif", pixels())
    cut.write_bytes(cut.read_bytes()[:9000])
    bands = write_raster(tmp_path / "bands.tif", pixels(5))
    floats = write_raster(tmp_path / "floats.tif", pixels().astype(np.float32))
    good = write_raster(tmp_path / "good.tif", pixels())
    large = tmp_path / "large.png"
    PIL.Image.fromarray(pixels(height=100, width=100)).save(large)
    files = [cut, bands, floats, large, good]
    problems = dict(
        predict_files(predictor(window=False), LEGEND, files, out, reading=Reading(max_pixels=6300, bands=4))
    )
    assert "expected 4 band(s), as --bands says, found 5" in str(problems[bands])
    for file in (cut, floats, large):
        assert isinstance(problems[file], BadData)
        assert str(problems[file]).startswith(f"{file}: ")
        assert "\n" not in str(problems[file])
    assert list(out.iterdir()) == []
    assert list(predict_files(predictor(window=False), LEGEND, [cut, good], out))[1] == (good, None)
    assert {entry.name for entry in out.iterdir()} == {"good.tif", "good_overlay.png"}


@pytest.mark.parametrize(("height", "width"), [(9, 11), (9, 40), (40, 9)])
def test_a_raster_smaller_than_the_window_has_its_mask_too(height: int, width: int, tmp_path: Path) -> None:
    values, out = pixels(3, height, width), tmp_path / "out"
    file = write_raster(tmp_path / "x.tif", values, crs="EPSG:32632", transform=PLACE)
    assert list(predict_files(predictor(window=True), LEGEND, [file], out)) == [(file, None)]
    with rasterio.open(out / "x.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), in_memory(values, window=True))
