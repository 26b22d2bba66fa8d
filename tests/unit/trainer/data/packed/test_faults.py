"""Storage that is slow or fails is waited for; what lies is refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskfleet.errors import BadData, BadSettings
from tests.fakes.http import Fault
from tests.helpers.processes import until
from tests.unit.trainer.data.packed.conftest import open_folder, pack_folder
from tests.unit.trainer.data.packed.test_packing import assert_same_examples
from trainer.data.cache import load_dataset
from trainer.data.opening import open_source
from trainer.data.packed.bucket import Bucket, Unavailable, open_bucket
from trainer.data.packed.reading import Reader

Contents = Mapping[str, bytes]


def change(server: Any, name: str, content: bytes | None) -> None:
    """Another object in the place of one; None: it is deleted."""
    bucket = open_bucket("gs://bucket/zoo" if hasattr(server, "multipart") else "s3://bucket/zoo", writing=True)
    if content is None:
        bucket.delete([name])
    else:
        bucket.put(name, content)


def train_reads(place: str) -> None:
    source = open_source(f"packed:{place}", None)
    for i in range(len(source.train)):
        source.train.read(i)


def test_a_bucket_holds_what_a_folder_does(bucket_server: Any, folder: Path, packed: Path) -> None:
    server, place = bucket_server
    pack_folder(folder, place)
    written = {name.removeprefix("zoo/"): content for name, content in server.contents().items()}
    assert written == {file.name: file.read_bytes() for file in packed.iterdir()}
    assert_same_examples(open_source(f"packed:{place}", None), open_folder(folder))


@pytest.mark.usefixtures("soon")
def test_faults_at_random_change_nothing(bucket_server: Any, folder: Path) -> None:
    server, place = bucket_server
    pack_folder(folder, place)
    server.faults.at_random(seed=1, probability=0.3)
    assert_same_examples(open_source(f"packed:{place}", None), open_folder(folder))
    server.faults.at_random(0, 0)
    assert any(request.fault for request in server.requests)


@pytest.mark.usefixtures("soon")
def test_an_outage_is_waited_out_and_told(
    bucket_server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server, place = bucket_server
    pack_folder(folder, place)
    monkeypatch.setattr("trainer.data.packed.reading._REPORT_SECONDS", 0)
    monkeypatch.setattr("trainer.data.read_ahead._REPORT_SECONDS", 0)
    monkeypatch.setattr("trainer.data.read_ahead._HEARTBEAT_SECONDS", 0.01)
    server.faults.add(Fault("status", "manifest", times=6))
    dataset = load_dataset(f"packed:{place}", None, 32)
    assert re.search(r"waits for .*manifest\.json: .*; for \d+ s now", capsys.readouterr().out)
    assert dataset.packed is not None
    beats: list[int] = []
    dataset.packed.heartbeat = lambda: beats.append(1)
    from trainer.data.pipeline import read_ahead

    server.faults.add(Fault("status", "tfrecord", times=30))
    assert dataset.train.stream is not None
    ahead = read_ahead(
        dataset.train.stream, global_batch=2, worker_slice=slice(0, 2), seed=0, first_step=0, last_step=3
    )
    ahead.take(0)
    told = capsys.readouterr().out
    assert re.search(r"waits for data for 0 s: \d of 2 examples are still to come from .*//bucket/zoo: .*503", told)
    assert beats


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("name", ["manifest", "npy", "names", "tfrecord"])
def test_what_is_cut_on_its_way_is_waited_for_however_often(bucket_server: Any, folder: Path, name: str) -> None:
    """As long as the object is whole: a proxy may cut all answers for as long as an outage lasts."""
    server, place = bucket_server
    pack_folder(folder, place)
    server.faults.add(Fault("half-answer", f"GET .*{name}", times=20))
    source = open_source(f"packed:{place}", None)
    assert_same_examples(source, open_folder(folder))
    assert tuple(source.train.names) == open_folder(folder).train.names
    assert sum(request.fault is not None for request in server.requests) == 20


@pytest.mark.usefixtures("soon")
def test_nothing_waits_for_the_bucket_once_the_reader_is_closed(bucket_server: Any, folder: Path) -> None:
    server, place = bucket_server
    pack_folder(folder, place)
    source = open_source(f"packed:{place}", None)
    assert source.packed is not None
    server.faults.add(Fault("status", "tfrecord", times=10**6))
    with ThreadPoolExecutor(2) as threads:
        reading = [threads.submit(source.train.read, i % len(source.train)) for i in range(20)]
        until(lambda: source.packed.problem, "a failure")  # type: ignore[union-attr]
        source.packed.close()
        assert all(isinstance(each.exception(timeout=10), Unavailable) for each in reading)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (
            lambda content: content[: len(content) // 2],
            r"expected the (\d+) bytes that manifest\.json tells of, found \d+ bytes",
        ),
        (lambda content: content + b"x", None),
        (
            lambda content: bytes(reversed(content)),
            r"expected a record of \d+ bytes at \d+, found other bytes than were",
        ),
        (lambda content: None, r"tfrecord: is not there"),
    ],
    ids=["cut", "longer", "other bytes", "deleted"],
)
def test_a_shard_that_was_replaced_is_refused_by_name(
    bucket_server: Any, folder: Path, lie: Callable[[bytes], bytes | None], message: str | None
) -> None:
    server, place = bucket_server
    pack_folder(folder, place)
    name = next(name for name in server.contents() if "train-00001" in name).removeprefix("zoo/")
    change(server, name, lie(server.contents()[f"zoo/{name}"]))
    if message is None:  # the records are those that were packed
        train_reads(place)
        return
    with pytest.raises(BadData, match=f"{re.escape(name)}.*" if name in message else message) as refused:
        train_reads(place)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("soon")
def test_records_in_another_s_place_are_refused(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole and valid records, but not those that were packed there."""
    source = open_source(f"packed:{packed}", None)
    assert source.packed is not None
    index = source.packed._indices["train"]
    rows = np.array(index)
    rows[["shard", "offset", "length"]][:2] = rows[["shard", "offset", "length"]][:2][::-1]
    swapped = rows.copy()
    for key in ("shard", "offset", "length"):
        swapped[key][0], swapped[key][1] = index[key][1], index[key][0]
    monkeypatch.setitem(source.packed._indices, "train", swapped)  # type: ignore[arg-type]
    with pytest.raises(BadData, match="other bytes than were packed, 5 times"):
        source.train.read(0)


@pytest.mark.usefixtures("soon")
def test_a_range_that_is_cut_short_now_and_then_is_read_again(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, reads = Bucket.read_range, iter(range(10**6))
    cut = lambda self, *args: whole(self, *args)[: -1 if next(reads) % 2 == 0 else None]  # noqa: E731
    monkeypatch.setattr(Bucket, "read_range", cut)
    train_reads(str(packed))
    assert next(reads) >= 12


@pytest.mark.parametrize(("status", "times"), [(403, 99), (401, 99)])
def test_what_the_bucket_refuses_is_not_tried_for_ever(bucket_server: Any, status: int, times: int) -> None:
    server, place = bucket_server
    server.faults.add(Fault("status", "manifest", status=status, times=times, code="AccessDenied"))
    with pytest.raises(BadSettings, match=re.escape(place)) as refused:
        open_source(f"packed:{place}", None)
    assert "\n" not in str(refused.value)


def test_no_bucket_is_refused(bucket_server: Any) -> None:
    _, place = bucket_server
    with pytest.raises((BadSettings, BadData), match=r"nowhere"):
        open_source(f"packed:{place.replace('bucket', 'nowhere')}", None)


def test_a_failure_is_kept_for_whoever_only_hears_of_it_through_tensorflow(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    from tests.unit.trainer.data.packed.test_stream import training

    dataset = load_dataset(f"packed:{packed}", None, 32)
    monkeypatch.setattr(Bucket, "read_range", lambda *_: b"")
    with pytest.raises(tf.errors.OpError):
        training(dataset.train)
    assert isinstance(dataset.packed, Reader)
    assert "tfrecord: expected a record of" in str(dataset.packed.failure)
