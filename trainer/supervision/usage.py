"""What a worker uses of its machine, between two looks. Reads /proc, the container's cgroup, and NVIDIA's library."""

from __future__ import annotations

import time
from pathlib import Path

from maskfleet.pace import Usage
from trainer import cgroup

_NO_LIMIT = 1 << 60
"""Bytes; from here on a limit of a memory cgroup is none."""


class UsageMeter:
    """Of one training process, with all its threads.

    Args:
        pid: its number.
    """

    def __init__(self, pid: int, proc: Path = Path("/proc")):
        self._tasks = proc / str(pid) / "task"
        self._before = self._counts()

    def usage(self) -> Usage:
        """Since the last call, or since there is this meter."""
        now, before = self._counts(), self._before
        self._before = now
        passed = max(now["time"] - before["time"], 1e-9)

        def grown(name: str) -> float | None:
            return max(0.0, now[name] - before[name]) if name in now and name in before else None

        ran, waited, periods, throttled = map(grown, ("ran", "waited", "periods", "throttled"))
        stalled = grown("io")
        return Usage(
            cpus=None if ran is None else ran / passed,
            cpu_wait=None if ran is None or waited is None else _share(waited, ran + waited),
            throttled=None if throttled is None or not periods else _share(throttled, periods),
            memory=_memory(),
            io_wait=None if stalled is None else _share(stalled, passed),
            **_gpus(),
        )

    def _counts(self) -> dict[str, float]:
        """What only grows: seconds, but for the periods."""
        counts = {"time": time.monotonic()}
        threads = [found for found in map(_on_cpu_and_ready, _entries(self._tasks)) if found is not None]
        if threads:
            counts |= {"ran": sum(ran for ran, _ in threads), "waited": sum(waited for _, waited in threads)}
        if (cpu := cgroup.cpu_periods()) is not None:
            counts |= {"periods": cpu.all, "throttled": cpu.throttled}
        if (stalled := cgroup.io_stalled()) is not None:
            counts["io"] = stalled
        return counts


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # the process has ended, or this is no Linux
        return []


def _on_cpu_and_ready(task: Path) -> tuple[float, float] | None:
    """Seconds that a thread had a CPU, and that it waited for one; None of a thread that has ended."""
    try:
        on_cpu, ready, _ = (task / "schedstat").read_text().split()
        return int(on_cpu) / 1e9, int(ready) / 1e9
    except (OSError, ValueError):
        return None


def _share(part: float, whole: float) -> float:
    return min(1.0, part / whole) if whole > 0 else 0.0


def _memory() -> float | None:
    memory = cgroup.memory()
    return None if memory is None or memory.limit >= _NO_LIMIT else _share(memory.peak, memory.limit)


def _gpus() -> dict[str, float]:
    """The mean over all GPUs that the driver shows here; nothing without NVIDIA's library or a GPU."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # of a library that is not there, or has no driver below it
        return {}
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        busy = [pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100 for handle in handles]
        memory = [(found.used, found.total) for found in map(pynvml.nvmlDeviceGetMemoryInfo, handles)]
    except pynvml.NVMLError:
        return {}
    finally:
        pynvml.nvmlShutdown()
    if not handles:
        return {}
    used = sum(_share(used, total) for used, total in memory)
    return {"gpu": sum(busy) / len(handles), "gpu_memory": used / len(handles)}
