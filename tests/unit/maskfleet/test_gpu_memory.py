"""What is said of a card by the estimate of a step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskfleet.config import TrainConfig
from maskfleet.gpu_memory import StepMemory

GIB = 1 << 30


@pytest.mark.parametrize(
    ("step", "settings", "taken", "mend"),
    [
        (StepMemory(16, GIB, 31 * GIB), {}, "28.8 GiB or more, with 16 examples",
         ": some 5 fit, and --batch-per-replica 5 --accumulate 4 takes as many examples a step"),
        (StepMemory(16, GIB, 31 * GIB), {"global_batch": 64, "accumulate": 2}, "28.8 GiB or more, with 16 examples",
         ": some 5 fit, and --accumulate 8 takes as many examples a step"),
        (StepMemory(1, GIB, 31 * GIB), {}, "28.8 GiB or more, with one example",
         ": lower --image-size, or take a larger card"),
        (StepMemory(2, 20 * GIB, GIB), {}, "18.9 GiB or more, with 2 examples",
         ": lower --image-size, or take a larger card"),
    ],
)  # fmt: skip
def test_a_card_of_16_gib_is_too_small(step: StepMemory, settings: dict[str, int], taken: str, mend: str) -> None:
    said = step.trouble(16 * GIB, TrainConfig(image_size="360x480", **settings))
    assert said == f"a step takes {taken} of 360x480 pixels at a time{mend}"


def test_no_word_of_a_card_that_may_do() -> None:
    assert StepMemory(16, GIB, 15 * GIB).trouble(16 * GIB, TrainConfig()) == ""


@given(batch=st.integers(1, 512), kept=st.integers(0, GIB), each=st.integers(1 << 20, GIB), memory=st.integers(1, 256))
def test_nobody_is_warned_of_a_batch_that_is_told_to_fit(batch: int, kept: int, each: int, memory: int) -> None:
    step = StepMemory(batch, kept, batch * each)
    fitting = step.fitting(memory * GIB)
    assert fitting >= 0
    if fitting:
        assert StepMemory(fitting, kept, fitting * each).trouble(memory * GIB, TrainConfig()) == ""
