"""The chief's decisions: when an attempt starts, when it stops, and when the run is over."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from maskfleet.errors import BAD_INPUT, DONE, FAILED, PEER_LOST, STOPPED
from trainer.supervision.rendezvous import RESTART_WINDOW_SECONDS, Coordinator, finish, parse, serialize, start, stop


def running(workers: int = 2, max_restarts: int = 3) -> Coordinator:
    coordinator = Coordinator(workers, max_restarts)
    for worker in range(workers):
        coordinator.worker_ready(worker, now=0)
    return coordinator


def test_an_attempt_starts_when_the_last_worker_is_ready():
    coordinator = Coordinator(3, max_restarts=1)
    assert coordinator.worker_ready(0, now=0) is None
    assert coordinator.worker_ready(2, now=0) is None
    assert coordinator.missing() == [1]
    assert coordinator.worker_ready(1, now=0) == start(1, range(3))


def test_a_lost_process_stops_all_and_a_new_attempt_starts_when_all_are_ready_again():
    coordinator = running()
    assert coordinator.process_ended(1, 1, PEER_LOST, "lost a peer", now=0) == stop("lost a peer")
    assert coordinator.process_ended(0, 1, -9, "killed", now=0) is None, "only the first cause counts"
    coordinator.worker_ready(1, now=0)
    assert coordinator.worker_ready(0, now=0) == start(2, range(2))


def test_a_lost_supervisor_stops_all():
    coordinator = running()
    assert coordinator.worker_left(1, now=0) == stop("worker 1 was lost")
    assert coordinator.worker_ready(0, now=0) is None
    assert coordinator.missing() == [1]


def test_the_run_is_done_when_every_process_is():
    coordinator = running()
    assert coordinator.process_ended(0, 1, DONE, "", now=0) is None
    assert coordinator.process_ended(1, 1, DONE, "", now=0) == finish(DONE, "")


def test_workers_that_were_done_start_again_with_one_that_failed():
    coordinator = running()
    coordinator.process_ended(0, 1, DONE, "", now=0)
    assert coordinator.process_ended(1, 1, -9, "killed", now=0) == stop("killed")
    coordinator.worker_ready(0, now=0)
    coordinator.worker_ready(1, now=0)
    assert coordinator.process_ended(1, 2, DONE, "", now=0) is None, "worker 0 trains again"


@pytest.mark.parametrize("code", [FAILED, BAD_INPUT])
def test_a_failure_that_would_repeat_itself_ends_the_run(code):
    assert running().process_ended(1, 1, code, "ValueError: no", now=0) == finish(code, "ValueError: no")


def test_a_worker_that_was_told_to_stop_costs_no_restart():
    coordinator = running(max_restarts=0)
    assert coordinator.process_ended(1, 1, STOPPED, "", now=0) == stop("worker 1 was told to stop")
    assert coordinator.worker_left(1, now=0) is None


@pytest.mark.parametrize("heard_first", [0, 1, 2])
def test_the_worker_that_somebody_stops_is_named_whoever_is_heard_of_first(heard_first):
    coordinator = running(workers=3, max_restarts=0)
    coordinator.worker_told(0)
    told = stop("worker 0 was told to stop")
    assert coordinator.process_ended(heard_first, 1, STOPPED, "", now=0) == told
    for worker in range(3):
        coordinator.worker_ready(worker, now=0)
    assert coordinator.process_ended(1, 2, STOPPED, "", now=0) == stop("worker 1 was told to stop"), "it is over"


def test_of_many_that_are_stopped_the_first_is_named_and_the_others_are_counted():
    coordinator = running(workers=3)
    for worker in (2, 0, 2):
        coordinator.worker_told(worker)
    assert coordinator.process_ended(1, 1, STOPPED, "", now=0) == stop("worker 2 and 1 more were told to stop")


def test_a_worker_that_says_it_is_stopped_and_goes_costs_no_restart():
    coordinator = running(max_restarts=0)
    coordinator.worker_told(1)
    assert coordinator.worker_left(1, now=0) == stop("worker 1 was told to stop")


def test_it_gives_up_with_the_first_cause():
    coordinator = running(max_restarts=2)
    for attempt, cause in enumerate(["first", "second"], start=1):
        coordinator.process_ended(0, attempt, -9, cause, now=attempt)
        coordinator.worker_ready(0, now=0)
        coordinator.worker_ready(1, now=0)
    message = coordinator.process_ended(0, 3, -9, "third", now=3)
    assert message == finish(FAILED, "gave up after 2 restarts; the first cause: first")


def test_old_restarts_do_not_count():
    coordinator = running(max_restarts=1)
    coordinator.process_ended(0, 1, -9, "long ago", now=0)
    coordinator.worker_ready(0, now=0)
    coordinator.worker_ready(1, now=0)
    assert coordinator.process_ended(0, 2, -9, "now", now=RESTART_WINDOW_SECONDS + 1) == stop("now")


def test_messages_survive_the_wire():
    assert parse(serialize(finish(FAILED, "naïve\nlines"))) == finish(FAILED, "naïve\nlines")
    assert parse(b"") is None
    assert parse(b'{"cut": ') is None
    with pytest.raises(ValueError, match="expected a JSON object"):
        parse(b"[1]\n")


class Fleet(RuleBasedStateMachine):
    """Workers that come, go and end in any order never leave one training while another starts."""

    workers = 3

    def __init__(self) -> None:
        super().__init__()
        self.coordinator = Coordinator(self.workers, max_restarts=1000)
        self.training: dict[int, int] = {}
        self.connected: set[int] = set()
        self.stopping: set[int] = set()
        self.over = False

    def obey(self, message):
        if message is None:
            return
        if message["do"] == "start":
            assert self.connected == set(range(self.workers))
            assert not self.training, "an attempt starts while a process of the last one is alive"
            self.training = dict.fromkeys(range(self.workers), message["attempt"])
        elif message["do"] == "stop":
            self.stopping = set(self.connected)
        else:
            self.over = True

    @precondition(lambda self: not self.over)
    @rule(worker=st.integers(0, workers - 1))
    def comes_or_says_ready(self, worker):
        if worker not in self.connected:
            self.connected.add(worker)
            self.obey(self.coordinator.worker_ready(worker, now=0))

    @precondition(lambda self: not self.over)
    @rule(worker=st.integers(0, workers - 1))
    def has_stopped(self, worker):
        if worker in self.stopping:
            self.stopping.remove(worker)
            self.training.pop(worker, None)
            self.obey(self.coordinator.worker_ready(worker, now=0))

    @precondition(lambda self: not self.over)
    @rule(worker=st.integers(0, workers - 1))
    def leaves(self, worker):
        if worker in self.connected:
            self.connected.remove(worker)
            self.stopping.discard(worker)
            self.training.pop(worker, None)
            self.obey(self.coordinator.worker_left(worker, now=0))

    @precondition(lambda self: not self.over)
    @rule(worker=st.integers(0, workers - 1), code=st.sampled_from([-9, PEER_LOST, STOPPED]))
    def ends(self, worker, code):
        if worker in self.training:
            attempt = self.training.pop(worker)
            self.obey(self.coordinator.process_ended(worker, attempt, code, "", now=0))

    @invariant()
    def all_train_the_same_attempt(self):
        assert len(set(self.training.values())) <= 1


TestFleet = Fleet.TestCase
