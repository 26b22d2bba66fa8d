"""Supervisors notice that the machine of another one is gone, which says nothing any more."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from tests.helpers.delayed_network import ADDRESSES, DelayedNetwork, delayed_network

PROGRAM = f"""
import asyncio, sys
from pathlib import Path
from maskfleet.config import TrainConfig
from maskfleet.peers import Peers
from maskfleet.run_directory import RunDirectory
from trainer.supervision import silence
from trainer.supervision.chief import ChiefServer
from trainer.supervision.reaching import Reaching
silence.SILENCE_SECONDS = 2
peers = Peers(int(sys.argv[1]), ("{ADDRESSES[0]}:2222", "{ADDRESSES[1]}:2222"))

async def chief():
    server = ChiefServer(TrainConfig(), peers, RunDirectory(Path(sys.argv[2])), b"token", print)
    async with server.serving():
        for there in (True, False):
            while bool(server._coordinator.connected) is not there:
                await asyncio.sleep(0.05)
            print("worker 1 is " + ("there" if there else "lost"), flush=True)

async def worker():
    reader, _ = await Reaching(peers, peers.rendezvous_address(0), b"token", print).connection(10)
    print("worker 0 is there", flush=True)
    try:
        await reader.readline()
    except OSError:
        print("worker 0 is lost", flush=True)

asyncio.run(chief() if peers.is_chief else worker())
"""


def process(network: DelayedNetwork, worker: int, run: Path) -> subprocess.Popen[str]:
    words = (*network.prefix(worker), sys.executable, "-c", PROGRAM, str(worker), str(run))
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_both_sides_find_out_that_the_other_machine_is_gone(tmp_path: Path) -> None:
    with delayed_network() as network:
        both = [process(network, worker, tmp_path) for worker in (0, 1)]
        timers = [threading.Timer(30, each.kill) for each in both]
        for timer in timers:
            timer.start()
        try:
            first = [each.stdout.readline() for each in both if each.stdout]
            network.cut = True
            rest = [each.communicate()[0] for each in both]
        finally:
            for timer, each in zip(timers, both, strict=True):
                timer.cancel()
                each.kill()
                each.wait()
    assert first == ["worker 1 is there\n", "worker 0 is there\n"], rest
    assert rest == ["worker 1 is lost\n", "worker 0 is lost\n"]
