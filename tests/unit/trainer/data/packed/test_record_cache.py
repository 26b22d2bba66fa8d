"""What was read once is kept within a limit, outlives the process, and is never taken for what it is not."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.packed.record_cache import RecordCache, open_record_cache

CONTENTS = st.lists(st.tuples(st.integers(0, 9), st.binary(min_size=1, max_size=60)), max_size=20)


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@settings(max_examples=60)
@given(puts=CONTENTS, more=CONTENTS, limit=st.integers(1, 500), smaller=st.integers(1, 500))
def test_it_keeps_the_first_that_fit_and_never_exceeds_its_limit(tmp_path_factory, puts, more, limit, smaller) -> None:
    folder = tmp_path_factory.mktemp("cache")
    first: dict[int, bytes] = {}
    for rows, bound in ((puts, limit), (more, smaller)):  # the second process may take over less
        cache = RecordCache(folder, 10, bound)
        for number, content in rows:
            cache.put(number, content)
            first.setdefault(number, content)
            assert size_of(folder) == cache.size <= bound
            assert cache.get(number) in (None, first[number]) or cache.get(number) in [
                c for n, c in rows if n == number
            ]
        kept = {number: cache.get(number) for number in range(10)}
        first = {number: content for number, content in kept.items() if content is not None}


def test_another_process_finds_what_was_kept(tmp_path: Path) -> None:
    RecordCache(tmp_path, 4, 1000).put(2, b"two")
    cache = RecordCache(tmp_path, 4, 1000)
    assert [cache.get(number) for number in range(4)] == [None, None, b"two", None]


@pytest.mark.parametrize("damage", ["flip", "cut", "no row", "half a row", "beyond the numbers"])
def test_what_has_suffered_is_read_anew(tmp_path: Path, damage: str) -> None:
    cache = RecordCache(tmp_path, 4, 1000)
    cache.put(1, b"one" * 20)
    cache.put(2, b"two" * 20)
    records, rows = tmp_path / "records", tmp_path / "rows"
    match damage:
        case "flip":
            records.write_bytes(records.read_bytes()[:-1] + b"!")
        case "cut":
            records.write_bytes(records.read_bytes()[:-1])
        case "no row":
            rows.write_bytes(rows.read_bytes()[:24])
        case "half a row":
            rows.write_bytes(rows.read_bytes()[:-1])
        case "beyond the numbers":
            rows.write_bytes(rows.read_bytes()[:24] + b"\xff" * 24)
    again = RecordCache(tmp_path, 4, 1000)
    assert again.get(1) == b"one" * 20
    assert again.get(2) is None
    again.put(2, b"2")
    assert again.get(2) == b"2"


def test_a_full_disk_only_ends_the_keeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = RecordCache(tmp_path, 4, 1000)
    cache.put(0, b"zero")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("trainer.data.packed.record_cache.os.pwrite", full)
        cache.put(1, b"one")
    assert (cache.get(0), cache.get(1), cache.is_full) == (b"zero", None, True)


def _hold(root: str, key: str, ready: object, over: object) -> None:
    import os

    os.environ["MASKFLEET_CACHE"] = root
    open_record_cache(key, 4, 1000).put(0, b"theirs")
    ready.set()  # type: ignore[attr-defined]
    over.wait()  # type: ignore[attr-defined]


def test_each_process_has_its_own_and_what_nobody_uses_of_other_data_goes(cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, over = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(cache), "a", ready, over))
    other.start()
    try:
        assert ready.wait(60)
        mine = open_record_cache("a", 4, 1000)
        assert mine.get(0) is None
        (cache / "packed-b-0").mkdir()
        open_record_cache("c", 4, 1000)
        assert sorted(folder.name for folder in cache.iterdir()) == ["packed-a-0", "packed-a-1", "packed-c-0"]
    finally:
        over.set()
        other.join()
    assert sorted(folder.name for folder in cache.iterdir()) == ["packed-a-0", "packed-a-1", "packed-c-0"]


def test_a_cache_that_another_process_has_just_deleted_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKFLEET_CACHE", str(tmp_path))
    (old := tmp_path / "packed-old-0").mkdir()
    opened = os.open

    def too_late(path: str | Path, *rest: Any, **more: Any) -> int:
        if path == old and old.is_dir():
            old.rmdir()
        return opened(path, *rest, **more)

    monkeypatch.setattr("os.open", too_late)
    cache = open_record_cache("new", 2, 1000)
    cache.put(0, b"one")
    assert cache.get(0) == b"one"
