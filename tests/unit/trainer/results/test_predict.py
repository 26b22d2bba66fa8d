"""Masks at the image's own size: scaled, in sliding windows, mirrored; and the files they go to."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from maskfleet.errors import BadData, BadSettings
from maskfleet.image_size import Size
from trainer.data.fitting import within
from trainer.data.source import Reading
from trainer.results.legend import Legend
from trainer.results.predict import Predictor, _scaled
from trainer.results.predict_files import find_images, is_done, predict_files
from trainer.results.tiles import Tile

LEGEND = Legend(("dark", "bright"), np.array([[9, 8, 7], [250, 240, 230]], np.uint8), None)


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    return np.log(probabilities + np.finfo(np.float32).tiny)


def brightness(images: np.ndarray) -> np.ndarray:
    """A network that any pixel's own brightness decides for."""
    bright = images.mean(axis=-1, keepdims=True, dtype=np.float32) / 255
    return logits_of(np.concatenate([1 - bright, bright], axis=-1))


def leftness(images: np.ndarray) -> np.ndarray:
    """A network that sees only where a pixel lies."""
    left = np.broadcast_to(np.linspace(1, 0, images.shape[2], dtype=np.float32)[:, None], (*images.shape[:3], 1))
    return logits_of(np.concatenate([1 - left, left], axis=-1))


def five_classes(images: np.ndarray) -> np.ndarray:
    """A network of which each pixel's class hangs on its neighbours; to the bit the same in any batch."""
    mixed = (images.astype(np.float32)[..., None] * np.arange(1, 16, dtype=np.float32).reshape(3, 5)).sum(-2)
    return np.sin(mixed + np.roll(mixed, 1, 1))


def put_together(tiles: Iterable[Tile], pixels: np.ndarray) -> np.ndarray:
    """The probabilities of the whole image; each pixel must come once."""
    found, times = np.zeros((*pixels.shape[:2], 0)), np.zeros(pixels.shape[:2], int)
    for tile in tiles:
        if not found.size:
            found = np.zeros((*pixels.shape[:2], tile.scores.shape[-1]), np.float32)
        found[tile.rows, tile.columns] = tile.scores
        times[tile.rows, tile.columns] += 1
    assert (times == 1).all()
    return found


def whole(predictor: Predictor, pixels: np.ndarray) -> np.ndarray:
    (tiles,) = predictor.tiles([pixels])
    return put_together(tiles, pixels)


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Two areas, dark and bright."""
    pixels = np.random.default_rng(seed).integers(0, 60, (height, width, 3), dtype=np.uint8)
    pixels[:, width // 2 :] += 190
    return pixels


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 23), (7, 90)])
@pytest.mark.parametrize("size", [Size(16, 16), Size(10, 24)])
@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("flip", [False, True])
def test_probabilities_have_the_images_size(height: int, width: int, size: Size, window: bool, flip: bool) -> None:
    found = whole(Predictor(brightness, size, 2, window=window, flip=flip, batch_size=3), image(height, width))
    assert found.shape == (height, width, 2)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    columns = np.argmax(found, axis=-1).mean(axis=0)
    assert columns[: width // 2 - width // 12 - 1].max(initial=0) == 0
    assert columns[width // 2 + width // 12 + 1 :].min() == 1


@pytest.mark.parametrize("size", [Size(16, 16), Size(10, 24)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_windows_cover_every_pixel_at_the_images_own_scale(overlap: float, size: Size) -> None:
    pixels = image(50, 37)
    found = whole(Predictor(brightness, size, 2, window=True, overlap=overlap), pixels)
    np.testing.assert_allclose(found, np.exp(brightness(pixels[None])[0]), atol=1e-5)


def test_scales_average_what_the_network_says_of_the_scaled_image() -> None:
    pixels = image(40, 24)
    found = whole(Predictor(five_classes, Size.of(16), 5, scales=(0.5, 1.0, 1.5)), pixels)
    expected = np.zeros((40, 24, 5))
    for side in (8, 16, 24):
        small = np.asarray(PIL.Image.fromarray(pixels).resize((side, side), PIL.Image.Resampling.BILINEAR))
        known, weights = np.zeros((side, side, 5)), np.zeros((side, side, 1))
        seen = np.pad(small, ((0, max(0, 16 - side)),) * 2 + ((0, 0),), "edge")
        corners = (0,) if side <= 16 else (0, 8)
        for row, column in itertools.product(corners, corners):
            probabilities = tf.nn.softmax(five_classes(seen[None, row : row + 16, column : column + 16])[0]).numpy()
            ramp = np.minimum(np.arange(1, 17), np.arange(16, 0, -1))
            weight = np.outer(ramp, ramp)[..., None]
            part = (slice(row, min(row + 16, side)), slice(column, min(column + 16, side)))
            inside = (slice(0, part[0].stop - row), slice(0, part[1].stop - column))
            known[part] += (weight * probabilities)[inside]
            weights[part] += weight[inside]
        logits = np.log(known / weights).astype(np.float32)
        expected += tf.nn.softmax(tf.image.resize(logits, (40, 24))).numpy() / 3
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("scales", [(1.0,), (2.0,), (0.5,), (0.5, 1.0, 2.0)])
@pytest.mark.parametrize(("height", "width"), [(40, 70), (20, 9)])
def test_windows_of_other_scales_cover_every_pixel(scales: tuple[float, ...], height: int, width: int) -> None:
    found = whole(Predictor(brightness, Size.of(16), 2, window=True, scales=scales, batch_size=3), image(height, width))
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    columns = np.argmax(found, axis=-1).mean(axis=0)
    assert columns[: width // 2 - 3].max(initial=0) == 0
    assert columns[width // 2 + 3 :].min() == 1


def test_a_window_of_twice_the_scale_sees_its_part_enlarged() -> None:
    pixels = image(8, 8)
    found = whole(Predictor(five_classes, Size.of(16), 5, window=True, scales=(2.0,)), pixels)
    seen = np.asarray(PIL.Image.fromarray(pixels).resize((16, 16), PIL.Image.Resampling.BILINEAR))
    expected = tf.image.resize(tf.nn.softmax(five_classes(seen[None])), (8, 8))[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_flipping_averages_with_the_mirrored_image() -> None:
    found = whole(Predictor(leftness, Size.of(16), 2, flip=True), image(16, 16))
    np.testing.assert_allclose(found, 0.5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_the_batch_size_changes_nothing(batch_size: int) -> None:
    images = [image(20 + number, 16 + 3 * number, number) for number in range(5)]
    found = Predictor(brightness, Size.of(16), 2, batch_size=batch_size).tiles(images)
    for alone, tiles in zip(images, found, strict=True):
        np.testing.assert_array_equal(whole(Predictor(brightness, Size.of(16), 2), alone), put_together(tiles, alone))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 23), (7, 90), (20, 48)])
def test_a_padded_image_keeps_its_aspect(height: int, width: int) -> None:
    seen: list[np.ndarray] = []

    def network(images: np.ndarray) -> np.ndarray:
        seen.extend(images)
        return brightness(images)

    pixels = image(height, width)
    found = whole(Predictor(network, Size(10, 24), 2, padded=True), pixels)
    inside = within(Size(height, width), Size(10, 24))
    expected = PIL.Image.fromarray(pixels).resize((inside.width, inside.height), PIL.Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(seen[0][: inside.height, : inside.width], expected)
    logits = tf.image.resize(brightness(np.asarray(expected)[None])[0], (height, width))
    np.testing.assert_allclose(found, tf.nn.softmax(logits), atol=1e-5)


def scaled_at_once(predictor: Predictor, pixels: np.ndarray) -> np.ndarray:
    """All probabilities of an image by TensorFlow's own enlargement."""
    small = np.asarray(PIL.Image.fromarray(pixels).resize((16, 16), PIL.Image.Resampling.BILINEAR))
    return tf.nn.softmax(tf.image.resize(predictor.network(small[None])[0], pixels.shape[:2])).numpy()


def slid_at_once(predictor: Predictor, pixels: np.ndarray) -> np.ndarray:
    """All probabilities of an image of at least a window's size, in one array."""
    summed, total = np.zeros((*pixels.shape[:2], predictor.classes), np.float32), np.zeros(pixels.shape[:2], np.float32)
    line = np.minimum(np.arange(1, 17), np.arange(16, 0, -1)).astype(np.float32)
    weight = np.outer(line, line)
    rows, columns = (np.linspace(0, side - 16, 1 - (16 - side) // 8).round().astype(int) for side in pixels.shape[:2])
    for row, column in itertools.product(rows, columns):
        here = (slice(row, row + 16), slice(column, column + 16))
        summed[here] += weight[..., None] * tf.nn.softmax(predictor.network(pixels[here][None])[0]).numpy()
        total[here] += weight
    return summed / total[..., None]


@pytest.mark.parametrize("numbers", [16 * 7 * 5, 1 << 22])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (47, 61), (130, 16), (16, 99)])
@pytest.mark.parametrize("window", [False, True])
def test_tiles_are_to_the_bit_what_one_array_would_hold(
    window: bool, height: int, width: int, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.results.predict._BAND", numbers)
    monkeypatch.setattr("trainer.results.predict.PART", numbers)
    predictor = Predictor(five_classes, Size.of(16), 5, window=window)
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = (slid_at_once if window else scaled_at_once)(predictor, pixels)
    np.testing.assert_array_equal(whole(predictor, pixels), expected)
    (tiles,) = predictor.tiles([pixels])
    assert max(tile.scores.size for tile in tiles) <= numbers


@pytest.mark.parametrize("whole", [0, 1 << 22])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (47, 61)])
def test_the_likeliest_class_is_told_by_logits_too(
    height: int, width: int, flip: bool, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.results.predict._WHOLE", whole)
    monkeypatch.setattr("trainer.results.predict.PART", 700)
    predictor = Predictor(five_classes, Size.of(16), 5, flip=flip)
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    (mask,) = predictor.masks([pixels], [predictor.shown(pixels)])
    (tiles,) = predictor.tiles([pixels])
    np.testing.assert_array_equal(mask, put_together(tiles, pixels).argmax(-1))


def test_files_are_a_palette_mask_an_overlay_and_probabilities(tmp_path: Path) -> None:
    PIL.Image.fromarray(image(40, 60)).save(tmp_path / "one.png")
    out = tmp_path / "out"
    predictor = Predictor(brightness, Size.of(16), 2, window=True)
    written = list(predict_files(predictor, LEGEND, [tmp_path / "one.png"], out, with_probabilities=True))
    assert written == [(tmp_path / "one.png", None)]
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
        with PIL.Image.open(out / "one.png") as mask:
            mixed = (image(40, 60).astype(int) + LEGEND.colours[np.asarray(mask)]) // 2
        np.testing.assert_array_equal(np.asarray(laid_over)[:40], mixed)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("window", [False, True])
def test_a_bad_image_is_told_and_all_others_have_their_masks(batch_size: int, window: bool, tmp_path: Path) -> None:
    for number in range(4):
        PIL.Image.fromarray(image(20, 20)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "2a.png").mkdir()
    (tmp_path / "2b.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "2c.png")
    PIL.Image.fromarray(image(30, 20)).save(tmp_path / "large.png")
    predictor = Predictor(brightness, Size.of(16), 2, window=window, batch_size=batch_size)
    files = find_images([str(tmp_path)], tmp_path / "out")
    found = dict(predict_files(predictor, LEGEND, files, tmp_path / "out", reading=Reading(max_pixels=500)))
    assert [file.name for file in found] == [file.name for file in files]
    problems = {file.stem: str(problem) for file, problem in found.items() if problem is not None}
    assert list(problems) == ["1", "2a", "2b", "2c", "large"]
    assert "expected an image, found something else or a damaged file" in problems["1"]
    assert "found a folder" in problems["2a"]
    assert "found no regular file" in problems["2c"]
    assert "--max-pixels allows 500" in problems["large"]
    masks = [f"{number}{end}.png" for number in (0, 2, 3) for end in ("", "_overlay")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == masks


def test_a_name_that_has_no_room_for_an_overlay_is_told(tmp_path: Path) -> None:
    for name in ("x" * 244, "y"):
        PIL.Image.fromarray(image(20, 20)).save(tmp_path / f"{name}.png")
    files = find_images([str(tmp_path)], tmp_path / "out")
    (_, problem), (_, other) = predict_files(Predictor(brightness, Size.of(16), 2), LEGEND, files, tmp_path / "out")
    assert "can't be written: File name too long; rename" in str(problem)
    assert other is None
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert sorted(names) == ["x" * 244 + ".png", "y.png", "y_overlay.png"]


def test_what_is_done_is_known(tmp_path: Path) -> None:
    file, out = tmp_path / "one.jpg", tmp_path / "out"
    PIL.Image.fromarray(image(20, 20)).save(file)
    assert not is_done(file, out)
    list(predict_files(Predictor(brightness, Size.of(16), 2), LEGEND, [file], out))
    assert is_done(file, out)
    assert not is_done(file, out, with_probabilities=True)
    later = (out / "one.png").stat().st_mtime + 5
    os.utime(file, (later, later))
    assert not is_done(file, out)
    os.utime(file, (0, 0))
    (out / "one_overlay.png").unlink()
    assert not is_done(file, out)


def test_names_that_are_not_utf_8_have_masks(tmp_path: Path) -> None:
    file, out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.png")), tmp_path / "out"
    PIL.Image.fromarray(image(20, 20)).save(file)
    (found,) = predict_files(Predictor(brightness, Size.of(16), 2), LEGEND, find_images([str(tmp_path)], out), out)
    assert found == (file, None)
    assert (out / file.name).is_file()


def test_an_output_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    PIL.Image.fromarray(image(20, 20)).save(tmp_path / "good.png")
    with pytest.raises(BadSettings, match=r"--out .*good\.png: can't be written"):
        list(
            predict_files(Predictor(brightness, Size.of(16), 2), LEGEND, [tmp_path / "good.png"], tmp_path / "good.png")
        )


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


PEAK = """
import resource, sys
from pathlib import Path
import numpy as np
from trainer.results.legend import Legend
from maskfleet.image_size import Size
from trainer.results.predict import Predictor
from trainer.results.predict_files import predict_files

def network(images):
    found = np.random.default_rng(0).random((len(images), 64, 64, 150), np.float32)
    return found / found.sum(-1, keepdims=True)

file, out = map(Path, sys.argv[1:3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
predictor = Predictor(network, Size(64, 64), 150, window="window" in sys.argv, overlap=0)
((_, problem),) = predict_files(predictor, Legend.unnamed(150), [file], out, with_probabilities="all" in sys.argv)
assert problem is None
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("options", [[], ["window"], ["all"]])
def test_many_classes_of_a_large_image_take_little_memory(options: list[str], tmp_path: Path) -> None:
    """3 megapixels and 150 classes are 1.8 GB."""
    PIL.Image.fromarray(image(1500, 2000)).save(tmp_path / "large.png")
    command = [sys.executable, "-c", PEAK, str(tmp_path / "large.png"), str(tmp_path / "out"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 350_000, "KiB"


@pytest.mark.parametrize("size", [Size(32, 32), Size(24, 40)])
@pytest.mark.parametrize(("height", "width"), [(90, 41), (41, 90), (1, 7), (300, 2), (150, 2), (32, 32), (31, 64)])
def test_an_image_is_scaled_in_strips_to_the_bit_as_the_cache_scales_it(
    height: int, width: int, size: Size, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.results.predict._STRIP", 200)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    expected = PIL.Image.fromarray(image).resize((size.width, size.height), PIL.Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(_scaled(image, size), expected)
