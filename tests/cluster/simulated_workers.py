"""What pods on simulated nodes do not run: their workers' supervisors, and the chief's server that they connect to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace

from launcher.cluster.kubernetes_api import Cluster
from launcher.cluster.watched import Watched
from launcher.diagnosis.pods import worker_of
from launcher.job.labels import instance
from launcher.local.local_run import free_port_pairs
from launcher.pod.job_reporter import JobReporter, report
from maskfleet.config import TrainConfig
from maskfleet.errors import STOPPED
from maskfleet.pace import Steps
from maskfleet.peers import Peers
from maskfleet.records import Progress
from maskfleet.run_directory import RunDirectory
from trainer.supervision.chief import ChiefServer
from trainer.supervision.fleet import OwnPace
from trainer.supervision.reaching import Reaching
from trainer.supervision.rendezvous import Message, parse_order, serialize

TOKEN = b"of this test"
LOOK_SECONDS = 0.3
STEPS = json.dumps(asdict(Steps(10, 5.0, 0.1, 4.0, 0.9))).encode() + b"\n"


class SimulatedWorkers:
    """A supervisor's connection for each pod that runs on a node that is there, to a chief's server; all in one thread.

    The chief's server with what it decides and writes down, and the way to it, are the product's. Nobody trains: while
    worker 0 is told to, the run's progress goes on.

    Args:
        cluster: the job's namespace.
        least, most: the range of its workers.
        run: worker 0's run directory.
    """

    def __init__(self, cluster: Cluster, job: str, least: int, most: int, shrink_after: float, run: RunDirectory):
        (port,) = free_port_pairs(1)
        # Only the chief's address is ever connected to.
        addresses = (f"127.0.0.1:{port}", *["127.0.0.1:1"] * (most - 1))
        self._peers = Peers(0, addresses, least, shrink_after)
        self._pods = Watched(cluster, "Pod", labels=instance(job))
        self._nodes = Watched(cluster, "Node")
        self._run, self._over, self._trains = run, threading.Event(), False
        self.lines: list[str] = []

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        with self._pods, self._nodes:
            thread = threading.Thread(target=lambda: asyncio.run(self._follow_pods()))
            thread.start()
            try:
                yield
            finally:
                self._over.set()
                thread.join()

    async def _follow_pods(self) -> None:
        server = ChiefServer(TrainConfig(), self._peers, self._run, TOKEN, self.lines.append)
        async with server.serving() as self._chief:
            supervisors: dict[str, asyncio.Task[None]] = {}
            for step in range(10**6):
                there = await asyncio.to_thread(self._running)
                for pod in supervisors.keys() - there.keys():
                    supervisors.pop(pod).cancel()
                for pod in there.keys() - supervisors.keys():
                    supervisors[pod] = asyncio.create_task(self._supervise(there[pod]))
                if self._trains:
                    Progress("running", 0, 9, step, 10**6, loss=1.0).write(self._run)
                if self._over.is_set():
                    break
                await asyncio.sleep(LOOK_SECONDS)
            for task in supervisors.values():
                task.cancel()
            await asyncio.gather(*supervisors.values(), return_exceptions=True)

    def _running(self) -> dict[str, int]:
        """The workers whose pods run, by their pods' uids."""
        nodes = self._nodes.objects()
        return {
            pod["metadata"]["uid"]: worker_of(pod)
            for pod in self._pods.objects().values()
            if pod["status"].get("phase") == "Running"
            and pod["spec"]["nodeName"] in nodes
            and not pod["metadata"].get("deletionTimestamp")
        }

    async def _supervise(self, worker: int) -> None:
        """As a supervisor whose training process does what it is told at once."""
        peers, pace = replace(self._peers, worker=worker), OwnPace()
        reader, writer = await Reaching(peers, self._chief, TOKEN, self.lines.append).connection(60)

        def send(message: Message) -> None:
            writer.write(serialize(message))

        attempt = together = 0
        try:
            send({"is": "ready", "of": together})
            while (order := parse_order(await reader.readline())) is not None:
                if order["do"] == "start":
                    with contextlib.suppress(ValueError):  # others train without this one
                        together, attempt = peers.among(order["workers"]).workers, order["attempt"]
                elif order["do"] == "stop" and attempt:
                    send({"is": "ended", "attempt": attempt, "code": STOPPED, "reason": ""})
                    send({"is": "ready", "of": together})
                    attempt = 0
                elif order["do"] == "ping":
                    pace.take(STEPS)
                    send({"is": "pong", "mark": order["mark"]})
                    send(pace.message())
                self._trains = self._trains if worker else bool(attempt)
        finally:
            writer.close()


@contextlib.contextmanager
def reported(run: RunDirectory, cluster: Cluster, job: str) -> Iterator[None]:
    """Has the run's progress and events put on its Job, as the chief's sidecar does."""
    stop = threading.Event()
    thread = threading.Thread(target=report, args=(JobReporter(cluster, job, run), stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
