"""Two network namespaces of this machine, between which each packet takes as long as a test wants.

A forwarder carries the packets between two TUN devices. So it works on any Linux: many kernels do not have netem, with
which tc would delay them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

ADDRESSES = ("10.213.0.1", "10.213.0.2")
"""Of the two namespaces."""
_DEVICE = "delayed"
_BYTES = 60_000
"""Of a packet at most."""
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
_CLONE_NEWNET = 0x40000000


class DelayedNetwork:
    """What lies between the namespaces ``names``.

    Attributes:
        delay: seconds of each packet, one way; may be changed at any time.
        cut: no packet arrives any more.
    """

    def __init__(self) -> None:
        self.names = tuple(f"maskfleet-{os.getpid()}-{side}" for side in range(2))
        self.delay = 0.0
        self.cut = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._forward)
        self._opened: list[int] = []

    def prefix(self, side: int) -> tuple[str, ...]:
        """Of a command that shall run in a namespace. ``ip netns exec`` would hide the cgroups from it."""
        return "nsenter", f"--net=/run/netns/{self.names[side]}"

    def open(self) -> None:
        """Raises OSError or CalledProcessError where that is not allowed."""
        for name in self.names:
            _ip("netns", "add", name)
        opening = threading.Thread(target=self._open_devices)  # which is in those namespaces then, and ends
        opening.start()
        opening.join()
        if len(self._opened) < 2:
            raise OSError("/dev/net/tun can't be opened")
        for name, address in zip(self.names, ADDRESSES, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", _DEVICE)
            _ip("-n", name, "link", "set", _DEVICE, "mtu", str(_BYTES), "up")
            _ip("-n", name, "link", "set", "lo", "up")
        self._thread.start()

    def close(self) -> None:
        """Leaves nothing behind, however far ``open`` has come."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        for device in self._opened:
            os.close(device)
        for name in self.names:
            with contextlib.suppress(subprocess.CalledProcessError, OSError):
                _ip("netns", "delete", name)

    def _open_devices(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        for name in self.names:
            with Path(f"/run/netns/{name}").open() as namespace:
                if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                    return
            try:
                device = os.open("/dev/net/tun", os.O_RDWR)
                self._opened.append(device)
                fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH14x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
            except OSError:
                return

    def _forward(self) -> None:
        first, second = self._opened
        other = {first: second, second: first}
        on_their_way: deque[tuple[float, int, bytes]] = deque()
        while not self._over.is_set():
            wait = max(0.0, on_their_way[0][0] - time.monotonic()) if on_their_way else 0.05
            for device in select.select(self._opened, [], [], wait)[0]:
                packet = os.read(device, 1 << 16)
                if self.cut:
                    continue
                on_their_way.append((time.monotonic() + self.delay, other[device], packet))
            while on_their_way and on_their_way[0][0] <= time.monotonic():
                _, device, packet = on_their_way.popleft()
                os.write(device, packet)


@contextlib.contextmanager
def delayed_network() -> Iterator[DelayedNetwork]:
    """Skips the test where no network may be made."""
    network = DelayedNetwork()
    try:
        try:
            network.open()
        except (OSError, subprocess.CalledProcessError) as error:
            words = getattr(error, "stderr", "") or str(error)
            pytest.skip(f"not run: no network namespaces with TUN devices may be made here: {words.strip()}")
        yield network
    finally:
        network.close()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
