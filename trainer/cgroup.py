"""What this process's container may use, and whether the kernel has killed something in it for memory.

Both versions of the cgroup hierarchy are read, of the container itself and of what it lies in.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def cpu_limit(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """CPUs that this process may use: its affinity, or the cgroup's quota where that is less.

    At least 1; a quota of 1.5 CPUs counts as 1, since a second thread would be throttled.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (_cpu_quota(folder) for folder in _folders("cpu", proc, cgroups))
    return min([available, *(max(1, int(quota)) for quota in quotas if quota is not None)])


@dataclass(frozen=True)
class Memory:
    """Of the container: the limit and the most ever used, in bytes, and how often the kernel killed for it."""

    limit: int
    peak: int
    kills: int


def memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> Memory | None:
    """None where no memory cgroup can be read, as outside a container."""
    for folder in _folders("memory", proc, cgroups):
        for limit, peak, events in (
            ("memory.max", "memory.peak", "memory.events"),
            ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
        ):
            try:
                most = (folder / limit).read_text().strip()
                counts = dict(line.split() for line in (folder / events).read_text().splitlines())
                used = int((folder / peak).read_text()) if (folder / peak).exists() else 0
                return Memory(2**63 if most == "max" else int(most), used, int(counts["oom_kill"]))
            except (OSError, ValueError, KeyError):
                continue
    return None


def free_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS, machine: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that may still be taken, of the container's limit or of the machine; None where neither can be read.

    What files occupy of it counts as free where it can be given up at once.
    """
    free = []
    try:
        sizes = dict(line.split(":") for line in machine.read_text().splitlines())
        free.append(int(sizes["MemAvailable"].split()[0]) << 10)
    except (OSError, ValueError, KeyError):
        pass
    for folder in _folders("memory", proc, cgroups):
        for limit, used, files in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            try:
                counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                most, now = (int((folder / name).read_text()) for name in (limit, used))
                free.append(most - now + int(counts[files]))
            except (OSError, ValueError, KeyError):  # "max" among them
                continue
    return max(0, min(free)) if free else None


@dataclass(frozen=True)
class CpuPeriods:
    """Of a container with a CPU limit, since it began: periods of the scheduler, and those that used up the limit."""

    all: int
    throttled: int


def cpu_periods(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> CpuPeriods | None:
    """None where the innermost cgroup has no CPU limit, as outside a container."""
    for folder in _folders("cpu", proc, cgroups):
        try:
            counts = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
            return CpuPeriods(int(counts["nr_periods"]), int(counts["nr_throttled"]))
        except (OSError, ValueError, KeyError):
            continue
    return None


def io_stalled(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> float | None:
    """Seconds that something of the container has waited for a disk, since it began; None where that is not kept.

    The kernel keeps it where pressure stall information is on and the cgroups' hierarchy is of version 2.
    """
    for folder in _folders("", proc, cgroups):
        try:
            some, _ = (folder / "io.pressure").read_text().splitlines()
            return int(some.rpartition("total=")[2]) / 1e6
        except (OSError, ValueError):
            continue
    return None


def _folders(controller: str, proc: Path, cgroups: Path) -> list[Path]:
    """This process's cgroup folders for a controller, innermost first."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            hybrid = cgroups / "unified"  # systemd's place for version 2 where version 1 has the controllers
            root = hybrid if hybrid.is_dir() else cgroups
        elif controller in controllers.split(","):
            # Not always named alike: on RHEL 7 it is "cpuacct,cpu" there and "cpu,cpuacct" here.
            mounts = (mount for mount in sorted(cgroups.glob("*")) if controller in mount.name.split(","))
            root = next(mounts, cgroups / controllers)
        else:
            continue
        folder = root / path.lstrip("/")
        # Inside a container the path may be the host's, while only the root is mounted.
        folders += [parent for parent in (folder, *folder.parents) if parent.is_relative_to(root)]
    return folders


def _cpu_quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return float(quota) / float(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError):
        return None
