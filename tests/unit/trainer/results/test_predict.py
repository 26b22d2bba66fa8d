"""Masks at the image's own size: scaled, in sliding windows, mirrored; and the files they go to."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from maskfleet.errors import BadData, BadSettings
from trainer.results.legend import Legend
from trainer.results.predict import Predictor, find_images, predict_files

LEGEND = Legend(("dark", "bright"), np.array([[9, 8, 7], [250, 240, 230]], np.uint8), None)


def brightness(images: np.ndarray) -> np.ndarray:
    """A network that any pixel's own brightness decides for."""
    bright = images.mean(axis=-1, keepdims=True, dtype=np.float32) / 255
    return np.concatenate([1 - bright, bright], axis=-1)


def leftness(images: np.ndarray) -> np.ndarray:
    """A network that sees only where a pixel lies."""
    left = np.broadcast_to(np.linspace(1, 0, images.shape[2], dtype=np.float32)[:, None], (*images.shape[:3], 1))
    return np.concatenate([1 - left, left], axis=-1)


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Two areas, dark and bright."""
    pixels = np.random.default_rng(seed).integers(0, 60, (height, width, 3), dtype=np.uint8)
    pixels[:, width // 2 :] += 190
    return pixels


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 23), (7, 90)])
@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("flip", [False, True])
def test_probabilities_have_the_images_size(height: int, width: int, window: bool, flip: bool) -> None:
    (found,) = Predictor(brightness, 16, window=window, flip=flip, batch_size=3).probabilities([image(height, width)])
    assert found.shape == (height, width, 2)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    columns = np.argmax(found, axis=-1).mean(axis=0)
    assert columns[: width // 2 - width // 12 - 1].max(initial=0) == 0
    assert columns[width // 2 + width // 12 + 1 :].min() == 1


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_windows_cover_every_pixel_at_the_images_own_scale(overlap: float) -> None:
    pixels = image(50, 37)
    (found,) = Predictor(brightness, 16, window=True, overlap=overlap).probabilities([pixels])
    np.testing.assert_allclose(found, brightness(pixels[None])[0], atol=1e-5)


def test_flipping_averages_with_the_mirrored_image() -> None:
    (found,) = Predictor(leftness, 16, flip=True).probabilities([image(16, 16)])
    np.testing.assert_allclose(found, 0.5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_the_batch_size_changes_nothing(batch_size: int) -> None:
    images = [image(20 + number, 16 + 3 * number, number) for number in range(5)]
    found = list(Predictor(brightness, 16, batch_size=batch_size).probabilities(images))
    for alone, one in zip(images, found, strict=True):
        np.testing.assert_array_equal(next(Predictor(brightness, 16).probabilities([alone])), one)


def test_files_are_a_palette_mask_an_overlay_and_probabilities(tmp_path: Path) -> None:
    PIL.Image.fromarray(image(40, 60)).save(tmp_path / "one.png")
    out = tmp_path / "out"
    predictor = Predictor(brightness, 16, window=True)
    written = list(predict_files(predictor, LEGEND, [tmp_path / "one.png"], out, with_probabilities=True))
    assert written == [out / "one.png"]
    assert sorted(path.name for path in out.iterdir()) == ["one.npy", "one.png", "one_overlay.png"]
    with PIL.Image.open(out / "one.png") as mask:
        assert (mask.mode, mask.size) == ("P", (60, 40))
        np.testing.assert_array_equal(np.unique(mask), [0, 1])
        assert mask.convert("RGB").getpixel((0, 0)) == (9, 8, 7)
        probabilities = np.load(out / "one.npy")
        np.testing.assert_array_equal(np.argmax(probabilities, -1), mask)
    with PIL.Image.open(out / "one_overlay.png") as laid_over:
        assert laid_over.width == 60
        assert laid_over.height > 40  # the legend is below


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_bad_image_stops_it_with_one_line_and_the_good_ones_before_stay(tmp_path: Path, batch_size: int) -> None:
    PIL.Image.fromarray(image(20, 20)).save(tmp_path / "good.png")
    (tmp_path / "worse.png").write_bytes(b"no picture")
    files = [tmp_path / "good.png", tmp_path / "worse.png"]
    with pytest.raises(BadData, match=r"worse\.png: expected an image"):
        list(predict_files(Predictor(brightness, 16, batch_size=batch_size), LEGEND, files, tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good.png", "good_overlay.png"]


def test_an_output_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    PIL.Image.fromarray(image(20, 20)).save(tmp_path / "good.png")
    with pytest.raises(BadSettings, match=r"--out .*good\.png: can't be written"):
        list(predict_files(Predictor(brightness, 16), LEGEND, [tmp_path / "good.png"], tmp_path / "good.png"))


def test_names_are_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "notes.txt", "._b.jpg", "deep/c.jpg", "deep/er/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(*given: str) -> list[str]:
        return [file.name for file in find_images([str(tmp_path / name) for name in given], tmp_path / "out")]

    assert names("notes.txt") == ["notes.txt"]  # a file that is named is tried whatever its suffix says
    assert names("") == ["a.PNG", "b.jpg"]
    assert names("deep/**/*.jpg", "b.jpg") == ["c.jpg", "d.jpg", "b.jpg"]
    assert names("b.jpg", "*.jpg") == ["b.jpg"]


def test_names_that_mean_nothing_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"\*\.jpg: expected an image, a folder of images .* or a pattern, found none"):
        find_images([str(tmp_path / "*.jpg")], tmp_path / "out")


@pytest.mark.parametrize(
    ("names", "output"), [(("one.jpg", "one.png"), "one.png"), (("one.jpg", "one_overlay.jpg"), "one_overlay.png")]
)
def test_two_images_of_one_output_are_one_line(names: tuple[str, str], output: str, tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in names)
    first.touch()
    second.touch()
    with pytest.raises(BadData) as caught:
        find_images([str(tmp_path)], tmp_path / "out")
    assert str(caught.value) == (
        f"{second}: expected names that differ, but {first} gets the same {output}; rename one, or predict them "
        "into different folders"
    )


@pytest.mark.parametrize("name", ["one.png", "link.png"])
def test_a_mask_never_replaces_its_image(name: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "one.png").touch()
    (photos / "link.png").symlink_to(photos / "one.png")
    (tmp_path / "out").symlink_to(photos)
    for out in (photos, tmp_path / "out"):
        with pytest.raises(BadSettings) as caught:
            find_images([str(photos / name)], out)
        assert str(caught.value) == (
            f"--out {out}: expected another folder than that of the images: {photos / name} would be replaced"
        )


def test_masks_may_lie_beside_images_of_another_suffix(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").touch()
    assert find_images([str(tmp_path)], tmp_path) == [tmp_path / "one.jpg"]
