"""Whether a run is tested on what it was trained on is told, also after its data has changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from maskfleet.files import write_json
from maskfleet.run_directory import RunDirectory
from trainer.data.cache import Arrays, Dataset
from trainer.data.source import palette
from trainer.results.trained_on import Overlap, compare_with_training, record_examples


def split(pictures: Sequence[int], names: Sequence[str] | None = None) -> Arrays:
    """Pictures of one grey each."""
    images = np.array([np.full((8, 8, 3), grey) for grey in pictures], np.uint8)
    return Arrays(tuple(names or [f"{grey}.png" for grey in pictures]), images, images[..., 0] * 0)


def dataset(train: Arrays, test: Arrays, fingerprint: str) -> Dataset:
    return Dataset("pairs", ("a", "b"), palette(2), None, train, test, fingerprint)


BEFORE = dataset(split([1, 2, 3, 4]), split([5, 6]), "one")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path)
    write_json(run.config, {"settings": {}, "data_fingerprint": "one"})
    record_examples(run, BEFORE)
    return run


def test_the_run_s_own_data_needs_no_word(run: RunDirectory) -> None:
    assert compare_with_training(run, BEFORE) == Overlap((), None)


def test_a_pair_that_moves_the_splits_is_told(run: RunDirectory) -> None:
    now = dataset(split([1, 5, 3, 6]), split([2, 4, 7]), "two")
    assert compare_with_training(run, now) == Overlap(
        ("2.png", "4.png"),
        f"the data is not what {run.path} was trained on: of 3 test pictures 3 are new, and 2 of the run's are gone; "
        "2 of 3 test pictures were trained on (2.png, 4.png), and the scores are too good",
    )


def test_a_picture_is_known_by_another_name_in_other_data(run: RunDirectory) -> None:
    found = compare_with_training(run, dataset(split([9]), split([8, 3], ["x", "copy of 3"]), "other"))
    assert found.trained_on == ("copy of 3",)


def test_other_data_of_which_nothing_was_trained_on_is_told_too(run: RunDirectory) -> None:
    found = compare_with_training(run, dataset(split([9]), split([5, 8]), "other"))
    assert found.trained_on == ()
    assert str(found.warning).endswith(
        "of 2 test pictures 1 are new, and 1 of the run's are gone; none of them was trained on"
    )


def test_masks_that_have_changed_are_told(run: RunDirectory) -> None:
    found = compare_with_training(run, dataset(BEFORE.train, BEFORE.test, "two"))
    assert "the 2 test pictures are the same, but masks, classes or training pictures differ" in str(found.warning)


def test_a_picture_in_both_splits_from_the_beginning_is_told(tmp_path: Path) -> None:
    run, both = RunDirectory(tmp_path), dataset(split([1, 2]), split([2, 3]), "one")
    write_json(run.config, {"settings": {}, "data_fingerprint": "one"})
    record_examples(run, both)
    found = compare_with_training(run, both)
    assert found.trained_on == ("2.png",)
    assert "1 of 2 test pictures were trained on (2.png)" in str(found.warning)


@pytest.mark.parametrize("content", [None, b"", b"[" * 100_000, b'{"fingerprint": "one", "train": 3, "test": {}}'])
def test_a_run_without_a_good_record_says_what_it_can_not_know(content: bytes | None, run: RunDirectory) -> None:
    if content is None:
        run.examples.unlink()
    else:
        run.examples.write_bytes(content)
    assert compare_with_training(run, BEFORE) == Overlap(None, None)
    found = compare_with_training(run, dataset(BEFORE.train, BEFORE.test, "two"))
    assert found.trained_on is None
    assert str(found.warning).endswith("has not recorded which pictures it has seen: it may be tested on some of them")
    record_examples(run, BEFORE)
    assert compare_with_training(run, BEFORE) == Overlap((), None)


def test_what_is_recorded_is_written_once(run: RunDirectory) -> None:
    before = run.examples.stat().st_mtime_ns
    record_examples(run, BEFORE)
    assert run.examples.stat().st_mtime_ns == before


def test_a_line_names_three_of_many_pictures(run: RunDirectory) -> None:
    names = [f"{'long' * 100}{number}" for number in range(4)]
    found = compare_with_training(run, dataset(split([9]), split([1, 2, 3, 4], names), "two"))
    assert found.trained_on == tuple(names)
    assert len(str(found.warning)) < 1000


def test_the_training_split_is_what_was_trained_on(run: RunDirectory) -> None:
    found = compare_with_training(run, BEFORE, "train")
    assert found.warning == "these 4 pictures were trained on, and the scores are too good"


def test_a_test_picture_by_which_the_run_chose_is_told(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    write_json(run.config, {"settings": {}, "data_fingerprint": "one"})
    before = Dataset("pairs", ("a", "b"), palette(2), None, split([1, 2]), split([5, 6]), "one", split([3, 4]))
    record_examples(run, before)
    assert compare_with_training(run, before) == Overlap((), None)
    assert compare_with_training(run, before, "validation") == Overlap((), None)
    now = Dataset("pairs", ("a", "b"), palette(2), None, split([1, 2]), split([4, 6]), "two", split([3, 5]))
    assert str(compare_with_training(run, now).warning).endswith(
        "none of them was trained on; 1 of 2 test pictures (4.png) are of the validation split by which the run chose"
    )


def test_a_run_of_before_whose_test_split_is_for_validation_now(run: RunDirectory) -> None:
    """As of PASCAL VOC, whose val.txt it is."""
    nothing = split([1])
    nothing = Arrays((), nothing.images[:0], nothing.masks[:0])
    now = Dataset("pairs", ("a", "b"), palette(2), None, BEFORE.train, nothing, "one", BEFORE.test)
    assert compare_with_training(run, now) == Overlap((), None)
