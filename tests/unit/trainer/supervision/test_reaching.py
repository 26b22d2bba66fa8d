"""How a worker comes to the chief, and when it gives up its place for the chief's."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from maskfleet.errors import PeerLost
from maskfleet.peers import Peers
from trainer.supervision import reaching
from trainer.supervision.reaching import Reaching

NOWHERE, HERE = "nowhere.invalid:2222", "127.0.0.1:1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "NOTICE_SECONDS", 0.1)


def end_of(worker: int, *addresses: str, least: int | None = 1, limit: float = 1.0) -> str:
    peers = Peers(worker, addresses, least=least, shrink_after=0.3)
    way = Reaching(peers, peers.rendezvous_address(0), b"token", lambda line: None)
    with pytest.raises(PeerLost) as error:
        asyncio.run(way.connection(limit))
    return str(error.value)


def test_the_last_worker_makes_room_for_a_chief_without_a_node() -> None:
    told = end_of(2, NOWHERE, HERE, HERE, NOWHERE)
    assert told.startswith("worker 2 makes room for worker 0 (the chief), which has found none for ")


@pytest.mark.parametrize(
    ("worker", "addresses", "least"),
    [
        (1, (NOWHERE, HERE, HERE), 1),  # another one does
        (1, (HERE, HERE), 1),  # the chief has a node, and is not ready yet
        (1, (NOWHERE, HERE), None),  # all have to come
    ],
)
def test_no_other_one_does(worker: int, addresses: tuple[str, ...], least: int | None) -> None:
    assert end_of(worker, *addresses, least=least).startswith(f"worker {worker} waited 1 s in vain for worker 0")


def test_where_not_all_have_to_come_the_others_names_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def resolve(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    end_of(3, "a:1", "b:1", "c:1", "d:1", limit=0.1)
    assert set(asked) == {"a"}
