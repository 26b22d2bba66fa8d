"""The log of a process: a message is a line, whoever's words are in it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from maskfleet.child_processes import signal_name


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
