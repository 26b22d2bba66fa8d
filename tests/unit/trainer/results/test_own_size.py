"""Scores at the images' own size, against an independent count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.image_size import Size
from tests.helpers.data_folders import save
from trainer.data.opening import open_source
from trainer.data.source import IGNORED
from trainer.results import own_size
from trainer.results.evaluation import whole_matrix
from trainer.results.legend import Legend
from trainer.results.own_size import evaluate_at_own_size, predictions_at_own_size
from trainer.results.predict import Predictor

SIZES = ((50, 81), (16, 16), (9, 40), (33, 17), (64, 48))
"""Height and width; some are smaller than the network's input."""
LEGEND = Legend.unnamed(3)


def network(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits that hang on a pixel and the one above it; of no meaning, and right for about half of the pixels."""
    grey = images.astype(np.float32).mean(-1)
    return np.stack([np.sin(grey), np.cos(grey / 3), np.sin(np.roll(grey, 1, 1) / 2)], axis=-1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for number, (height, width) in enumerate(SIZES):
        image = random.integers(0, 256, (5, 7, 3), np.uint8)
        mask = random.choice(np.array([0, 1, 2, IGNORED], np.uint8), (4, 3))
        for pixels, kind in ((image, "images"), (mask, "masks")):
            enlarged = PIL.Image.fromarray(pixels).resize((width, height), PIL.Image.Resampling.NEAREST)
            save(enlarged, tmp_path / kind / f"{number}.png")
    names = "".join(f"{number}\n" for number in range(len(SIZES)))
    (tmp_path / "test.txt").write_text(names)
    save(image, tmp_path / "images/train.png")
    save(np.zeros((5, 7), np.uint8), tmp_path / "masks/train.png")
    (tmp_path / "train.txt").write_text("train\n")
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    return tmp_path


def counted(folder: Path, *, flip: bool) -> NDArray[np.int64]:
    """The confusion matrix by Pillow, NumPy and TensorFlow's own enlargement."""
    matrix = np.zeros((3, 3), np.int64)
    for number, (height, width) in enumerate(SIZES):
        with PIL.Image.open(folder / f"images/{number}.png") as image:
            small = np.asarray(image.resize((16, 16), PIL.Image.Resampling.BILINEAR))[None]
        logits = network(small)[0]
        if flip:
            mirrored = network(small[:, :, ::-1])[0, :, ::-1]
            logits = np.log((tf.nn.softmax(logits).numpy() + tf.nn.softmax(mirrored).numpy()) / 2)
        found = np.argmax(tf.image.resize(logits, (height, width)), -1)
        with PIL.Image.open(folder / f"masks/{number}.png") as picture:
            truth = np.asarray(picture)
        for label in range(3):
            for guess in range(3):
                matrix[label, guess] += ((truth == label) & (found == guess)).sum()
    return matrix


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_each_image_is_counted_at_its_own_size(flip: bool, batch_size: int, folder: Path) -> None:
    predictor = Predictor(network, Size.of(16), 3, flip=flip, batch_size=batch_size)
    found = evaluate_at_own_size(predictor, open_source(f"folder:{folder}", None).test, LEGEND)
    np.testing.assert_array_equal(found.scores.matrix, counted(folder, flip=flip))
    assert len(found.image_miou) == len(SIZES)


@pytest.mark.parametrize("pixels", [1, 1700, 1 << 26])
def test_how_many_are_in_memory_together_changes_nothing(
    pixels: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_size, "PIXELS_AT_ONCE", pixels)
    found = evaluate_at_own_size(Predictor(network, Size.of(16), 3), open_source(f"folder:{folder}", None).test, LEGEND)
    np.testing.assert_array_equal(found.scores.matrix, counted(folder, flip=False))


@pytest.mark.parametrize("workers", [2, 3, 9])
def test_workers_share_the_images_and_find_the_same_together(workers: int, folder: Path) -> None:
    split, predictor = open_source(f"folder:{folder}", None).test, Predictor(network, Size.of(16), 3, batch_size=2)
    shares = [list(predictions_at_own_size(predictor, split, worker, workers)) for worker in range(workers)]
    assert sum(map(len, shares)) == len(SIZES)
    found = sum(whole_matrix(judged.truth, judged.found, 3) for share in shares for judged in share)
    np.testing.assert_array_equal(found, counted(folder, flip=False))


def test_windows_see_the_image_at_its_own_scale(folder: Path) -> None:
    """What depends on each pixel alone is then found for each pixel."""

    def brightness(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return 9 * np.eye(3, dtype=np.float32)[images[..., 0] % 3]

    found = evaluate_at_own_size(
        Predictor(brightness, Size.of(16), 3, window=True), open_source(f"folder:{folder}", None).test, LEGEND
    )
    expected = np.zeros((3, 3), np.int64)
    for number in range(len(SIZES)):
        with (
            PIL.Image.open(folder / f"images/{number}.png") as image,
            PIL.Image.open(folder / f"masks/{number}.png") as mask,
        ):
            truth, guess = np.asarray(mask), np.asarray(image)[..., 0] % 3
        np.add.at(expected, (truth[truth != IGNORED], guess[truth != IGNORED]), 1)
    np.testing.assert_array_equal(found.scores.matrix, expected)
