"""What is found by reading all files is kept: the next start does not read them, unless one has changed."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from maskfleet.environment import CACHE_VARIABLE
from maskfleet.errors import BadData
from tests.helpers.annotated_folders import write_coco, write_cvat_images, write_labelme_json
from tests.helpers.data_folders import write_pairs
from trainer.data import remembered as module
from trainer.data.kinds import coco, cvat, labelme, pairs_folder
from trainer.data.opening import open_source
from trainer.data.remembered import remembered


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which things are kept, also of files that were written just now."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_RESTING", -60.0)
    return tmp_path / "cache" / "known"


def written(file: Path, text: str = "a") -> Path:
    file.write_text(text)
    return file


def counting() -> Callable[[], int]:
    """Gives how often it was called."""
    calls = itertools.count(1)
    return lambda: next(calls)


def test_it_is_found_once_until_a_file_changes(known: Path, tmp_path: Path) -> None:
    files = [written(tmp_path / name) for name in "ab"]
    find = counting()
    assert [remembered("x", tmp_path, files, find) for _ in range(3)] == [1, 1, 1]
    written(files[1], "longer")
    assert [remembered("x", tmp_path, files, find) for _ in range(2)] == [2, 2]
    os.utime(files[0], (1, 1))
    assert remembered("x", tmp_path, files, find) == 3
    assert remembered("x", tmp_path, files[:1], find) == 4
    assert remembered("another", tmp_path, files, find) == 5
    assert len(list(known.glob("*.json"))) == 2, "one of each, however often files change"


def test_what_was_written_just_now_is_not_kept(known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RESTING", 60.0)
    file = written(tmp_path / "a")
    find = counting()
    assert [remembered("x", tmp_path, [file], find) for _ in range(2)] == [1, 2]
    assert not list(known.glob("*.json"))


@pytest.mark.parametrize("spoil", [b"", b"\xff\xfe", b"key\ndigest\n7", b"{}"])
def test_what_is_spoiled_is_found_anew(spoil: bytes, known: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "a")
    find = counting()
    remembered("x", tmp_path, [file], find)
    (kept,) = known.glob("*.json")
    good = kept.read_bytes()
    kept.write_bytes(spoil)
    assert remembered("x", tmp_path, [file], find) == 2
    kept.write_bytes(good.replace(b"\n1", b"\n9"))
    assert remembered("x", tmp_path, [file], find) == 3
    kept.unlink()
    os.mkfifo(kept)
    assert remembered("x", tmp_path, [file], find) == 4


def test_a_mistake_is_not_kept(known: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "a")

    def fail() -> NoReturn:
        raise BadData("x")

    for _ in range(2):
        with pytest.raises(BadData):
            remembered("x", tmp_path, [file], fail)


def test_a_folder_that_cannot_be_made_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(written(tmp_path / "no folder")))
    find = counting()
    assert [remembered("x", tmp_path, [written(tmp_path / "a")], find) for _ in range(2)] == [1, 2]


def test_of_several_at_once_one_finds(known: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "a")
    find = counting()
    found: list[Any] = []
    together = threading.Barrier(4)

    def look() -> None:
        together.wait()
        found.append(remembered("x", tmp_path, [file], find))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("write", "kind", "reader"),
    [
        (write_coco, coco, "read_json"),
        (write_cvat_images, cvat, "_read"),
        (write_labelme_json, labelme, "read_json"),
        (write_pairs, pairs_folder, "read_labels"),
    ],
)
def test_opening_again_reads_no_annotations(
    write: Callable[[Path], Path], kind: Any, reader: str, known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "set")
    first = open_source(str(folder), None)
    masks = [first.train.read(i).mask for i in range(len(first.train))]

    def fail(*_: Any) -> NoReturn:
        raise AssertionError("is read again")

    with monkeypatch.context() as patch:
        patch.setattr(kind, reader, fail)
        again = open_source(str(folder), None)
    assert (again.key, again.classes, again.notes) == (first.key, first.classes, first.notes)
    assert {name: split.names for name, split in again.splits.items()} == {
        name: split.names for name, split in first.splits.items()
    }
    np.testing.assert_array_equal(again.colours, first.colours)
    for i, mask in enumerate(masks):
        np.testing.assert_array_equal(again.train.read(i).mask, mask)
