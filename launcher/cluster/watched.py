"""Objects of the cluster, kept current by a watch."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Self

from launcher.cluster.kubernetes_api import Object
from launcher.cluster.namespace import Namespace


class Watched:
    """The objects of a kind, kept current by a watch in a thread while the ``with`` block runs."""

    def __init__(self, cluster: Namespace, kind: str, *, labels: str = "", fields: str = "") -> None:
        self._watch = cluster.watch(kind, labels=labels, fields=fields)
        self._objects: Mapping[str, Object] = {}
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self._stop = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True  # the thread sees it at its next news, or within a minute

    def objects(self) -> Mapping[str, Object]:
        """By name, as they are now; waits for the first list.

        Raises:
            MaskfleetError: the watch can't go on.
        """
        self._ready.wait()
        if self._error:
            raise self._error
        return self._objects

    def _run(self) -> None:
        current: dict[str, Object] = {}
        synced = False
        try:
            for change, item in self._watch:
                if self._stop:
                    return
                if change == "SYNCED":
                    synced = True
                elif change == "RESTART":
                    current, synced = {}, False
                elif change == "DELETED":
                    current.pop(item["metadata"]["name"], None)
                else:
                    current[item["metadata"]["name"]] = item
                if synced:
                    self._objects = dict(current)
                    self._ready.set()
        except BaseException as error:
            self._error = error
            self._ready.set()
