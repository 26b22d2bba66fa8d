"""Steps and epochs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskfleet.errors import BadSettings
from trainer.training.plan import Plan


@given(examples=st.integers(1, 300), epochs=st.integers(1, 20), data=st.data())
def test_each_epoch_ends_with_the_step_that_trains_on_its_last_example(examples, epochs, data):
    batch = data.draw(st.integers(1, examples))
    plan = Plan(examples, batch, epochs, (slice(0, batch),))
    ends = [step for step in range(1, plan.steps + 1) if plan.ends_epoch(step)]
    assert len(ends) == epochs
    assert ends[-1] == plan.steps
    for epoch, step in enumerate(ends, start=1):
        assert (step - 1) * batch < epoch * examples <= step * batch
        assert plan.epoch(step) == epoch
    steps = [0, *ends]
    assert sum(map(plan.examples_in_epoch_ending, ends)) == steps[-1] * batch


@given(
    examples=st.integers(1, 300),
    epochs=st.integers(1, 20),
    most=st.integers(1, 50),
    checkpoint_steps=st.integers(0, 20),
    data=st.data(),
)
def test_several_steps_at_once_pass_over_no_epoch_s_end_and_no_checkpoint(
    examples, epochs, most, checkpoint_steps, data
):
    plan = Plan(examples, data.draw(st.integers(1, examples)), epochs, ())
    stops, step = {0}, 0
    while step < plan.steps:
        count = plan.steps_at_once(step, most, checkpoint_steps)
        assert 1 <= count <= most
        step += count
        stops.add(step)
    assert step == plan.steps
    for number in range(1, plan.steps + 1):
        if plan.ends_epoch(number) or (checkpoint_steps and number % checkpoint_steps == 0):
            assert number in stops
    assert most > 1 or stops == set(range(plan.steps + 1))


def test_no_step_is_no_end():
    assert not Plan(10, 10, 1, (slice(0, 10),)).ends_epoch(0)


def test_a_global_batch_larger_than_the_data_is_refused():
    with pytest.raises(BadSettings, match="global batch of 64 is larger than the data's 10 training examples"):
        Plan(10, 64, 1, (slice(0, 64),))
