"""A worker's place among its peers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from maskfleet.environment import (
    PEERS_VARIABLE,
    PRESENT_VARIABLE,
    SHRINK_AFTER_VARIABLE,
    WORKER_VARIABLE,
    WORKERS_VARIABLE,
)
from maskfleet.errors import BadSettings
from maskfleet.text import numbers_in, one_line, some_of
from maskfleet.worker_count import WorkerCount

LAST_PORT = 65535
"""The port after a worker's has to be one too."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHRINK_AFTER = 120
"""Seconds, where nothing is asked for."""


@dataclass(frozen=True)
class Peers:
    """Which worker this process is. Worker 0 is the chief.

    Attributes:
        worker: index of this worker.
        addresses: ``host:port`` of every worker's TensorFlow server, this one's included.
        least: so many train for as long as there are no more; None: all have to be there.
        shrink_after: seconds that are waited for the others.
        present: the workers that train together now, in order; empty: all.
    """

    worker: int = 0
    addresses: tuple[str, ...] = ("localhost:0",)
    least: int | None = None
    shrink_after: float = SHRINK_AFTER
    present: tuple[int, ...] = ()

    @property
    def workers(self) -> int:
        """How many there are; of those that train together, where that is said."""
        return len(self.present or self.addresses)

    @property
    def rank(self) -> int:
        """This worker's place among those that train together, from 0 on."""
        return self.present.index(self.worker) if self.present else self.worker

    @property
    def is_chief(self) -> bool:
        return self.worker == 0

    @property
    def local_workers(self) -> int:
        """Workers on this worker's host, itself included, by the names of the peers."""
        host = self.addresses[self.worker].rpartition(":")[0]
        return sum(address.rpartition(":")[0] == host for address in self._together())

    @property
    def are_local(self) -> bool:
        """Whether there are several, and all meet on this machine's loopback interface."""
        hosts = {self.rendezvous_address(worker)[0] for worker in range(len(self.addresses))}
        return len(self.addresses) > 1 and hosts <= set(LOOPBACK)

    def longest_wait(self, start_timeout: float) -> float:
        """Seconds for others to come, before a start is given up; where fewer may go on they have gone on before."""
        return start_timeout + (0 if self.least is None else self.shrink_after)

    def server_address(self, worker: int) -> tuple[str, int]:
        """Host and port at which TensorFlow's server of ``worker`` listens."""
        host, _, port = self.addresses[worker].rpartition(":")
        return host.strip("[]"), int(port)

    def rendezvous_address(self, worker: int) -> tuple[str, int]:
        """Host and port at which the supervisor of ``worker`` listens: the port after TensorFlow's."""
        host, port = self.server_address(worker)
        return host, port + 1

    def tf_config(self) -> str:
        """The value of TF_CONFIG for this worker."""
        task = {"type": "worker", "index": self.rank}
        return json.dumps({"cluster": {"worker": self._together()}, "task": task})

    def _together(self) -> list[str]:
        return [self.addresses[worker] for worker in self.present or range(len(self.addresses))]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Peers:
        """Reads TF_CONFIG, or else the three MASKFLEET_ variables of an indexed pod.

        MASKFLEET_PEERS is a pattern such as ``pets-{}.pets:2222``, so that a pod's manifest does not grow
        with MASKFLEET_WORKERS, a number or a range such as ``2..8``; MASKFLEET_WORKER is the pod's index. Without any
        of them there is one worker. A training process gets MASKFLEET_PRESENT beside them.

        Raises:
            BadSettings: a variable is malformed or the index lies outside the cluster.
        """
        if environment.get("TF_CONFIG"):
            return cls._from_tf_config(environment["TF_CONFIG"])
        if PEERS_VARIABLE not in environment:
            return cls()
        pattern = environment[PEERS_VARIABLE]
        try:
            count = WorkerCount.parse(environment[WORKERS_VARIABLE])
            worker = int(environment[WORKER_VARIABLE])
        except (KeyError, ValueError) as error:
            raise BadSettings(
                f"{PEERS_VARIABLE} is set, so {WORKERS_VARIABLE} and {WORKER_VARIABLE} must be whole numbers: {error}"
            ) from error
        peers = cls._checked(worker, tuple(pattern.replace("{}", str(index)) for index in range(count.most)))
        return peers._in_range(count, environment) if count.is_range else peers

    def _in_range(self, count: WorkerCount, environment: Mapping[str, str]) -> Peers:
        try:
            patience = float(environment.get(SHRINK_AFTER_VARIABLE, SHRINK_AFTER))
            found = replace(self, least=count.least, shrink_after=patience)
            return found.among(environment[PRESENT_VARIABLE]) if PRESENT_VARIABLE in environment else found
        except ValueError as error:
            raise BadSettings(f"{SHRINK_AFTER_VARIABLE}, {PRESENT_VARIABLE}: {error}") from error

    def among(self, present: str) -> Peers:
        """This worker among those that train together, written as ``0,2-4``.

        Raises:
            ValueError: they are no workers of this run, or this one is not among them.
        """
        workers = tuple(numbers_in(present, len(self.addresses)))
        if self.worker not in workers:
            raise ValueError(f"expected worker {self.worker} among {present}")
        return replace(self, present=workers)

    @classmethod
    def _from_tf_config(cls, value: str) -> Peers:
        try:
            config = json.loads(value)
            addresses = tuple(map(str, config["cluster"]["worker"]))
            task, worker = config["task"]["type"], int(config["task"]["index"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise BadSettings(
                'TF_CONFIG: expected {"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", '
                f'"index": 0}}}}, found {one_line(repr(value))} ({one_line(repr(error))})'
            ) from error
        if task != "worker" or set(config["cluster"]) != {"worker"}:
            raise BadSettings(
                f"TF_CONFIG: expected workers only (worker 0 is the chief), found task {one_line(repr(task), 100)} "
                f"in a cluster of {one_line(some_of(list(config['cluster'])))}"
            )
        return cls._checked(worker, addresses)

    @classmethod
    def _checked(cls, worker: int, addresses: tuple[str, ...]) -> Peers:
        if not 0 <= worker < len(addresses):
            raise BadSettings(f"worker index {worker}: expected 0 to {len(addresses) - 1} for {len(addresses)} workers")
        for address in addresses:
            host, _, port = address.rpartition(":")
            if not host or not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < LAST_PORT):
                raise BadSettings(
                    f"peer {one_line(repr(address))}: expected host:port, with a port of 1 to {LAST_PORT - 1}"
                )
        return cls(worker, addresses)
