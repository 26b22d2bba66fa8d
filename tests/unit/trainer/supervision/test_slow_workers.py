"""Who holds up the others is named soon, with the cause, and nobody else ever."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskfleet.pace import Pace, Steps, Usage
from trainer.supervision.fleet import LOOK_SECONDS
from trainer.supervision.slow_workers import SlowWorkers, _of_others, slow_line

MINUTE, HOUR = int(60 / LOOK_SECONDS), int(3600 / LOOK_SECONDS)


def pace(input: float = 0.01, compute: float = 0.2, step: float = 0.3, trip: float = 0.0003, **usage: float) -> Pace:
    """Of ten steps."""
    all_reduce = max(0.0, step - input - compute)
    return Pace(Steps(10, 10 * step, 10 * input, 10 * compute, 10 * all_reduce), Usage(**usage), trip)


def noisy(fleet: Mapping[int, Pace], chance: random.Random, noise: float) -> dict[int, Pace]:
    """Each worker's own times up to so much longer, and the step as long as the last one's."""
    longest = max(each.own for each in fleet.values())
    factors = {worker: 1 + chance.random() * noise for worker in fleet}
    step = longest * max(factors.values()) + 0.05
    return {
        worker: pace(each.input * factors[worker], each.compute * factors[worker], step, each.round_trip or 0)
        for worker, each in fleet.items()
    }


def told(fleet: Mapping[int, Pace], looks: int = MINUTE) -> list[str]:
    slow = SlowWorkers()
    for _ in range(looks):
        found = slow.look(fleet)
    return [each.line for each in found]


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_an_even_fleet_names_nobody_for_an_hour(workers: int):
    chance, slow = random.Random(workers), SlowWorkers()
    for _ in range(HOUR):
        assert slow.look(noisy(dict.fromkeys(range(workers), pace()), chance, 0.25)) == ()


def test_a_look_in_which_one_has_paused_names_nobody():
    slow, even, one_slow = SlowWorkers(), {0: pace(), 1: pace()}, {0: pace(), 1: pace(compute=2, step=2.1)}
    for number in range(HOUR):
        assert slow.look(one_slow if number % 5 < 2 else even) == ()


@pytest.mark.parametrize(("slow", "line"), [
    (pace(compute=0.36, step=0.4, throttled=0.4),
     "worker 1 takes 1.8 times the others' compute; its CPU is throttled 40% of the time"),
    (pace(compute=0.36, step=0.4, throttled=0.05, cpu_wait=0.5),
     "worker 1 takes 1.8 times the others' compute; other processes have its CPU 50% of the time"),
    (pace(compute=0.36, step=0.4, memory=0.99),
     "worker 1 takes 1.8 times the others' compute; its memory is full, 99% of the limit"),
    (pace(compute=0.36, step=0.4, cpus=0.5),
     "worker 1 takes 1.8 times the others' compute; it uses 0.5 CPUs, the others 1.2"),
    (pace(compute=0.36, step=0.4), "worker 1 takes 1.8 times the others' compute"),
    (pace(input=1.25, step=1.5), "worker 1 waits 1.2 s a step for its data, the others 10 ms"),
    (pace(input=0.25, step=0.5, io_wait=0.7, throttled=0.2),
     "worker 1 waits 250 ms a step for its data, the others 10 ms; it waits for its disk 70% of the time"),
    (pace(input=0.25, step=0.5, throttled=0.2),
     "worker 1 waits 250 ms a step for its data, the others 10 ms; its CPU is throttled 20% of the time"),
])  # fmt: skip
@pytest.mark.parametrize("workers", [2, 3])
def test_the_slow_one_is_named_within_a_minute_with_its_cause(slow: Pace, line: str, workers: int):
    fleet = {worker: pace(step=slow.step, cpus=1.2) for worker in range(workers)} | {1: slow}
    assert told(fleet) == [line]


def test_what_hinders_all_alike_is_no_reason():
    alike = {"throttled": 0.9, "cpu_wait": 0.95, "io_wait": 0.5}
    fleet = {0: pace(step=0.4, cpus=0.9, **alike), 1: pace(compute=0.36, step=0.4, cpus=0.3, **alike)}
    assert slow_line(1, fleet) == "worker 1 takes 1.8 times the others' compute; it uses 0.3 CPUs, the others 0.9"


def test_a_worker_is_named_again_and_again_until_it_is_as_fast_as_the_others():
    slow, fleet = SlowWorkers(), {0: pace(step=0.4), 1: pace(compute=0.36, step=0.4)}
    for _ in range(MINUTE):
        slow.look(fleet)
    between = {**fleet, 1: pace(compute=0.245, step=0.4)}  # neither slow enough to be named nor fast enough not to be
    assert all(len(slow.look(between)) == 1 for _ in range(MINUTE))
    named = [len(slow.look({0: pace(), 1: pace()})) for _ in range(MINUTE)]
    assert named == sorted(named, reverse=True)
    assert named[-1] == 0


@pytest.mark.parametrize(("trips", "line"), [
    ({0: 0.0002, 1: 0.05}, ["the network between workers 0 and 1 takes 50 ms there and back"]),
    ({0: 0.0002, 1: 0.0005, 2: 0.05},
     ["the network between workers 0 and 2 takes 50 ms there and back, to the others under 1 ms"]),
    ({0: 0.0002, 1: 0.0005, 2: 0.04, 3: 0.05},
     ["the network between workers 0 and 3 takes 50 ms there and back, to the others under 1 ms",
      "the network between workers 0 and 2 takes 40 ms there and back, to the others under 1 ms"]),
    ({0: 0.0002, 1: 0.04, 2: 0.05}, ["the network between worker 0 and all others takes 45 ms there and back"]),
    ({0: 0.0002, 1: 0.002, 2: 0.003}, []),
])  # fmt: skip
def test_a_slow_network_is_named_where_steps_wait_for_it(trips: dict[int, float], line: list[str]):
    waiting = {worker: pace(step=0.6, trip=trip) for worker, trip in trips.items()}
    assert told(waiting) == line
    assert told({worker: replace(pace(step=0.22), round_trip=trip) for worker, trip in trips.items()}) == []


def test_one_late_answer_is_no_slow_network():
    slow, chance = SlowWorkers(), random.Random(0)
    for _ in range(HOUR):
        fleet = {worker: pace(step=0.6, trip=chance.choice([0.0003, 0.0003, 0.2])) for worker in range(3)}
        found = slow.look(fleet)
    assert len(found) <= 1  # three late answers in a row, three times in a row, happen by chance


def test_who_has_taken_no_step_says_nothing():
    assert told({0: pace(), 1: Pace(Steps(0, 0.0, 0.0, 0.0, 0.0), Usage())}) == []
    assert told({0: pace()}) == []


@given(st.lists(st.floats(0.001, 10), min_size=2, max_size=20))
def test_the_median_of_the_others(values: list[float]):
    for worker, found in _of_others(dict(enumerate(values))).items():
        assert found == pytest.approx(median(value for other, value in enumerate(values) if other != worker))


def test_a_thousand_workers_are_looked_at_at_once():
    fleet = {worker: pace(step=0.4) for worker in range(1000)} | {7: pace(compute=0.4, step=0.5)}
    assert told(fleet, 4) == [slow_line(7, fleet)]
