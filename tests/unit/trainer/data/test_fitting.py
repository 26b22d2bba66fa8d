"""Pictures become a network's input: squashed, padded, in windows or in random parts, their masks always with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskfleet.config import TrainConfig
from maskfleet.image_size import Size
from trainer.data.cropping import CropDraws, crop
from trainer.data.fitting import Pair, inputs_of, seen_mask, within
from trainer.data.source import IGNORED
from trainer.data.windows import OVERLAP, starts, windows

sizes = st.builds(Size, st.integers(1, 90), st.integers(1, 90))
inputs = st.builds(Size, st.integers(4, 40), st.integers(4, 40))
shares = st.floats(0, 1, exclude_max=True)
draws = st.builds(CropDraws, shares, shares, shares, shares)


def picture(size: Size) -> Pair:
    """An image whose first channels tell each pixel's row and column, and whose mask is 1 in the right half."""
    image = np.zeros((*size, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(size.height)[:, None], np.arange(size.width)
    return image, (image[..., 1] >= size.width // 2).astype(np.uint8)


@given(picture=sizes, window=inputs)
def test_windows_cover_a_picture_and_their_own_parts_cover_it_once(picture: Size, window: Size) -> None:
    covered, owned = np.zeros(picture, int), np.zeros(picture, int)
    for found in windows(picture, window):
        part = covered[found.rows, found.columns]
        assert part.shape == (min(picture.height, window.height), min(picture.width, window.width))
        part += 1
        owned[found.rows, found.columns][found.own_rows, found.own_columns] += 1
    assert covered.min() == 1 or covered.min() > 1
    assert (owned == 1).all()


def test_each_pixel_counts_where_most_is_seen_around_it() -> None:
    for found in windows(Size(40, 100), Size(32, 32)):
        for place, own, side in ((found.rows, found.own_rows, 40), (found.columns, found.own_columns, 100)):
            if place.start > 0:
                assert own.start >= OVERLAP * 32 / 2
            if place.stop < side:
                assert 32 - own.stop >= OVERLAP * 32 / 2 - 1


@given(side=st.integers(4, 500), window=st.integers(2, 60), overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9]))
def test_windows_are_spread_evenly_and_overlap_as_asked(side: int, window: int, overlap: float) -> None:
    window = min(side, window)
    found = starts(side, window, overlap)
    assert (found[0], found[-1] + window) == (0, side)
    steps = np.diff(found)
    assert steps.size == 0 or (steps.max() <= max(1, int(window * (1 - overlap))) + 1 and np.ptp(steps) <= 1)


@settings(deadline=None)
@given(size=sizes, to=inputs)
def test_windows_of_a_picture_count_each_pixel_once_with_its_own_image(size: Size, to: Size) -> None:
    image, mask = picture(size)
    seen = np.zeros((*size, 2), int)
    for part, labels in inputs_of(image, mask, to, "crop"):
        assert (part.shape, labels.shape) == ((*to, 3), tuple(to))
        counted = labels != IGNORED
        rows, columns = part[..., 0][counted], part[..., 1][counted]
        np.testing.assert_array_equal(labels[counted], mask[rows, columns])
        np.add.at(seen, (rows, columns, labels[counted]), 1)
    assert (seen.sum(axis=-1) == 1).all()


@settings(deadline=None)
@given(size=sizes, to=inputs)
def test_padding_keeps_the_aspect_and_what_is_added_does_not_count(size: Size, to: Size) -> None:
    ((image, mask),) = inputs_of(*picture(size), to, "pad")
    assert (image.shape, mask.shape) == ((*to, 3), tuple(to))
    height, width = within(size, to)
    assert height == to.height or width == to.width
    # Each side is what the aspect asks for, to a pixel.
    scale = min(to.height / size.height, to.width / size.width)
    assert abs(height - size.height * scale) <= 1
    assert abs(width - size.width * scale) <= 1
    assert not (mask[:height, :width] == IGNORED).any()
    assert (mask[height:] == IGNORED).all()
    assert (mask[:, width:] == IGNORED).all()
    np.testing.assert_array_equal(image[height:], image[height - 1 : height].repeat(to.height - height, axis=0))
    np.testing.assert_array_equal(seen_mask(picture(size)[1], to, "pad"), mask[:height, :width])


@settings(deadline=None)
@given(size=sizes, to=inputs, drawn=draws)
def test_a_crop_is_a_part_of_the_picture_at_one_scale(size: Size, to: Size, drawn: CropDraws) -> None:
    image, mask = crop(*picture(size), to, drawn)
    assert (image.shape, mask.shape) == ((*to, 3), tuple(to))
    counted = mask != IGNORED
    rows, columns = counted.any(axis=1), counted.any(axis=0)
    assert (counted == (rows[:, None] & columns)).all(), "what is ignored lies around the picture"
    scale = 0.5 * 4**drawn.scale
    for axis, (side, seen) in enumerate(zip(size, (rows, columns), strict=True)):
        places = image[..., axis].take(0, axis=1 - axis)[seen].astype(int)
        if len(places) > 8:  # a pixel further in the crop is 1 / scale further in the picture
            assert (places[-1] - places[0]) / (len(places) - 1) == pytest.approx(1 / scale, rel=0.25)
        assert seen.all() or len(places) == max(1, round(side * scale)), "all that there is is seen"


def test_scales_go_from_half_to_twice_and_places_everywhere() -> None:
    image, mask = picture(Size(80, 80))
    firsts = set()
    for number in np.random.default_rng(0).random((200, 4)):
        part, _ = crop(image, mask, Size(32, 32), CropDraws(*number))
        firsts.add(tuple(part[0, 0, :2].tolist()))
    rows = [row for row, _ in firsts]
    assert (min(rows), max(rows)) == (0, max(rows))
    assert max(rows) > 45
    assert len(firsts) > 100
    ends = [crop(image, mask, Size(32, 32), CropDraws(scale, 0, 0, 0))[0][-1, 0, 0] for scale in (0, 1 / 2, 0.999)]
    assert ends == [62, 31, 15] or np.allclose(ends, [63, 31, 15], atol=1)


@settings(deadline=None)
@given(place=st.tuples(st.integers(0, 69), st.integers(0, 49)), drawn=draws)
def test_a_crop_that_must_hold_a_class_does(place: tuple[int, int], drawn: CropDraws) -> None:
    image, mask = picture(Size(70, 50))
    mask[place] = 7
    drawn = drawn._replace(scale=(1 + drawn.scale) / 2)  # not smaller than the picture, which may lose a pixel
    part, found = crop(image, mask, Size(20, 24), drawn, wanted=7)
    assert (found == 7).any()
    for axis, (there, side) in enumerate(zip(np.argwhere(found == 7).mean(axis=0), found.shape, strict=True)):
        ends = part[0 if axis else slice(None), slice(None) if axis else 0, axis][[0, -1]].tolist()
        at_rim = ends[0] == 0 or ends[1] == mask.shape[axis] - 1
        assert at_rim or side / 4 - 2 < there < 3 * side / 4 + 2, "in the middle half, but at the picture's rim"
    assert not (crop(image, mask, Size(20, 24), drawn, wanted=5)[1] == 5).any(), "a class that is not there"


@pytest.mark.parametrize(
    ("settings", "size", "zoom"),
    [
        ({"fit": "pad", "image_size": "360x480"}, (384, 480), 0.1),
        ({"fit": "pad", "image_size": 100}, (128, 128), 0.1),
        ({"fit": "pad", "data": "folder:x"}, (224, 224), 0.1),
        ({"fit": "pad", "preset": "tutorial"}, (128, 128), 0.0),
        ({"fit": "crop", "image_size": 100}, (100, 100), 0.0),
        ({"fit": "crop", "zoom": 0.2}, (128, 128), 0.2),
        ({"image_size": 100}, (100, 100), 0.1),
    ],
)
def test_a_fit_decides_about_the_size_and_the_zoom(
    settings: dict[str, object], size: tuple[int, int], zoom: float
) -> None:
    config = TrainConfig.model_validate(settings)
    assert (config.image_size, config.zoom) == (Size(*size), zoom)
    assert TrainConfig.model_validate(config.model_dump(mode="json")) == config
