"""Pictures are read in order, by several threads, and never so many that they fill the memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data import side_by_side as module
from trainer.data.side_by_side import in_groups, in_stages, side_by_side


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


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(st.integers(0, 30), max_size=30), most=st.integers(1, 4))
def test_in_stages_no_more_pixels_are_in_memory_than_allowed(sizes: list[int], most: int) -> None:
    alive: list[int] = []
    together: list[tuple[int, int]] = []
    lock = threading.Lock()

    def begin(i: int) -> int:
        with lock:
            alive.append(i)
            together.append((sum(sizes[i] for i in alive), len([i for i in alive if sizes[i]])))
        return i

    def end(i: int) -> int:
        time.sleep(0.0005)
        with lock:
            alive.remove(i)
        return i

    groups = in_groups(len(sizes), sizes.__getitem__, most, at_once=10)
    assert list(in_stages(groups, begin, iter, end, sizes.__getitem__, 20)) == list(range(len(sizes)))
    assert all(pixels <= 20 or pictures == 1 for pixels, pictures in together)


def test_three_groups_are_on_their_way_at_once() -> None:
    """The first one ends while the second is computed and the third begins."""
    meeting = threading.Barrier(3, timeout=10)

    def together(begun: Sequence[int]) -> Sequence[int]:
        if begun == [1]:
            meeting.wait()
        return begun

    def begin(i: int) -> int:
        return i if i != 2 else meeting.wait() * 0 + i

    def end(i: int) -> int:
        return i if i != 0 else meeting.wait() * 0 + i

    groups = in_groups(3, lambda i: 1, 1, at_once=1)
    assert list(in_stages(groups, begin, together, end, lambda i: 1, 3)) == [0, 1, 2]


@pytest.mark.parametrize("stage", ["begin", "together", "end"])
def test_an_error_in_any_stage_ends_all_of_them(stage: str) -> None:
    begun: list[int] = []

    def fail(name: str, i: int) -> int:
        if name == stage and i == 3:
            raise ValueError("the fourth")
        return i

    def begin(i: int) -> int:
        begun.append(i)
        return fail("begin", i)

    stages = in_stages(
        in_groups(1000, lambda i: 1, 2, at_once=2),
        begin,
        lambda some: [fail("together", i) for i in some],
        lambda i: fail("end", i),
        lambda i: 1,
        6,
    )
    with pytest.raises(ValueError, match="the fourth"):
        list(stages)
    assert len(begun) <= 10
