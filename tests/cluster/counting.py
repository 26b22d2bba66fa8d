"""A cluster that counts what is sent to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from launcher.cluster.kubernetes_api import Cluster


class Counting(Cluster):
    """Keeps the requests and what they say, and gives up before one if told so.

    Attributes:
        requests: ``METHOD kind/name`` of each, or ``WATCH kind``; those of any :meth:`patient` one too.
        bodies: method and body of those that have one.
        allowed: as many requests are sent.
    """

    allowed = 1 << 30

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.requests: list[str] = []
        self.bodies: list[tuple[str, Any]] = []

    @property
    def sent(self) -> int:
        return len(self.requests)

    def _send(self, *request: Any) -> Any:
        method, path, _, *body = request
        self._count(method, path)
        self.bodies += [(method, each) for each in body[:1] if each is not None]
        return super()._send(*request)

    def _lines(self, path: str, query: Any) -> Iterator[bytes]:
        self._count("WATCH" if query.get("watch") else "GET", path)
        return super()._lines(path, query)

    def _count(self, method: str, path: str) -> None:
        if self.sent >= self.allowed:
            raise KeyboardInterrupt
        self.requests.append(f"{method} {path.rpartition(f'/{self.namespace}/')[2]}")
