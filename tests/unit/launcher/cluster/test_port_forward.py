"""What a user sees of a connection to a pod that ends."""

import subprocess
import sys

THREAD_THAT_FAILS = """
import sys, threading
from launcher.cluster.kubernetes_api import _quieten_port_forwards

def fail():
    raise ConnectionResetError("reset by peer")

_quieten_port_forwards()
thread = threading.Thread(target=fail, name=sys.argv[1])
thread.start()
thread.join()
"""


def said(name: str) -> str:
    command = [sys.executable, "-c", THREAD_THAT_FAILS, name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def test_a_connection_that_is_hung_up_prints_no_traceback() -> None:
    assert said("Kubernetes port forward proxy: 6006") == ""


def test_other_threads_still_tell_their_errors() -> None:
    assert "ConnectionResetError: reset by peer" in said("streamer")
