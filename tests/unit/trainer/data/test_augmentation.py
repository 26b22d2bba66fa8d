"""Each change does what its setting says, to image and mask alike, as a function of seed and position alone."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from maskfleet.config import TrainConfig
from tests.helpers.data_folders import write_pets
from trainer.data.augmentation import Augmentation
from trainer.data.distortion import NODES, blurred, displaced, grid
from trainer.data.samples import write_samples

BENT = {"elastic": 0.05, "grid": 0.4, "blur": 1.5}
EVERYTHING = Augmentation(flip="random", flip_vertical=True, zoom=0.4, rotation=30, colour=0.4, cutout=0.3, **BENT)
SIZE = 48


def blobs(count: int, classes: int = 3) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images whose red channel is a large smooth patchwork of 0, 100 and 200, and masks that tell which."""
    random = np.random.default_rng(0)
    masks = random.integers(0, classes, (count, 3, 3), np.uint8).repeat(SIZE // 3, axis=1).repeat(SIZE // 3, axis=2)
    images = random.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    images[..., 0] = masks * 100
    return images, masks


def apply(
    augmentation: Augmentation,
    images: NDArray[np.uint8],
    masks: NDArray[np.uint8],
    positions: list[int],
    examples: list[int] | None = None,
    seed: int = 0,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    positions_tensor = tf.constant(positions, tf.int64)
    examples_tensor = positions_tensor if examples is None else tf.constant(examples, tf.int64)
    call = compiled(augmentation, seed)
    images_tensor, masks_tensor = call(tf.constant(images), tf.constant(masks), positions_tensor, examples_tensor)
    return images_tensor.numpy(), masks_tensor.numpy()


@functools.cache
def compiled(augmentation: Augmentation, seed: int) -> tf.types.experimental.PolymorphicFunction:
    return tf.function(lambda i, m, p, e: augmentation(i, m, seed=seed, positions=p, examples=e))


def test_nothing_is_changed_by_default() -> None:
    images, masks = blobs(2)
    changed, changed_masks = apply(Augmentation(), images, masks, [0, 1])
    np.testing.assert_array_equal(changed, images)
    np.testing.assert_array_equal(changed_masks, masks)


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_a_position_gives_the_same_bits_in_every_batch(batch: int) -> None:
    images, masks = blobs(15)
    whole = apply(EVERYTHING, images, masks, list(range(100, 115)))
    for start in range(0, 15, batch):
        part = slice(start, start + batch)
        found = apply(EVERYTHING, images[part], masks[part], list(range(100, 115))[part])
        np.testing.assert_array_equal(found[0], whole[0][part])
        np.testing.assert_array_equal(found[1], whole[1][part])


def test_positions_and_seeds_give_different_changes() -> None:
    images, masks = (array.repeat(8, axis=0) for array in blobs(1))
    changed = apply(EVERYTHING, images, masks, list(range(8)))[0]
    assert len({image.tobytes() for image in changed}) == 8
    assert not np.array_equal(changed, apply(EVERYTHING, images, masks, list(range(8)), seed=1)[0])


def test_a_setting_does_not_change_what_another_draws() -> None:
    images, masks = blobs(8)
    alone = apply(Augmentation(zoom=0.4, rotation=30), images, masks, list(range(8)))[1]
    more = Augmentation(zoom=0.4, rotation=30, colour=0.4, cutout=0.3, blur=1.5)
    np.testing.assert_array_equal(alone, apply(more, images, masks, list(range(8)))[1])
    bent = apply(Augmentation(elastic=0.05), images, masks, list(range(8)))[1]
    np.testing.assert_array_equal(
        bent, apply(Augmentation(elastic=0.05, colour=0.4, blur=1.0), images, masks, list(range(8)))[1]
    )


@settings(max_examples=6, deadline=None)
@given(
    zoom=st.floats(0, 1),
    rotation=st.floats(0, 180),
    flip=st.sampled_from(["none", "random"]),
    seed=st.integers(0, 2**31),
)
def test_image_and_mask_move_together(zoom: float, rotation: float, flip: str, seed: int) -> None:
    """The red channel tells the label: they agree but for the edges, where the image is interpolated."""
    images, masks = blobs(8)
    augmentation = Augmentation(flip=flip, zoom=zoom, rotation=rotation)  # type: ignore[arg-type]
    changed, changed_masks = apply(augmentation, images, masks, list(range(8)), seed=seed)
    agree = np.abs(changed[..., 0].astype(int) - changed_masks.astype(int) * 100) < 50
    assert agree.mean() > 0.93
    assert set(np.unique(changed_masks)) <= {0, 1, 2}, "a mask is never interpolated"


def test_vertical_flip_mirrors_half_of_the_images() -> None:
    images, masks = blobs(60)
    changed, changed_masks = apply(Augmentation(flip_vertical=True), images, masks, list(range(60)))
    mirrored = 0
    for number in range(60):
        flipped = np.array_equal(changed[number], images[number, ::-1])
        np.testing.assert_array_equal(changed[number], images[number, :: -1 if flipped else 1])
        np.testing.assert_array_equal(changed_masks[number], masks[number, :: -1 if flipped else 1])
        mirrored += flipped
    assert 15 < mirrored < 45


def test_zoom_stays_within_its_factor() -> None:
    """A disc in the middle keeps its share of the area, within the square of 1.5."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    masks = (np.hypot(x, y) < 6).astype(np.uint8)[None].repeat(60, axis=0)
    images = masks[..., None].repeat(3, axis=3) * 255
    areas = apply(Augmentation(zoom=0.5), images, masks, list(range(60)))[1].sum(axis=(1, 2)) / masks[0].sum()
    whole = areas[(areas > 0.3)]  # it may have left the picture
    assert whole.max() < 1.5**2 * 1.1
    assert whole.min() > 1 / 1.5**2 / 1.1
    assert (whole > 1.3).any()
    assert (whole < 0.8).any()


def test_rotation_turns_about_the_middle() -> None:
    masks = np.zeros((40, SIZE, SIZE), np.uint8)
    masks[:, SIZE // 2 - 1 : SIZE // 2 + 1, SIZE // 2 : SIZE - 12] = 1  # the hand of a clock
    images = masks[..., None].repeat(3, axis=3) * 255
    changed = apply(Augmentation(rotation=60), images, masks, list(range(40)))[1]
    angles = []
    for mask in changed:
        y, x = np.argwhere(mask).mean(axis=0) - (SIZE - 1) / 2
        assert np.hypot(x, y) == pytest.approx(6, abs=1)
        angles.append(np.degrees(np.arctan2(y, x)))
    assert max(map(abs, angles)) < 62
    assert max(angles) > 30
    assert min(angles) < -30


def test_colour_changes_brightness_and_hue_but_no_place() -> None:
    grey = np.full((30, SIZE, SIZE, 3), 100, np.uint8)
    red = grey.copy()
    red[..., 0] = 160
    masks = np.zeros((30, SIZE, SIZE), np.uint8)
    positions = list(range(30))
    of_grey = apply(Augmentation(colour=0.3), grey, masks, positions)[0]
    assert (of_grey == of_grey[:, :1, :1, :1]).all(), "grey stays grey"
    brightness = of_grey[:, 0, 0, 0] / 100
    assert 0.69 <= brightness.min() < 0.85
    assert 1.15 < brightness.max() <= 1.31
    of_red = apply(Augmentation(colour=0.3), red, masks, positions)[0]
    assert (of_red == of_red[:, :1, :1]).all()
    spread = of_red[:, 0, 0].max(axis=1).astype(int) - of_red[:, 0, 0].min(axis=1)
    assert spread.min() < 50
    assert spread.max() > 70


def test_cutout_is_a_grey_square_and_leaves_the_mask() -> None:
    images, masks = blobs(40)
    changed, changed_masks = apply(Augmentation(cutout=0.5), images, masks, list(range(40)))
    np.testing.assert_array_equal(changed_masks, masks)
    for before, after in zip(images, changed, strict=True):
        rows, columns = np.nonzero((before != after).any(axis=2))
        top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
        assert (after[top : bottom + 1, left : right + 1] == 127).all()
        assert max(bottom - top, right - left) + 1 <= SIZE / 2
        assert min(bottom - top, right - left) + 1 >= SIZE / 4  # half of it may lie outside


def test_presets_choose_the_augmentation() -> None:
    assert Augmentation.of(TrainConfig(preset="tutorial")) == Augmentation(flip="frozen")
    assert Augmentation.of(TrainConfig(preset="tutorial", colour=0.2)) == Augmentation(flip="frozen", colour=0.2)


def test_sixteen_samples_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKFLEET_CACHE", str(tmp_path / "cache"))
    folder = write_pets(tmp_path / "set", train=20)
    write_samples(TrainConfig(data=f"folder:{folder}", image_size=32), tmp_path / "samples.png")
    with Image.open(tmp_path / "samples.png") as picture:
        pixels = np.asarray(picture)
    cells = [pixels[4 + 36 * row :, 4 + 68 * column :][:32, :64] for row in range(4) for column in range(4)]
    assert pixels.shape == (4 * 36 + 4, 4 * 68 + 4, 3)
    assert len({cell[:, :32].tobytes() for cell in cells}) == 16
    assert all(len(np.unique(cell[:, 32:].reshape(-1, 3), axis=0)) == 3 for cell in cells), "a mask of three colours"


@pytest.mark.parametrize("amount", [{"elastic": 0.05}, {"elastic": 0.2}, {"grid": 0.9}, {"elastic": 0.03, "grid": 0.5}])
def test_bending_moves_image_and_mask_together(amount: dict[str, float]) -> None:
    images, masks = blobs(8)
    changed, changed_masks = apply(Augmentation(**amount), images, masks, list(range(8)))  # type: ignore[arg-type]
    assert all(not np.array_equal(old, new) for old, new in zip(masks, changed_masks, strict=True))
    agree = np.abs(changed[..., 0].astype(int) - changed_masks.astype(int) * 100) < 50
    assert agree.mean() > 0.93
    assert set(np.unique(changed_masks)) <= {0, 1, 2}, "a mask is never interpolated"


def test_a_grid_keeps_the_order_of_rows_and_columns() -> None:
    for seed in range(20):
        draws = tf.random.stateless_uniform([2, NODES - 1], [seed, 0], -1.0, 1.0)
        field = grid(draws, 40, 60, 0.9).numpy()
        rows, columns = field[0, :, 0] + np.arange(40), field[1, 0] + np.arange(60)
        assert (np.diff(rows) > 0).all()
        assert (np.diff(columns) > 0).all()
        np.testing.assert_allclose([rows[0], rows[-1], columns[0], columns[-1]], [0, 39, 0, 59], atol=1e-3)


def test_a_field_of_nothing_leaves_the_picture_as_it_is() -> None:
    images, masks = blobs(1)
    bent, mask = displaced(tf.constant(images[0]), tf.constant(masks[0]), tf.zeros([2, SIZE, SIZE]))
    np.testing.assert_array_equal(bent, images[0])
    np.testing.assert_array_equal(mask, masks[0])


def test_blur_is_a_gaussian_of_half_of_the_images_and_leaves_the_masks() -> None:
    images, masks = blobs(40)
    changed, changed_masks = apply(Augmentation(blur=2.0), images, masks, list(range(40)))
    np.testing.assert_array_equal(changed_masks, masks)
    same = [np.array_equal(old, new) for old, new in zip(images, changed, strict=True)]
    assert 10 < sum(same) < 30
    point = np.zeros((31, 31, 3), np.uint8)
    point[15, 15] = 255
    spread = blurred(tf.constant(point), tf.constant(1.5), 2.0).numpy().astype(float)[..., 0]
    distances = np.arange(31) - 15
    expected = np.exp(-0.5 * (distances / 1.5) ** 2) / np.exp(-0.5 * (distances / 1.5) ** 2).sum()
    np.testing.assert_allclose(spread, 255 * np.outer(expected, expected), atol=0.6)
