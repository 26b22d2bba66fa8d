"""The log of a process: a message is a line, whoever's words are in it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time

import psutil
import pytest

from maskfleet.child_processes import send_signal, signal_name


def test_foreign_words_forge_no_line_of_a_log() -> None:
    program = (
        "import logging\nfrom maskfleet.child_processes import set_up_logging\nset_up_logging()\n"
        "logging.getLogger('launcher.stream').info('%s', 'a\\nnot copied: forged \\x1b[31m\\r')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.endswith("launcher.stream: a\\nnot copied: forged \\x1b[31m\\r\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (40, "signal 40")])
def test_every_signal_has_a_name(number: int, name: str) -> None:
    ended = subprocess.run([sys.executable, "-c", f"import os; os.kill(os.getpid(), {number})"], check=False)
    assert signal_name(ended.returncode) == name


def test_a_signal_to_a_child_that_has_just_ended_leaves_its_exit_code() -> None:
    """Where the event loop has not heard of the end yet."""

    async def code() -> int:
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.set_child_watcher(watcher)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "raise SystemExit(7)")
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        send_signal(process, signal.SIGTERM)
        return await process.wait()

    try:
        assert asyncio.run(code()) == 7
    finally:
        asyncio.set_child_watcher(None)
