"""A part of a CPU for a process, so that more workers than CPUs get as much each."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

_CONTROLLER = Path("/sys/fs/cgroup/cpu")
_PERIOD_MICROSECONDS = 5000
"""Far less than the kernel's 100 ms, for most of which a worker would wait for another that has used up its share."""


@contextmanager
def equal_shares(count: int) -> Iterator[list[Path]]:
    """``count`` control groups of an equal share of this machine each, and of no more than one CPU."""
    if not os.access(_CONTROLLER, os.W_OK):
        pytest.skip(f"expected to be root, and a version 1 control group at {_CONTROLLER}")
    quota = int(_PERIOD_MICROSECONDS * min(1.0, (os.cpu_count() or 1) / count))
    with ExitStack() as stack:
        groups = []
        for _ in range(count):
            group = Path(tempfile.mkdtemp(prefix="maskfleet-benchmark-", dir=_CONTROLLER))
            stack.callback(group.rmdir)
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
            groups.append(group)
        yield groups


def put_into(group: Path, process: int) -> None:
    """Moves a process with all its threads; what it starts from now on belongs to the group as well."""
    (group / "cgroup.procs").write_text(str(process))
