"""What a run has said, from its destination, once its pods are gone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from launcher.streaming.stores import Store
from trainer.exit_codes import NotFound

_LOG = re.compile(r"logs/worker-(\d+)\.log")


def stored_logs(store: Store) -> dict[int, Iterator[str]]:
    """The lines of all workers' logs, by worker.

    Raises:
        NotFound: there is none.
    """
    found = {int(match[1]): each for each in store.list("logs/") if (match := _LOG.fullmatch(each.name))}
    if not found:
        raise NotFound(f"{store.url}: there are no logs")
    return {worker: _lines(store.read(each)) for worker, each in sorted(found.items())}


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")
