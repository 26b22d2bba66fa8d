"""Which example is in which split: as lists and folders say, and as the settings ask for."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskfleet.config import TrainConfig
from maskfleet.errors import BadData, BadSettings
from tests.helpers.data_folders import labels, picture, save, write_list, write_pairs, write_pets, write_voc
from trainer.data.cache import load_dataset
from trainer.data.lists import TEST_SHARE, held_out
from trainer.data.opening import open_source
from trainer.data.source import NO_EXAMPLES, Example, Source, Split, palette
from trainer.data.splits import Division, check_whole, divide_anew, torn_groups


def names_of(source: Source) -> dict[str, tuple[str, ...]]:
    return {name: split.names for name, split in source.splits.items()}


def source_of(train: Sequence[str], test: Sequence[str] = (), validation: Sequence[str] = (), **changes: Any) -> Source:
    """Of pictures that say their number among all of them."""

    def split(names: Sequence[str], first: int) -> Split:
        return Split(tuple(names), lambda i: Example(np.full((1, 1, 3), first + i, np.uint8), labels(0)))

    return Source(
        "set",
        ("a", "b"),
        palette(2),
        None,
        split(train, 0),
        split(test, 200) if test else NO_EXAMPLES,
        "key",
        validation=split(validation, 100) if validation else None,
        **changes,
    )


# As the layout says


@pytest.mark.parametrize("validation", ["val.txt", "valid.txt", "Validation.txt"])
@pytest.mark.parametrize("with_test", [True, False])
def test_a_list_of_validation_images_is_a_split(validation: str, with_test: bool, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfp0\r\np3.jpg\r\n")  # as Windows writes it
    write_list(tmp_path / validation, ["p1"])
    expected = {"train": ("p0", "p3"), "validation": ("p1",)}
    if with_test:
        write_list(tmp_path / "test.txt", ["p4", "p2"])
        expected["test"] = ("p4", "p2")
    source = open_source(f"folder:{tmp_path}", None)
    assert names_of(source) == expected
    assert source.notes == (
        () if with_test else (f"{tmp_path}: 2 images are named neither in train.txt nor in {validation}",)
    )


def move_into_folders(folder: Path, above: bool, **splits: Sequence[str]) -> None:
    for split, names in splits.items():
        for kind, suffix in (("images", ".jpg"), ("masks", ".png")):
            place = folder / split / kind if above else folder / kind / split
            place.mkdir(parents=True)
            for name in names:
                (folder / kind / f"{name}{suffix}").rename(place / f"{name}{suffix}")
    if above:
        (folder / "images").rmdir()
        (folder / "masks").rmdir()


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize(
    "words", [("train", "val", "test"), ("training", "validation", "testing"), ("Train", "valid", "test")]
)
def test_folders_of_the_splits_above_and_below_images_and_masks(
    above: bool, words: tuple[str, str, str], tmp_path: Path
) -> None:
    write_pairs(tmp_path)
    parts = (["p0", "p2"], ["p1"], ["p3", "p4"])
    move_into_folders(tmp_path, above, **dict(zip(words, parts, strict=True)))
    source = open_source(f"folder:{tmp_path}", None)
    assert names_of(source) == {"train": ("p0", "p2"), "validation": ("p1",), "test": ("p3", "p4")}
    assert source.classes == ("class_0", "class_1", "class_2")
    example = source.splits["validation"].read(0)
    image, mask = example.image, example.mask
    assert (mask == labels(0, 1, 2)).all()
    assert abs(image.astype(int) - np.asarray(picture(1), int)).mean() < 20  # JPEG
    dataset = load_dataset(f"folder:{tmp_path}", None, 32, tmp_path / "cache")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 2, "validation": 1, "test": 2}


@pytest.mark.parametrize("above", [True, False])
def test_the_same_name_in_two_folders_is_two_examples(above: bool, tmp_path: Path) -> None:
    write_pairs(tmp_path, count=4)
    move_into_folders(tmp_path, above, train=["p0", "p1"], val=["p2", "p3"])
    for file in (*tmp_path.rglob("p2.*"), *tmp_path.rglob("p3.*")):
        file.rename(file.with_stem(f"p{int(file.stem[1]) - 2}"))
    source = open_source(f"folder:{tmp_path}", None)
    assert names_of(source) == {"train": ("p0", "p1"), "validation": ("p0", "p1")}
    folded = divide_anew(source, Division(folds=2, fold=0))
    assert sorted(folded.train.names + folded.splits["validation"].names) == [
        "train/p0",
        "train/p1",
        "validation/p0",
        "validation/p1",
    ]


def test_one_folder_alone_is_divided(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    move_into_folders(tmp_path, False, train=[f"p{i}" for i in range(5)])
    source = open_source(f"folder:{tmp_path}", None)
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 4, "test": 1}
    assert source.split_by == "hash"
    assert "has no folder of another split than train: a fifth of it is for testing" in source.notes[0]


def test_a_file_that_moves_to_another_folder_makes_the_cache_anew(tmp_path: Path) -> None:
    write_pairs(tmp_path / "set")
    move_into_folders(tmp_path / "set", False, train=["p0", "p1"], test=["p2", "p3", "p4"])
    before = load_dataset(f"folder:{tmp_path / 'set'}", None, 32, tmp_path / "cache")
    for kind, suffix in (("images", ".jpg"), ("masks", ".png")):
        place = tmp_path / "set" / kind
        (place / "test" / f"p2{suffix}").rename(place / "train" / f"p2{suffix}")
    now = load_dataset(f"folder:{tmp_path / 'set'}", None, 32, tmp_path / "cache")
    assert (len(before.train), len(now.train)) == (2, 3)


def test_a_test_split_whose_masks_are_withheld_is_passed_over(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs")
    for name, named in (("train", ["p0", "p1"]), ("val", ["p2"]), ("test", ["p3", "p4"])):
        write_list(pairs / f"{name}.txt", named)
    voc = write_voc(tmp_path / "voc")
    write_list(voc / "ImageSets/Segmentation/test.txt", ["2008_1", "2008_2"])
    folders = write_pairs(tmp_path / "folders")
    move_into_folders(folders, True, train=["p0", "p1"], val=["p2"], test=["p3", "p4"])
    shutil.rmtree(folders / "test" / "masks")
    for name in ("p3", "p4"):
        (pairs / "masks" / f"{name}.png").unlink()
    for data in (f"folder:{pairs}", f"voc:{voc}", f"folder:{folders}"):
        source = open_source(data, None)
        assert [*source.splits] == ["train", "validation"], data
        assert any("passed over, as there are no masks of" in note for note in source.notes), data


def test_voc_has_three_splits(tmp_path: Path) -> None:
    write_voc(tmp_path)
    write_list(tmp_path / "ImageSets/Segmentation/train.txt", ["2007_000000", "2007_000001"])
    write_list(tmp_path / "ImageSets/Segmentation/test.txt", ["2007_000002"])
    source = open_source(f"voc:{tmp_path}", None)
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 2, "validation": 2, "test": 1}


# As the settings ask for


def test_a_share_is_held_out_by_a_hash_of_the_names_and_the_test_split_stays() -> None:
    source = source_of([f"p{i}" for i in range(100)], ["t0", "t1"])
    divided = divide_anew(source, Division(validation_share=0.1))
    assert {name: len(split) for name, split in divided.splits.items()} == {"train": 90, "validation": 10, "test": 2}
    assert sorted(divided.train.names + divided.splits["validation"].names) == sorted(source.train.names)
    for split in (divided.train, divided.splits["validation"]):
        assert all(split.read(i).image[0, 0, 0] == int(name[1:]) for i, name in enumerate(split.names))
    assert divided.key != source.key
    reverse = divide_anew(source_of([f"p{i}" for i in reversed(range(100))], ["t0"]), Division(validation_share=0.1))
    assert {*reverse.splits["validation"].names} == {*divided.splits["validation"].names}


def test_few_images_change_sides_when_some_are_added() -> None:
    division = Division(validation_share=0.2)
    before, more = (divide_anew(source_of([f"p{i}" for i in range(n)], ["t"]), division) for n in (100, 110))
    assert len({*before.splits["validation"].names} & {*more.splits["validation"].names}) >= 17


GROUPED = [f"{patient}_{i}" for patient in "abcdefghij" for i in range(5)]


@pytest.mark.parametrize("pattern", ["^[^_]+", "^(.)_", "(?P<patient>[a-z])"])
@pytest.mark.parametrize("settings", [{"validation_share": 0.2}, {"folds": 3, "fold": 1}, {"folds": 8, "fold": 7}, {}])
@pytest.mark.parametrize("split_by", ["layout", "hash"])
def test_all_pictures_of_a_group_are_on_one_side(pattern: str, settings: dict[str, Any], split_by: str) -> None:
    train, test = (GROUPED[:40], GROUPED[40:]) if split_by == "layout" else (GROUPED[::2], GROUPED[1::2])
    division = Division(group_by=pattern, **settings)
    divided = divide_anew(source_of(train, test, split_by=split_by), division)
    check_whole(divided, division)
    sides = [{name[0] for name in split.names} for split in divided.splits.values()]
    assert sum(map(len, sides)) == 10
    assert sorted(name for split in divided.splits.values() for name in split.names) == sorted(GROUPED)
    assert len(divided.splits) == (3 if settings else 2)
    if split_by == "layout":
        assert divided.test.names == tuple(test)


@given(st.integers(2, 7), st.lists(st.sampled_from("abcdefghijklm"), min_size=30, max_size=200), st.booleans())
def test_each_picture_is_in_one_fold(folds: int, groups: list[str], grouped: bool) -> None:
    names = [f"{group}_{i}" for i, group in enumerate(groups)]
    if grouped and len(set(groups)) < folds:
        return
    source = source_of(names, ["z_0"])
    parts = [
        divide_anew(source, Division(group_by="^." if grouped else None, folds=folds, fold=fold))
        for fold in range(folds)
    ]
    counts = Counter(name for part in parts for name in part.splits["validation"].names)
    assert counts == Counter(names)
    assert all(len(part.train) + len(part.splits["validation"]) == len(names) for part in parts)
    if not grouped:
        sizes = [len(part.splits["validation"]) for part in parts]
        assert max(sizes) - min(sizes) <= 1


@given(st.integers(2, 3000))
def test_a_fifth_is_divided_off_as_it_always_was(count: int) -> None:
    assert len(held_out([str(i) for i in range(count)], TEST_SHARE)) == max(1, round(count / 5))


def test_folds_divide_training_and_validation_anew_and_leave_the_test_split() -> None:
    source = source_of(["a", "b", "c"], ["t"], ["d", "e", "f"])
    divided = divide_anew(source, Division(folds=3, fold=0))
    assert len(divided.splits["validation"]) == 2
    assert sorted(divided.train.names + divided.splits["validation"].names) == [*"abcdef"]
    assert divided.test.names == ("t",)


def test_torn_groups_of_the_data_s_own_lists() -> None:
    division = Division(group_by="^.")
    source = source_of(["a_0", "b_0", "b_1"], ["c_0"], ["a_1"])
    assert torn_groups(source, division) == {"a": ["train", "validation"]}
    with pytest.raises(BadData, match="expected all pictures of a group in one split, found a in train and validation"):
        check_whole(source, division)


def test_each_division_has_a_fingerprint_of_its_own_and_none_has_that_of_before(tmp_path: Path) -> None:
    write_pairs(tmp_path / "set", count=12)
    prints = [
        load_dataset(f"folder:{tmp_path / 'set'}", None, 32, tmp_path / "cache", division=division).fingerprint
        for division in (
            Division(),
            Division(validation_share=0.1),
            Division(validation_share=0.3),
            Division(folds=3, fold=0),
            Division(folds=3, fold=1),
            Division(group_by="."),
        )
        if division != Division(group_by=".")
    ]
    assert len(set(prints)) == len(prints)


def test_data_with_two_splits_has_the_fingerprint_of_before(tmp_path: Path) -> None:
    dataset = load_dataset("synthetic", None, 32, tmp_path)
    assert dataset.fingerprint == "004ee5c2b0bc8d175364ec27d2e57a1f3810aba49135fd58dee0382ff893db7b"


def test_a_run_on_voc_of_before_goes_on(tmp_path: Path) -> None:
    """Its val.txt was taken for the test split: the same examples are as good for validation."""
    folder = write_voc(tmp_path / "set")
    now = load_dataset(f"voc:{folder}", None, 32, tmp_path / "cache")
    (folder / "ImageSets/Segmentation/val.txt").rename(folder / "ImageSets/Segmentation/test.txt")
    before = load_dataset(f"voc:{folder}", None, 32, tmp_path / "cache")
    assert (now.chooser, now.judge, before.chooser, before.judge) == ("validation", "validation", "test", "test")
    assert now.fingerprint == before.fingerprint
    assert (now.judges.images == before.judges.images).all()


# What is wrong, in one line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_share": 0}, "--validation-share: input should be greater than 0, found 0"),
        ({"validation_share": 1}, "--validation-share: input should be less than 1, found 1"),
        ({"validation_share": "nan"}, "--validation-share: expected a finite number, found 'nan'"),
        ({"group_by": "("}, "--group-by: expected a regular expression: missing ), unterminated subpattern"),
        ({"group_by": ""}, "--group-by: expected a regular expression such as"),
        ({"folds": 1, "fold": 0}, "--folds: input should be greater than or equal to 2, found 1"),
        ({"folds": 5, "fold": -1}, "--fold: input should be greater than or equal to 0, found -1"),
        ({"folds": 5, "fold": 5}, "--fold 5: expected 0 to 4, as there are --folds 5"),
        ({"folds": 5}, "--folds: expected --fold beside it: --folds 5 --fold 0 validates on the first of 5"),
        ({"fold": 0}, "--fold: expected --folds beside it"),
        (
            {"folds": 5, "fold": 0, "validation_share": 0.1},
            "--validation-share and --folds both make a",
        ),
    ],
)
def test_settings_that_divide_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    from maskfleet.settings import Layer

    with pytest.raises(BadSettings) as raised:
        TrainConfig.from_sources([], Layer("--{}", settings))
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("source", "division", "message"),
    [
        (
            source_of(["a", "b"], ["t"], ["v"]),
            Division(validation_share=0.1),
            "--validation-share 0.1: the data has a validation split already, of 1 pictures; leave it out, or divide "
            "training and validation pictures anew with --folds and --fold",
        ),
        (
            source_of(["a"], ["t"]),
            Division(validation_share=0.1),
            "--validation-share 0.1: expected some pictures for training beside those for validation, found 1 in all",
        ),
        (
            source_of(["a", "b"], ["t"]),
            Division(folds=3, fold=0),
            "--folds 3: expected as many training pictures at least, found 2",
        ),
        (
            source_of(["a_1", "a_2", "b_1"], ["t_1"]),
            Division(folds=3, fold=0, group_by="^."),
            "--folds 3: expected as many groups by --group-by ^. at least, found 2",
        ),
        (
            source_of(["a_1", "a_2"], ["t_1"]),
            Division(validation_share=0.5, group_by="^."),
            "--validation-share 0.5: expected some pictures for training beside those for validation, found 2 in all, "
            "and all of one group by --group-by ^.",
        ),
        (
            source_of(["a_1", "b"], ["t_1"]),
            Division(group_by=r"^.*_\d"),
            r"--group-by ^.*_\d: expected a match in the name of each picture, found none in 1 of 2, as b; names have "
            "no folder and no suffix",
        ),
        (
            source_of(["ab", "ac"], ["t"]),
            Division(group_by="^(x)|a", validation_share=0.5),
            "--group-by ^(x)|a: expected a match in the name of each picture, found none in 2 of 2, as ab; names have "
            "no folder and no suffix",
        ),
    ],
)
def test_what_can_not_be_divided_so_is_refused(source: Source, division: Division, message: str) -> None:
    with pytest.raises(BadData) as raised:
        check_whole(divide_anew(source, division), division)
    assert str(raised.value) == message


class Case(NamedTuple):
    id: str
    spoil: Callable[[Path], object]
    message: str


def in_folders(folder: Path, above: bool = False) -> None:
    for name in ("train.txt", "val.txt", "test.txt"):
        (folder / name).unlink()
    move_into_folders(folder, above, train=["p0", "p1", "p2"], val=["p3"], test=["p4"])


CASES = [
    Case(
        "a name in two lists",
        lambda f: write_list(f / "val.txt", ["p3", "p0"]),
        "p0: is named in train.txt and in val.txt, as 1 in all; test with images that were not trained on",
    ),
    Case(
        "a name in validation and test",
        lambda f: write_list(f / "val.txt", ["p4.png"]),
        "p4: is named in val.txt and in test.txt, as 1 in all; test with images that were not trained on",
    ),
    Case(
        "a list that is empty",
        lambda f: (f / "val.txt").write_bytes(b"\xef\xbb\xbf\r\n"),
        "{}/val.txt: expected a name on each line, found none",
    ),
    Case(
        "a name that is not there",
        lambda f: write_list(f / "val.txt", ["p7"]),
        "{0}/val.txt: names p7, but there is no such file in {0}/images",
    ),
    Case(
        "a name without a mask",
        lambda f: (f / "masks/p3.png").unlink(),
        "{0}/images/p3.jpg: this image has no mask {0}/masks/p3.png; add it or remove the image",
    ),
    Case(
        "two lists of one split",
        lambda f: write_list(f / "valid.txt", ["p3"]),
        "{}/valid.txt: expected one place for the validation split, found val.txt too; remove or rename one of them",
    ),
    Case(
        "no list for training",
        lambda f: (f / "train.txt").unlink(),
        "{}: expected train.txt, a list of names for training, beside val.txt and test.txt; add it",
    ),
    Case(
        "a list in another encoding",
        lambda f: (f / "val.txt").write_bytes("p3\n".encode("utf-16")),
        "{}/val.txt: expected text in UTF-8, found byte 0xff",
    ),
    Case(
        "a folder without its masks",
        lambda f: (in_folders(f), shutil.rmtree(f / "masks/val")),
        "{0}/masks/val: expected the masks of {0}/images/val, found test, train",
    ),
    Case(
        "a folder without one of its masks",
        lambda f: (in_folders(f, True), (f / "val/masks/p3.png").unlink(), save(labels(0), f / "val/masks/x.png")),
        "{0}/val/masks/x.png: this mask has no image {0}/val/images/x.*; add it or remove the mask",
    ),
    Case(
        "an empty folder",
        lambda f: (in_folders(f), (f / "images/val/p3.jpg").unlink()),
        "{}/images/val: expected images (.bmp, .gif, .heic, .heif, .jpeg, .jpg, .npy, .png, .tif, .tiff, .webp), "
        "found none",
    ),
    Case(
        "no folder for training",
        lambda f: (in_folders(f, True), shutil.rmtree(f / "train")),
        "{}: expected a folder train beside the others, found val/images, test/images",
    ),
    Case(
        "two folders of one split",
        lambda f: (in_folders(f), (f / "images/validation").mkdir()),
        "{}/images/validation: expected one place for the validation split, found val too; remove or rename one of "
        "them",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_splits_that_do_not_fit_are_told_in_one_line(case: Case, tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "set")
    for split, names in (("train", ["p0", "p1", "p2"]), ("val", ["p3"]), ("test", ["p4"])):
        write_list(folder / f"{split}.txt", names)
    assert len(open_source(f"folder:{folder}", None).splits) == 3
    case.spoil(folder)
    with pytest.raises(BadData) as raised:
        open_source(f"folder:{folder}", None)
    assert str(raised.value) == case.message.format(folder)


def test_pets_overlap_is_told_as_before(tmp_path: Path) -> None:
    folder = write_pets(tmp_path)
    write_list(folder / "annotations/test.txt", ["cat_0"])
    with pytest.raises(BadData, match=r"^cat_0: is named in trainval\.txt and in test\.txt"):
        open_source(f"folder:{folder}", None)
