"""Limits of the container, from both versions of cgroups."""

from pathlib import Path

import pytest

from trainer.cgroup import CpuPeriods, Memory, cpu_limit, cpu_periods, free_memory, io_stalled, memory


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(
    ("proc", "files", "limit"),
    [
        ("0::/\n", {"cpu.max": "100000 100000"}, 1),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/pod/box\n", {"pod/cpu.max": "100000 100000", "pod/box/cpu.max": "max 100000"}, 1),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("4:cpu,cpuacct:/box\n", {"cpu,cpuacct/box/cpu.cfs_quota_us": "100000",
                                  "cpu,cpuacct/box/cpu.cfs_period_us": "100000"}, 1),
        ("4:cpuacct,cpu:/box\n", {"cpu,cpuacct/box/cpu.cfs_quota_us": "100000",  # RHEL 7
                                  "cpu,cpuacct/box/cpu.cfs_period_us": "100000", "cpuset/box/cpuset.cpus": "0"}, 1),
        ("4:cpu:/box\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("3:memory:/box\n", {}, None),
    ],
)  # fmt: skip
def test_a_cgroup_s_quota_limits_the_cpus(tmp_path, monkeypatch, proc, files, limit):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    write(tmp_path, {"proc": proc, **{f"cgroup/{name}": content for name, content in files.items()}})
    assert cpu_limit(tmp_path / "proc", tmp_path / "cgroup") == (limit or 4)


@pytest.mark.parametrize(
    ("proc", "files", "expected"),
    [
        (
            "0::/box\n",
            {"box/memory.max": "1000\n", "box/memory.peak": "900\n", "box/memory.events": "low 0\noom_kill 2\n"},
            Memory(1000, 900, 2),
        ),
        (
            "9:memory:/box\n",
            {
                "memory/box/memory.limit_in_bytes": "1000\n",
                "memory/box/memory.max_usage_in_bytes": "1000\n",
                "memory/box/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            },
            Memory(1000, 1000, 1),
        ),
        ("0::/box\n", {}, None),
    ],
)
def test_memory_is_read_from_the_container_s_cgroup(tmp_path, proc, files, expected):
    write(tmp_path, {"proc": proc, **{f"cgroup/{name}": content for name, content in files.items()}})
    assert memory(tmp_path / "proc", tmp_path / "cgroup") == expected


@pytest.mark.parametrize(
    ("proc", "files", "expected"),
    [
        ("0::/box\n", {"box/cpu.stat": "usage_usec 9\nnr_periods 70\nnr_throttled 21\nthrottled_usec 5\n"}, (70, 21)),
        ("4:cpu:/box\n", {"cpu/box/cpu.stat": "nr_periods 70\nnr_throttled 21\nthrottled_time 5\n"}, (70, 21)),
        ("4:cpu:/host/box\n", {"cpu/cpu.stat": "nr_periods 7\nnr_throttled 2\nthrottled_time 5\n"}, (7, 2)),
        ("0::/box\n", {"box/cpu.stat": "usage_usec 9\n"}, None),
        ("0::/box\n", {}, None),
    ],
)
def test_throttling_is_read_from_the_container_s_cgroup(tmp_path, proc, files, expected):
    write(tmp_path, {"proc": proc, **{f"cgroup/{name}": content for name, content in files.items()}})
    found = cpu_periods(tmp_path / "proc", tmp_path / "cgroup")
    assert found == (None if expected is None else CpuPeriods(*expected))


@pytest.mark.parametrize("mount", ["", "unified/"])
def test_waiting_for_a_disk_is_read_from_the_container_s_cgroup(tmp_path, mount):
    some, full = "avg10=0.00 avg60=0.00 avg300=0.00 total=2500000", "avg10=0.00 avg60=0.00 avg300=0.00 total=1"
    write(tmp_path, {"proc": "1:cpu:/box\n0::/box\n", f"cgroup/{mount}box/io.pressure": f"some {some}\nfull {full}\n"})
    assert io_stalled(tmp_path / "proc", tmp_path / "cgroup") == 2.5
    (tmp_path / f"cgroup/{mount}box/io.pressure").write_text("")
    assert io_stalled(tmp_path / "proc", tmp_path / "cgroup") is None


@pytest.mark.parametrize(
    ("machine", "files", "free"),
    [
        ("MemTotal: 9 kB\nMemAvailable:    4 kB\n", {}, 4096),
        ("MemAvailable: 4 kB\n", {"memory.max": "max", "memory.current": "7", "memory.stat": "inactive_file 1"}, 4096),
        (
            "MemAvailable: 4 kB\n",
            {
                "memory.max": "1000\n",
                "memory.current": "900\n",
                "memory.stat": "anon 600\ninactive_file 300\n",
                "box/memory.max": "950\n",
                "box/memory.current": "800\n",
                "box/memory.stat": "inactive_file 100\n",
            },
            250,
        ),
        ("", {}, None),
    ],
)
def test_the_smallest_of_what_is_free_counts_and_files_can_be_given_up(tmp_path, machine, files, free):
    write(
        tmp_path, {"proc": "0::/box\n", "meminfo": machine, **{f"cgroup/{name}": each for name, each in files.items()}}
    )
    assert free_memory(tmp_path / "proc", tmp_path / "cgroup", tmp_path / "meminfo") == free


def test_version_1_of_cgroups_tells_what_is_free_too(tmp_path):
    files = {"limit_in_bytes": "1000", "usage_in_bytes": "900", "stat": "cache 5\ntotal_inactive_file 300\n"}
    write(
        tmp_path,
        {"proc": "9:memory:/box\n", **{f"cgroup/memory/box/memory.{name}": each for name, each in files.items()}},
    )
    assert free_memory(tmp_path / "proc", tmp_path / "cgroup", tmp_path / "meminfo") == 400
