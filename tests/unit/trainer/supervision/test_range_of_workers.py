"""The chief's decisions where fewer workers train for as long as there are no more."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from maskfleet.errors import DONE, PEER_LOST, STOPPED
from trainer.supervision.rendezvous import GROW_SECONDS, SETTLE_SECONDS, Coordinator, Message, finish, start, stop

PATIENCE = 120.0


def waiting(*ready: int, workers: int = 4, least: int = 2) -> Coordinator:
    """At time 0, with the workers that are ready."""
    coordinator = Coordinator(workers, max_restarts=3, least=least, shrink_after=PATIENCE)
    for worker in ready:
        assert coordinator.worker_ready(worker, now=0) is None
    return coordinator


def training(*world: int, workers: int = 4, least: int = 2) -> Coordinator:
    """At time PATIENCE, with those in ``world``."""
    coordinator = waiting(*world, workers=workers, least=least)
    assert coordinator.look(PATIENCE) == start(1, world)
    return coordinator


def test_all_start_at_once_when_all_have_come() -> None:
    assert waiting(0, 1, 2).worker_ready(3, now=1) == start(1, range(4))


def test_fewer_start_when_the_others_were_waited_for() -> None:
    coordinator = waiting(0, 2)
    assert coordinator.look(PATIENCE - 1) is None
    assert coordinator.look(PATIENCE) == start(1, [0, 2])
    assert coordinator.beginning == "2 of 2 to 4 workers: workers 1,3 have not come within 2m"


def test_fewer_than_the_least_never_start() -> None:
    coordinator = waiting(0, 2, least=3)
    assert coordinator.look(100 * PATIENCE) is None
    assert coordinator.worker_ready(3, now=100 * PATIENCE) == start(1, [0, 2, 3])


def test_nobody_starts_without_the_chief() -> None:
    coordinator = waiting(1, 2, 3)
    assert coordinator.look(PATIENCE) is None
    assert coordinator.worker_ready(0, now=PATIENCE) == start(1, range(4))


def test_who_is_there_and_still_ends_a_process_is_waited_for() -> None:
    coordinator = waiting(0, 1)
    coordinator.worker_came(2)
    assert coordinator.look(PATIENCE) is None
    assert coordinator.worker_ready(2, now=PATIENCE) == start(1, [0, 1, 2])


def test_who_was_waited_for_alone_and_goes_holds_nobody_up() -> None:
    coordinator = waiting(0, 1)
    coordinator.worker_came(2)
    assert coordinator.look(PATIENCE) is None
    assert coordinator.worker_left(2, now=PATIENCE) == start(1, [0, 1])


def test_one_that_is_lost_is_waited_for_and_then_left_behind() -> None:
    coordinator = training(0, 1, 2)
    assert coordinator.worker_left(2, now=500) == stop("worker 2 was lost")
    for worker in (0, 1):
        assert coordinator.worker_ready(worker, now=501) is None
    assert coordinator.look(500 + PATIENCE - 1) is None
    assert coordinator.look(500 + PATIENCE) == start(2, [0, 1])
    assert coordinator.beginning == ("2 of 2 to 4 workers: worker 2 was lost; worker 2 has not come back within 2m")


def test_one_that_comes_back_in_time_costs_nobody_its_place() -> None:
    coordinator = training(0, 1, 2)
    coordinator.worker_told(2)
    assert coordinator.process_ended(0, 1, STOPPED, "", now=500) == stop("worker 2 was told to stop")
    coordinator.worker_left(2, now=501)
    coordinator.worker_ready(0, now=501)
    coordinator.worker_ready(1, now=501)
    assert coordinator.worker_ready(2, now=517) == start(2, range(3)), "nobody waits for worker 3 again"
    assert coordinator.beginning == ""


def test_another_one_takes_the_place_of_one_that_is_lost() -> None:
    coordinator = training(0, 1, 2)
    coordinator.worker_left(2, now=500)
    coordinator.worker_ready(0, now=501)
    coordinator.worker_ready(1, now=501)
    assert coordinator.worker_ready(3, now=510) == start(2, [0, 1, 3])
    assert coordinator.beginning == (
        "3 of 2 to 4 workers: worker 2 was lost; worker 2 has not come back; worker 3 has come"
    )


def test_the_last_one_to_come_stops_all_once_and_they_save() -> None:
    coordinator = training(0, 1, 2)
    assert coordinator.worker_ready(3, now=200) is None
    assert coordinator.look(200) == stop("worker 3 has come", save=True)
    assert coordinator.process_ended(0, 1, STOPPED, "", now=201) is None, "it was told to"
    assert [coordinator.worker_ready(worker, now=202) for worker in (0, 1)] == [None, None]
    assert coordinator.worker_ready(2, now=203) == start(2, range(4))
    assert coordinator.beginning == "4 of 2 to 4 workers: worker 3 has come"


def test_one_that_has_come_as_another_goes_is_named_once() -> None:
    coordinator = training(0, 1, 2)
    coordinator.worker_ready(3, now=200)
    coordinator.look(200)
    coordinator.worker_left(2, now=201)
    assert [coordinator.worker_ready(worker, now=202) for worker in (0, 1)] == [None, None]
    assert coordinator.look(200 + 120) == start(2, [0, 1, 3])
    assert coordinator.beginning == "3 of 2 to 4 workers: worker 2 has not come back; worker 3 has come"


def test_of_many_that_come_one_after_the_other_all_are_taken_in_at_one_stop() -> None:
    coordinator = training(0, 1, workers=8)
    for second, worker in enumerate((5, 3, 2)):
        assert coordinator.worker_ready(worker, now=400 + 5 * second) is None
        assert coordinator.look(401 + 5 * second) is None
    assert coordinator.look(410 + SETTLE_SECONDS) == stop("workers 2-3,5 have come", save=True)


def test_some_that_come_right_after_a_start_wait_until_that_was_worth_it() -> None:
    coordinator = training(0, 1)
    coordinator.worker_ready(2, now=PATIENCE + 1)
    assert coordinator.look(PATIENCE + GROW_SECONDS - 1) is None
    assert coordinator.look(PATIENCE + GROW_SECONDS) == stop("worker 2 has come", save=True)


@pytest.mark.parametrize("ends", ["one is done", "its last step is done"])
def test_a_run_that_ends_is_not_stopped_for_one_that_comes(ends: str) -> None:
    coordinator = training(0, 1, 2)
    if ends == "one is done":
        coordinator.process_ended(1, 1, DONE, "", now=200)
    coordinator.worker_ready(3, now=200)
    assert coordinator.look(1000, may_grow=ends == "one is done") is None
    for worker in range(3):
        verdict = coordinator.process_ended(worker, 1, DONE, "", now=1000)
    assert verdict == finish(DONE, "")


def test_one_that_has_come_and_goes_before_it_trains_is_no_loss() -> None:
    coordinator = training(0, 1, 2)
    coordinator.worker_ready(3, now=200)
    assert coordinator.worker_left(3, now=200) is None
    assert coordinator.look(1000) is None


def test_a_chief_that_is_new_waits_for_as_many_as_there_were() -> None:
    coordinator = waiting(workers=8)
    assert coordinator.worker_ready(0, now=10) is None
    assert coordinator.worker_ready(1, now=10, before=3) is None
    assert coordinator.worker_ready(5, now=11, before=3) == start(1, [0, 1, 5])


def test_a_fixed_number_of_workers_is_waited_for_whatever_happens() -> None:
    coordinator = Coordinator(2, max_restarts=3)
    coordinator.worker_ready(0, now=0)
    assert coordinator.look(1e9) is None
    assert coordinator.worker_ready(1, now=1e9) == start(1, range(2))
    assert coordinator.beginning == "2 worker(s)"


class Fleet(RuleBasedStateMachine):
    """Whoever comes, goes and ends in whatever order: never too few train, and never two attempts at once."""

    workers, least = 4, 2

    def __init__(self) -> None:
        super().__init__()
        self.coordinator = Coordinator(self.workers, max_restarts=10**6, least=self.least, shrink_after=PATIENCE)
        self.now = 0.0
        self.training: dict[int, int] = {}
        self.ready: set[int] = set()  # by what they have said
        self.connected: set[int] = set()
        self.stopping: set[int] = set()
        self.over = False

    def obey(self, message: Message | None) -> None:
        if message is None:
            return
        if message["do"] == "start":
            world = set(self.coordinator.world)
            assert not self.training, "an attempt starts while a process of the last one is alive"
            assert 0 in world
            assert len(world) >= self.least
            assert world == self.connected
            self.training = dict.fromkeys(world, message["attempt"])
            self.ready -= world
        elif message["do"] == "stop":
            self.stopping = self.connected - self.ready
        else:
            self.over = True

    @precondition(lambda self: not self.over)
    @rule(worker=st.integers(0, workers - 1))
    def comes(self, worker: int) -> None:
        if worker not in self.connected:
            self.connected.add(worker)
            self.coordinator.worker_came(worker)
            self.stopping.add(worker)  # it is soon ready

    @precondition(lambda self: not self.over)
    @rule(worker=st.integers(0, workers - 1))
    def has_stopped(self, worker: int) -> None:
        if worker in self.stopping:
            self.stopping.remove(worker)
            self.training.pop(worker, None)
            self.ready.add(worker)
            self.obey(self.coordinator.worker_ready(worker, self.now))

    @precondition(lambda self: not self.over)
    @rule(worker=st.integers(0, workers - 1))
    def leaves(self, worker: int) -> None:
        if worker in self.connected:
            for known in (self.connected, self.ready, self.stopping):
                known.discard(worker)
            self.training.pop(worker, None)
            self.obey(self.coordinator.worker_left(worker, self.now))

    @precondition(lambda self: not self.over)
    @rule(worker=st.integers(0, workers - 1), code=st.sampled_from([-9, PEER_LOST, STOPPED]))
    def ends(self, worker: int, code: int) -> None:
        if worker in self.training:
            attempt = self.training.pop(worker)
            self.obey(self.coordinator.process_ended(worker, attempt, code, "", self.now))

    @precondition(lambda self: not self.over)
    @rule(seconds=st.sampled_from([0.5, SETTLE_SECONDS, GROW_SECONDS, PATIENCE]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.obey(self.coordinator.look(self.now))

    @invariant()
    def all_train_the_same_attempt(self) -> None:
        assert len(set(self.training.values())) <= 1

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        """Once all that are there are ready, and enough, they train after the time that was promised."""
        enough = len(self.connected) >= self.least and 0 in self.connected
        if enough and self.ready == self.connected and self.coordinator.phase == "gathering":
            assert self.now - self.coordinator.since <= PATIENCE


TestFleet = Fleet.TestCase
