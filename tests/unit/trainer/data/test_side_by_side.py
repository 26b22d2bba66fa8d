"""Pictures are read in order, by several threads, and never so many that they fill the memory."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data import side_by_side as module
from trainer.data.side_by_side import side_by_side


@pytest.fixture(autouse=True)
def many_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cpu_limit", lambda: 6)


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(st.integers(0, 30), max_size=30))
def test_no_more_pixels_are_in_memory_than_allowed_but_for_one_large_picture(sizes: list[int]) -> None:
    inside: list[int] = []
    most: list[tuple[int, int]] = []
    lock = threading.Lock()

    def work(i: int) -> int:
        with lock:
            inside.append(sizes[i])
            most.append((sum(inside), len([size for size in inside if size])))
        time.sleep(0.0005)
        with lock:
            inside.remove(sizes[i])
        return i

    assert list(side_by_side(work, len(sizes), sizes.__getitem__, at_once=20)) == list(range(len(sizes)))
    assert all(pixels <= 20 or pictures == 1 for pixels, pictures in most)


def test_small_pictures_are_read_at_the_same_time() -> None:
    together = threading.Barrier(6, timeout=10)
    assert len(list(side_by_side(lambda i: together.wait(), 6, lambda i: 3, at_once=20))) == 6


def test_an_error_ends_it_without_reading_the_rest() -> None:
    done: list[int] = []

    def work(i: int) -> None:
        if i == 3:
            raise ValueError("the fourth")
        time.sleep(0.001)
        done.append(i)

    with pytest.raises(ValueError, match="the fourth"):
        list(side_by_side(work, 1000, lambda i: 20, at_once=20))
    assert len(done) < 500
