"""Workers come to a chief whose server listens."""

from __future__ import annotations

import socket
import threading
import time

from trainer.training.strategy import wait_for_server


def test_a_server_that_comes_late_is_waited_for() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # taken, and nobody listens
        opening = threading.Timer(0.4, server.listen)
        opening.start()
        began = time.monotonic()
        wait_for_server(server.getsockname())
        assert 0.3 < time.monotonic() - began < 5
        opening.join()


def test_a_server_that_never_comes_is_left_to_tensorflow() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        began = time.monotonic()
        wait_for_server(server.getsockname(), longest=0.5)
        assert 0.4 < time.monotonic() - began < 5
