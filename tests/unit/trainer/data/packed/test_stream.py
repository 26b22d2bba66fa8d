"""Training reads the same bits, in the same order, from packed data as from a folder; and each worker its own alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from maskfleet.errors import BadSettings
from maskfleet.image_size import Size
from trainer.data.augmentation import Augmentation
from trainer.data.cache import Arrays, Dataset, load_dataset
from trainer.data.packed.bucket import open_bucket
from trainer.data.packed.reading import Reader
from trainer.data.pipeline import evaluation_batches, read_ahead, training_batches, worker_slices
from trainer.data.splits import Division

SIZE, BATCH = 32, 5


@pytest.fixture(scope="session")
def from_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(f"folder:{folder}", None, SIZE, tmp_path_factory.mktemp("cache"))


def from_pack(place: object, **settings: Any) -> Dataset:
    return load_dataset(f"packed:{place}", None, SIZE, **settings)


def training(arrays: Arrays, worker: int = 0, workers: int = 1, first: int = 0, last: int = 7) -> list[Any]:
    batches = training_batches(
        arrays,
        global_batch=BATCH,
        worker_slice=worker_slices(BATCH, workers)[worker],
        seed=3,
        first_step=first,
        last_step=last,
        augmentation=Augmentation(flip="random"),
    )
    return list(batches.as_numpy_iterator())


def assert_same_batches(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for batch, other in zip(found, expected, strict=True):
        for part, other_part in zip(batch, other, strict=True):
            assert np.array_equal(part, other_part)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_workers_train_on_the_bits_of_the_folder(packed: Path, from_folder: Dataset, workers: int) -> None:
    dataset, whole = from_pack(packed), training(from_folder.train, last=6)
    seen: list[int] = []
    for worker, mine in enumerate(worker_slices(BATCH, workers)):
        found = training(dataset.train, worker, workers, last=6)
        assert_same_batches(found, [[part[mine] for part in batch] for batch in whole])
        seen += itertools.chain.from_iterable(examples.tolist() for *_, examples in found)
    assert sorted(seen) == sorted([*range(6)] * 5)  # six steps of five examples are five epochs of six


def test_a_run_goes_on_in_the_middle_of_an_epoch(packed: Path, from_folder: Dataset) -> None:
    assert_same_batches(training(from_pack(packed).train, first=4), training(from_folder.train, first=4))


@pytest.mark.parametrize(("workers", "batch"), [(1, 2), (2, 8), (5, 1)])
def test_evaluation_sees_the_bits_of_the_folder(packed: Path, from_folder: Dataset, workers: int, batch: int) -> None:
    dataset = from_pack(packed)
    for name, worker in itertools.product(("validation", "test"), range(workers)):
        found, expected = (
            list(evaluation_batches(each.splits[name], batch=batch, worker=worker, workers=workers).as_numpy_iterator())
            for each in (dataset, from_folder)
        )
        assert_same_batches(found, expected)


def test_it_can_be_looked_at_like_arrays(packed: Path, from_folder: Dataset) -> None:
    found, expected = from_pack(packed).train, from_folder.train
    for key in (0, -1, slice(1, 4), np.array([3, 0, 3])):
        assert np.array_equal(found.images[key], expected.images[key])
        assert np.array_equal(found.masks[key], expected.masks[key])
    assert found.images.shape == expected.images.shape
    assert np.array_equal(found.spread(3).images, expected.spread(3).images)
    assert len(list(found.masks)) == 6


def test_it_is_divided_as_the_folder_is(folder: Path, packed: Path, tmp_path: Path) -> None:
    division = Division(folds=3, fold=1)
    found = from_pack(packed, division=division)
    expected = load_dataset(f"folder:{folder}", None, SIZE, tmp_path, division=division)
    for name, split in expected.splits.items():
        assert list(found.splits[name].names) == list(split.names)
        assert np.array_equal(found.splits[name].masks[:], split.masks)
    assert found.fingerprint != from_pack(packed).fingerprint


def test_nothing_but_manifest_and_indices_is_read_before_the_first_batch(bucket_server: Any, folder: Path) -> None:
    server, place = bucket_server
    from tests.unit.trainer.data.packed.conftest import pack_folder

    pack_folder(folder, place)
    before = len(server.requests)
    dataset = from_pack(place)
    assert len(dataset.train) == 6
    read = {unquote(request.path).rpartition("/")[2] for request in server.requests[before:]}
    assert read == {"manifest.json", "train.index.npy", "validation.index.npy", "test.index.npy"}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_worker_reads_its_own_examples_alone(packed: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    whole = Reader.data
    monkeypatch.setattr(Reader, "data", lambda self, split, i: (read.append(i), whole(self, split, i))[1])
    dataset = from_pack(packed, cache=1)
    for worker in range(workers):
        read.clear()
        found = training(dataset.train, worker, workers, last=6)
        own = list(itertools.chain.from_iterable(examples.tolist() for *_, examples in found))
        assert sorted(read) == sorted(own)


def test_what_is_read_is_read_once_as_long_as_the_cache_has_room(packed: Path) -> None:
    dataset = from_pack(packed)
    assert dataset.packed is not None
    for _ in range(2):
        assert len(dataset.train.images[:]) == 6
    training(dataset.train, last=6)
    assert dataset.packed.bytes_read == dataset.packed.manifest.splits["train"].data


@pytest.mark.parametrize("limit", [1, 3000, 9000, 10**9])
def test_the_cache_never_exceeds_its_limit(packed: Path, cache: Path, from_folder: Dataset, limit: int) -> None:
    dataset = from_pack(packed, cache=limit)
    assert_same_batches(training(dataset.train), training(from_folder.train))
    assert sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) <= limit


def test_it_reads_further_ahead_of_a_bucket_that_is_slow(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    dataset = from_pack(packed, cache=1)
    assert dataset.train.stream is not None
    depths = {}
    for latency in (0.0, 0.05):
        whole = open_bucket(str(packed)).read_range

        def slow(name: str, start: int, length: int, latency: float = latency, whole: Any = whole) -> bytes:
            time.sleep(latency)
            return whole(name, start, length)

        monkeypatch.setattr(dataset.packed.bucket, "read_range", slow)
        ahead = read_ahead(
            dataset.train.stream, global_batch=2, worker_slice=slice(0, 2), seed=0, first_step=0, last_step=1000
        )
        for step in range(60):
            time.sleep(0.005)  # of training
            ahead.take(step)
        depths[latency] = ahead.depth
        began = time.monotonic()
        for step in range(60, 100):
            time.sleep(0.005)
            ahead.take(step)
        if latency:
            assert time.monotonic() - began < 40 * latency / 2  # most of the waiting is hidden
    assert depths[0.0] < depths[0.05]


def test_examples_that_queue_for_a_cpu_are_not_asked_for_sooner(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from trainer.data.packed.record import example_of

    dataset = from_pack(packed, cache=1)
    assert dataset.train.stream is not None
    slowly = lambda *args: (time.sleep(0.005), example_of(*args))[1]  # noqa: E731
    monkeypatch.setattr("trainer.data.packed.reading.example_of", slowly)
    ahead = read_ahead(
        dataset.train.stream, global_batch=2, worker_slice=slice(0, 2), seed=0, first_step=0, last_step=1000
    )
    for step in range(40):  # faster than examples are decoded
        ahead.take(step)
    assert ahead.depth <= 8  # two batches, and twice those that are decoded meanwhile


def test_a_wait_for_data_is_measured(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    dataset = from_pack(packed, cache=1)
    stream, may_read = dataset.train.stream, threading.Event()
    assert stream is not None
    whole = stream.split.read
    object.__setattr__(stream.split, "read", lambda i: (may_read.wait(), whole(i))[1])
    ahead = read_ahead(stream, global_batch=2, worker_slice=slice(0, 2), seed=0, first_step=0, last_step=9)
    assert ahead.wait(0) == 0
    threads = [threading.Thread(target=ahead.take, args=(step,), daemon=True) for step in (0, 1)]
    for thread in threads:
        thread.start()
    monkeypatch.setattr("trainer.data.read_ahead._HEARTBEAT_SECONDS", 0.01)
    assert ahead.wait(1, lambda: True) is None  # told to stop meanwhile
    threading.Timer(0.2, may_read.set).start()
    assert ahead.wait(1) >= 0.1
    for thread in threads:
        thread.join()
    assert ahead.wait(1) < 0.1


def test_pictures_are_padded_as_those_of_a_folder_and_not_cut(packed: Path, folder: Path, tmp_path: Path) -> None:
    padded = load_dataset(f"folder:{folder}", None, Size(32, 64), tmp_path, fit="pad").test
    streamed = load_dataset(f"packed:{packed}", None, Size(32, 64), fit="pad").test
    np.testing.assert_array_equal(streamed.masks[:], padded.masks)
    np.testing.assert_array_equal(streamed.images[:], padded.images)
    with pytest.raises(BadSettings, match="--fit crop: parts are cut out of pictures that are here"):
        from_pack(packed, fit="crop")


def test_two_data_sets_of_one_source_are_told_apart_by_their_size(packed: Path) -> None:
    source_key = {size: load_dataset(f"packed:{packed}", None, size).fingerprint for size in (32, 64)}
    assert len(set(source_key.values())) == 2
    assert from_pack(packed).fingerprint == source_key[32]
