"""The profiler's window of steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.settings import Layer
from trainer.training.profiling import Profiler


def recorded(logdir: Path) -> int:
    return len(list(logdir.glob("plugins/profile/*/*.xplane.pb")))


def test_it_records_the_window_and_nothing_else(tmp_path: Path) -> None:
    profiler = Profiler(tmp_path, 2, 3)
    for step in (1, 2, 3):
        profiler.before(step, step)
        tf.constant(1.0) + 1
        assert recorded(tmp_path) == 0
    profiler.before(4, 4)
    assert recorded(tmp_path) == 1
    profiler.before(5, 5)
    profiler.stop()
    assert recorded(tmp_path) == 1


def test_a_call_of_several_steps_is_recorded_if_one_of_them_is_in_the_window(tmp_path: Path) -> None:
    profiler = Profiler(tmp_path, 6, 7)
    for first in (1, 5, 9):
        assert recorded(tmp_path) == 0
        profiler.before(first, first + 3)
    assert recorded(tmp_path) == 1


def test_a_run_that_ends_within_the_window_leaves_what_was_recorded(tmp_path: Path) -> None:
    profiler = Profiler(tmp_path, 1, 9)
    profiler.before(1, 1)
    profiler.stop()
    assert recorded(tmp_path) == 1


def test_a_run_that_goes_on_behind_the_window_records_nothing(tmp_path: Path) -> None:
    profiler = Profiler(tmp_path, 1, 9)
    profiler.before(10, 10)
    profiler.stop()
    assert recorded(tmp_path) == 0


def test_a_good_window_is_its_first_and_last_step() -> None:
    assert TrainConfig(profile_steps="10-15").profiled == (10, 15)
    assert TrainConfig().profiled is None


@pytest.mark.parametrize("value", ["5", "0-3", "7-3", "a-b", "-2-3"])
def test_a_bad_window_is_refused(value: str) -> None:
    with pytest.raises(BadSettings) as refused:
        TrainConfig.resolve([Layer("--{}", {"profile_steps": value})])
    assert "expected FIRST-LAST, two steps from 1 on such as 10-15" in str(refused.value)
