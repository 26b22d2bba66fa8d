"""A disk that a test may slow down for some processes: a loop device, with a limit for their cgroup."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

_BYTES = 64 << 20
_CGROUPS = Path("/sys/fs/cgroup")
_FORGETS_SECONDS = 0.05


class SlowDisk:
    """A file system at ``folder``.

    What is read from it is forgotten at once, as of data that memory has no room for.
    """

    def __init__(self, place: Path):
        self.folder = place / "disk"
        self._image = place / "disk.img"
        version_1 = (_CGROUPS / "blkio").is_dir()
        # Only version 2, which may lie beside version 1, tells how long a cgroup waits for disks.
        trees = ("blkio", "unified") if version_1 else ("",)
        self._groups = {
            slow: [_CGROUPS / tree / f"maskfleet-{os.getpid()}-{name}" for tree in trees]
            for slow, name in ((True, "slow"), (False, "other"))
        }
        self._limit = self._groups[True][0] / ("blkio.throttle.read_iops_device" if version_1 else "io.max")
        self._form = "{} {}" if version_1 else "{} riops={}"
        self._device = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._forget)

    def prefix(self, *, slow: bool) -> tuple[str, ...]:
        """Of a command that shall run in the cgroup for which the disk is slow, or in the other one."""
        join = "".join(f"echo $$ > {group}/cgroup.procs && " for group in self._groups[slow])
        return "sh", "-c", f'{join}exec "$@"', "sh"

    def open(self) -> None:
        """Raises OSError or CalledProcessError where that is not allowed."""
        for group in chain(*self._groups.values()):
            group.mkdir()
        for file in (self._limit, self._groups[True][-1] / "io.pressure"):
            file.read_text()
        with self._image.open("wb") as image:
            image.truncate(_BYTES)
        self._device = _run("losetup", "--find", "--show", str(self._image))
        _run("blockdev", "--setra", "0", self._device)  # one read brings what was asked for
        _run("mkfs.ext4", "-q", self._device)
        self.folder.mkdir()
        _run("mount", self._device, str(self.folder))
        self._thread.start()

    def limit(self, reads: int) -> None:
        """From now on so many reads a second for the slow cgroup."""
        number = Path(self._device).stat().st_rdev
        self._limit.write_text(self._form.format(f"{os.major(number)}:{os.minor(number)}", reads))

    def close(self) -> None:
        """Leaves nothing behind, however far ``open`` has come, once the cgroup's processes have ended."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        for command in (["umount", str(self.folder)], ["losetup", "--detach", self._device]):
            with contextlib.suppress(subprocess.CalledProcessError, OSError):
                _run(*command)
        for group in chain(*self._groups.values()):
            with contextlib.suppress(OSError):
                group.rmdir()

    def _forget(self) -> None:
        while not self._over.wait(_FORGETS_SECONDS):
            for path in self.folder.rglob("*.tfrecord"):
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def slow_disk(place: Path) -> Iterator[SlowDisk]:
    """Under ``place``. Skips the test where no such disk may be made."""
    disk = SlowDisk(place)
    try:
        try:
            disk.open()
        except (OSError, subprocess.CalledProcessError) as error:
            words = getattr(error, "stderr", "") or str(error)
            pytest.skip(f"not run: no loop device with a limit for a cgroup may be made here: {words.strip()}")
        yield disk
    finally:
        disk.close()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
