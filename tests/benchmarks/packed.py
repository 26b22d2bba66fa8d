"""Packed data against the same in a folder: the start, images a second, bytes read, and the packing itself."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psutil

from tests.benchmarks.row import Row
from tests.benchmarks.start import peak_memory
from tests.helpers.data_folders import write_photographs
from tests.helpers.packed_data import drawn_pairs, put_folder, write_packed
from tests.helpers.processes import LocalRun

FEW, MANY = 1_000, 1_000_000
TURNS = 2
LATENCY, BANDWIDTH = 0.03, 100e6
"""Of the bucket: seconds for a request, bytes/s."""
PICTURES, STEPS, BLOCKS = 400, 20, 6
"""Of the comparison of speeds: JPEGs of 500 x 375; steps that are taken in turns, and how often."""
PACKED, KILLS = 100_000, 3
"""Pictures that are packed, and times that it is killed on the way."""


def rows() -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as folder:
        yield from _start(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        yield from _speed(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        yield from _packing(Path(folder))


def _start(folder: Path) -> Iterable[Row]:
    for count in (FEW, MANY):
        write_packed(folder / str(count), drawn_pairs(1000, 64), train=count - 100)
    size = sum(file.stat().st_size for file in (folder / str(MANY)).iterdir())
    seconds: dict[int, list[float]] = {FEW: [], MANY: []}
    memory: dict[int, list[float]] = {FEW: [], MANY: []}
    with slow_bucket(folder / str(FEW), folder / str(MANY)) as url:
        os.environ["STORAGE_EMULATOR_HOST"] = url
        for turn in range(TURNS + 1):
            for count in (FEW, MANY) if turn % 2 else (MANY, FEW):
                cache = folder / f"cache-{turn}-{count}"
                first, used = _started(folder / f"run-{turn}-{count}", f"gs://bucket/{count}", cache)
                if turn:  # the first one fills the page cache
                    seconds[count].append(first)
                    memory[count].append(used)
    few, many = (statistics.median(seconds[count]) for count in (FEW, MANY))
    yield Row("start to the first step, a million examples", many - few, "s more", f"than {few:.1f} s of a thousand; 5")
    few, many = (statistics.median(memory[count]) / 2**20 for count in (FEW, MANY))
    note = f"than the {few:.0f} MiB of a thousand; 200 is allowed; {size / 1e9:.1f} GB of data"
    yield Row("memory at step 40, a million examples", many - few, "MiB more", note)
    disk, read = _kept(folder / str(MANY), folder / "kept")
    yield Row("most that --cache=500MB has on disk", disk / 1e6, "MB", f"while {read / 1e6:.0f} MB are read")


def _started(path: Path, place: str, cache: Path) -> tuple[float, float]:
    """Seconds to a run's first step, and the bytes of memory that it has at the fortieth."""
    os.environ["MASKFLEET_CACHE"] = str(cache)
    settings = f"--data=packed:{place} --cache=500MB --image-size=64 --batch-per-replica=16"
    settings += " --encoder-weights=none --decoder-filters=16 --no-export --epochs=1000"
    began = time.monotonic()
    with LocalRun(path, f"--run-dir={path}", "--", *settings.split()) as run:
        run.wait_for_step(1)
        first = time.monotonic() - began
        run.wait_for_step(40)
        return first, _memory(run.process)


def _kept(place: Path, cache: Path) -> tuple[int, int]:
    """Most bytes that a cache of 500 MB has on disk while more is read, and the bytes that are read."""
    from trainer.data.opening import open_source
    from trainer.data.stream import streamed

    os.environ["MASKFLEET_CACHE"] = str(cache)
    source = open_source(f"packed:{place}", None)
    assert source.packed is not None
    source.packed.bucket.folder = None  # of what lies in a folder nothing is kept
    streamed(source, 64, 500_000_000)
    most, examples = 0, iter(range(len(source.train)))
    while source.packed.bytes_read < 700_000_000:
        for i in itertools.islice(examples, 1000):
            source.packed.data("train", i)
        most = max(most, sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()))
    return most, source.packed.bytes_read


def _memory(process: psutil.Process) -> float:
    """Bytes that the process and those below it hold of their own, and of mapped files."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += each.memory_info().rss
    return total


@contextlib.contextmanager
def slow_bucket(*folders: Path) -> Iterator[str]:
    """The strict fake in a process of its own, with these folders; each request takes 30 ms, all together 100 MB/s."""
    command = [sys.executable, "-c", "from tests.benchmarks.packed import serve; serve()", *map(str, folders)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def serve() -> None:
    from tests.fakes.gcs import FakeGcs, Request

    turn, free = threading.Lock(), 0.0

    def wait(request: Request) -> None:
        """For the latency, and until the line has sent this answer after those before it."""
        nonlocal free
        if request.method != "GET":
            return
        name = unquote(request.path).split("/", 2)[2]
        start, _, end = request.headers.get("range", f"bytes=0-{sizes.get(name, 0)}")[6:].partition("-")
        with turn:
            now = time.monotonic()
            free = max(free, now) + (int(end) - int(start)) / BANDWIDTH
            left = free - now
        time.sleep(LATENCY + left)

    with FakeGcs() as fake:
        for folder in map(Path, sys.argv[1:]):
            put_folder(fake, folder, folder.name)
        sizes = {name: stored.size for name, stored in fake.snapshot("bucket").items()}
        fake.before = wait
        print(fake.url, flush=True)
        time.sleep(3600)


def _speed(folder: Path) -> Iterable[Row]:
    from maskfleet.config import TrainConfig
    from tests.helpers.training_steps import losses, set_up
    from trainer.data.cache import load_dataset
    from trainer.data.opening import open_source
    from trainer.data.packed.bucket import open_bucket
    from trainer.data.packed.packing import pack
    from trainer.data.pipeline import training_batches, worker_slices
    from trainer.data.source import Reading

    write_photographs(folder / "photographs", PICTURES, 500, 375)
    os.environ["MASKFLEET_CACHE"] = str(folder / "cache")
    config = TrainConfig.resolve([]).model_copy(update={"encoder_weights": "none"})
    data = f"folder:{folder / 'photographs'}"
    with slow_bucket() as url:
        os.environ["STORAGE_EMULATOR_HOST"] = url
        pack(open_source(data, None), Reading(), data, open_bucket("gs://bucket/p", writing=True))
        here = load_dataset(data, None, config.image_size)
        for name, limit in (("nothing kept", 1), ("all kept", None)):
            there = load_dataset("packed:gs://bucket/p", None, config.image_size, cache=limit)
            if limit is None:
                assert there.train.stream is not None
                there.train.stream.read(range(len(there.train)))  # an epoch
            taken: dict[str, list[float]] = {"folder": [], "packed": []}
            steps = {"folder": losses(set_up(config, here)), "packed": losses(set_up(config, there))}
            for block in range(BLOCKS + 1):
                for kind in taken:
                    began = time.monotonic()
                    for _ in range(STEPS):
                        next(steps[kind])
                    if block:
                        taken[kind].append(time.monotonic() - began)
            ratio = statistics.median(taken["folder"]) / statistics.median(taken["packed"])
            note = f"of {config.batch_per_replica * STEPS / statistics.median(taken['folder']):.1f} from a folder; .95"  # type: ignore[operator]
            yield Row(f"images/s from a bucket with 30 ms and 100 MB/s, {name}", ratio, "x", note)
        for workers in (2, 5):
            there = load_dataset("packed:gs://bucket/p", None, config.image_size, cache=1)
            global_batch = 20
            batches: Any = training_batches(
                there.train,
                global_batch=global_batch,
                worker_slice=worker_slices(global_batch, workers)[workers - 1],
                seed=0,
                first_step=0,
                last_step=len(there.train) // global_batch,
                augmentation=_flip(),
            )
            for _ in batches:
                pass
            assert there.packed is not None
            share = there.packed.bytes_read / there.packed.manifest.splits["train"].data * workers
            yield Row(f"bytes read in an epoch by one of {workers} workers", share, "x", f"of 1/{workers} of the data")


def _flip() -> Any:
    from trainer.data.augmentation import Augmentation

    return Augmentation(flip="random")


def _packing(folder: Path) -> Iterable[Row]:
    write_photographs(folder / "photographs", PACKED, 96, 72)
    command = [sys.executable, "-m", "trainer.cli", "pack", "--data", f"folder:{folder / 'photographs'}"]
    began = time.monotonic()
    with psutil.Popen([*command, str(folder / "whole")], stdout=subprocess.DEVNULL) as process:
        peak = peak_memory(process)
    seconds = time.monotonic() - began
    assert process.returncode == 0
    yield Row("pack, pictures of 96 x 72", PACKED / seconds, "pictures/s", f"{PACKED} in {seconds:.0f} s")
    yield Row("pack, peak memory", peak / 2**20, "MiB", f"{PACKED} pictures")
    draw = random.Random(0)
    kills = 0
    for _ in range(KILLS):
        with psutil.Popen([*command, str(folder / "killed")], stdout=subprocess.DEVNULL) as process:
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(draw.uniform(0.1, 0.4) * seconds)
            if process.poll() is None:
                process.kill()
                kills += 1
    subprocess.run([*command, str(folder / "killed")], stdout=subprocess.DEVNULL, check=True)
    same = _contents(folder / "whole") == _contents(folder / "killed")
    yield Row("pack, the same bytes after kills", float(same), "", f"{kills} kills; 1 is yes")


def _contents(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }
