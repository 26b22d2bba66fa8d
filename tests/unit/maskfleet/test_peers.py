"""A worker's place, from the environment."""

import json

import pytest

from maskfleet.errors import BadSettings
from maskfleet.peers import Peers
from trainer.training.strategy import check_gpus


def tf_config(workers=("a:1", "b:2"), index=0, task="worker", group="worker"):
    return {"TF_CONFIG": json.dumps({"cluster": {group: list(workers)}, "task": {"type": task, "index": index}})}


def test_without_variables_there_is_one_worker():
    peers = Peers.from_environment({})
    assert (peers.workers, peers.is_chief) == (1, True)


def test_tf_config_gives_the_place():
    peers = Peers.from_environment(tf_config(index=1))
    assert (peers.worker, peers.addresses, peers.is_chief) == (1, ("a:1", "b:2"), False)
    assert Peers.from_environment({"TF_CONFIG": peers.tf_config()}) == peers


def test_an_indexed_pod_computes_its_peers():
    environment = {"MASKFLEET_PEERS": "p-{}.p:2222", "MASKFLEET_WORKERS": "3", "MASKFLEET_WORKER": "2"}
    peers = Peers.from_environment(environment)
    assert peers == Peers(2, ("p-0.p:2222", "p-1.p:2222", "p-2.p:2222"))
    assert peers.rendezvous_address(1) == ("p-1.p", 2223)


RANGE = {"MASKFLEET_PEERS": "p-{}.p:2222", "MASKFLEET_WORKERS": "2..4", "MASKFLEET_WORKER": "3"}


def test_a_range_says_how_few_go_on():
    peers = Peers.from_environment({**RANGE, "MASKFLEET_SHRINK_AFTER": "90"})
    assert (peers.least, peers.workers, peers.shrink_after, peers.rank) == (2, 4, 90, 3)
    assert Peers.from_environment(RANGE).shrink_after == 120


def test_those_that_train_together_have_places_without_gaps():
    peers = Peers.from_environment({**RANGE, "MASKFLEET_PRESENT": "0,2-3"})
    assert (peers.worker, peers.rank, peers.workers) == (3, 2, 3)
    config = json.loads(peers.tf_config())
    assert config["cluster"]["worker"] == ["p-0.p:2222", "p-2.p:2222", "p-3.p:2222"]
    assert config["task"]["index"] == 2
    assert peers.server_address(3) == ("p-3.p", 2222), "by its own number"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({**RANGE, "MASKFLEET_PRESENT": "0-2"}, "expected worker 3 among 0-2"),
        ({**RANGE, "MASKFLEET_PRESENT": "0-4"}, "expected numbers below 4 such as 0-2,5, found '0-4'"),
        ({**RANGE, "MASKFLEET_SHRINK_AFTER": "soon"}, "MASKFLEET_SHRINK_AFTER, .*: could not convert"),
        ({**RANGE, "MASKFLEET_WORKERS": "4..2"}, "expected numbers from 1 to 2147483647, the smaller first"),
        ({"TF_CONFIG": "{"}, "TF_CONFIG: expected"),
        ({"TF_CONFIG": "[]"}, "TF_CONFIG: expected"),
        ({"TF_CONFIG": tf_config()["TF_CONFIG"].replace('"index": 0', '"index": 1e999')}, "TF_CONFIG: expected"),
        (tf_config(task="ps"), "expected workers only .*, found task 'ps'"),
        (tf_config(group="chief"), "TF_CONFIG: expected"),
        (tf_config(index=2), "worker index 2: expected 0 to 1 for 2 workers"),
        (tf_config(workers=["nonsense"]), "peer 'nonsense': expected host:port"),
        (tf_config(workers=["h:0", "h:1"]), "peer 'h:0': expected host:port, with a port of 1 to 65534"),
        (tf_config(workers=["h:65535", "h:1"]), "peer 'h:65535': expected host:port"),
        (tf_config(workers=["h:²", "h:1"]), "peer 'h:²': expected host:port"),
        (tf_config(workers=["h:" + "9" * 9999, "h:1"]), "peer 'h:9+ … 9+': expected host:port"),
        ({"MASKFLEET_PEERS": "p-{}:1"}, "MASKFLEET_WORKERS and MASKFLEET_WORKER must be whole numbers"),
        (
            {"MASKFLEET_PEERS": "p-{}:1", "MASKFLEET_WORKERS": "2", "MASKFLEET_WORKER": "2"},
            "worker index 2: expected 0 to 1",
        ),
    ],
)
def test_a_malformed_environment_gets_one_line(environment, message):
    with pytest.raises(BadSettings, match=message) as caught:
        Peers.from_environment(environment)
    assert "\n" not in str(caught.value)


def test_a_range_is_waited_for_longer_than_until_fewer_go_on():
    addresses = ("a:1", "b:1")
    assert Peers(0, addresses).longest_wait(600) == 600
    assert Peers(0, addresses, least=1, shrink_after=600).longest_wait(600) == 1200


def test_workers_of_one_host_share_it():
    assert Peers(0, ("127.0.0.1:1", "127.0.0.1:3", "other:1")).local_workers == 2


@pytest.mark.parametrize(("wanted", "seen"), [("1", 0), ("2", 1)])
def test_fewer_gpus_than_the_pod_has_are_refused(wanted, seen, monkeypatch):
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [kind] * seen)
    with pytest.raises(BadSettings, match=f"--gpus-per-worker {wanted}: TensorFlow sees {seen} of them; expected"):
        check_gpus({"MASKFLEET_GPUS": wanted})


@pytest.mark.parametrize(("environment", "seen"), [({}, 0), ({}, 1), ({"MASKFLEET_GPUS": "2"}, 2)])
def test_as_many_gpus_as_the_pod_has_are_enough(environment, seen, monkeypatch):
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [kind] * seen)
    check_gpus(environment)
