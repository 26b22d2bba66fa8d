"""Answers that are cut short on their way, and disks that fail: asked for again, or told in one line."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.streaming.download.arrival import DiskFailed
from launcher.streaming.download.event_mirror import EventMirror
from launcher.streaming.download.pull import NotAllFetched, pull
from launcher.streaming.download.restore import restore
from launcher.streaming.download.stored_logs import stored_logs
from launcher.streaming.download.stored_runs import list_runs
from launcher.streaming.stores import gcs, patience
from launcher.streaming.stores.folder import FolderStore
from launcher.streaming.stores.opening import open_store
from launcher.streaming.stores.store import Store, StoreRefused, StoreUnavailable
from launcher.streaming.upload.streamer import Streamer
from maskfleet.errors import DONE, BadSettings, NotFound
from maskfleet.files import FileDigest
from maskfleet.records import Examples
from maskfleet.run_directory import RunDirectory
from maskfleet.run_lock import launcher_lock
from tests.fakes.gcs import FakeGcs, Fault
from tests.fakes.http.faults import Kind
from tests.fakes.s3 import FakeS3
from tests.helpers.sample_run import SampleRun, assert_whole
from tests.helpers.streamer_process import variables
from tests.unit.launcher.streaming.test_torn_appends import full_beyond


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "RETRY_INITIAL", 0.01)
    monkeypatch.setattr(patience, "SHORTEST_PAUSE", 0.01)


@pytest.fixture(params=[("gs", FakeGcs), ("s3", FakeS3)], ids=["gs", "s3"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeGcs | FakeS3, str]]:
    scheme, service = request.param
    with service() as server:
        for name, value in variables(server.url).items():
            monkeypatch.setenv(name, value)
        yield server, f"{scheme}://bucket/run"


@pytest.fixture
def sample(tmp_path: Path) -> SampleRun:
    sample = SampleRun(tmp_path / "run")
    sample.everything()
    return sample


READERS: dict[str, Callable[[Store, Path], object]] = {
    "pull": lambda store, folder: [each.name for each in pull(store, folder)],
    "restore": lambda store, folder: restore(store, RunDirectory(folder)),
    "ls": lambda store, folder: list_runs(store),
    "logs": lambda store, folder: [list(lines) for lines in stored_logs(store).values()],
    "mirror": lambda store, folder: EventMirror(store, folder).update(),
    "probe": lambda store, folder: store.check(),
}


@pytest.mark.parametrize("kind", ["cut-answer", "half-answer"])
@pytest.mark.parametrize("reader", READERS)
def test_any_answer_to_a_reader_may_be_cut(
    bucket: tuple[FakeGcs | FakeS3, str], sample: SampleRun, tmp_path: Path, reader: str, kind: Kind
) -> None:
    fake, url = bucket
    assert Streamer(sample.run, open_store(url)).run(once=True) == DONE
    expected = READERS[reader](open_store(url), tmp_path / "whole")
    for number in range(100):
        fault = Fault(kind, "GET", skip=number)
        fake.faults.add(fault)
        found = READERS[reader](open_store(url), tmp_path / f"folder-{number}")
        if isinstance(expected, list) and reader == "pull":
            assert sorted(found) == sorted(expected)  # type: ignore[call-overload]
        else:
            assert found == expected
        if fault.times:  # there were fewer requests
            break
    assert fault.times


@pytest.mark.parametrize("kind", ["cut-answer", "half-answer"])
def test_any_answer_to_the_streamer_may_be_cut(
    bucket: tuple[FakeGcs | FakeS3, str], tmp_path: Path, kind: Kind
) -> None:
    fake, url = bucket
    for number in range(0, 400, 5):
        fake.reset("bucket", {})
        sample = SampleRun(tmp_path / f"run-{number}")
        sample.everything()
        fault = Fault(kind, skip=number)
        fake.faults.add(fault)
        assert Streamer(sample.run, open_store(url)).run(once=True) == DONE
        assert_whole(fake, sample)
        if fault.times:
            break
    assert number >= 20


def test_a_folder_that_is_away_for_a_moment_is_read_again(
    sample: SampleRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network file system is."""
    store = FolderStore(tmp_path / "destination")
    assert Streamer(sample.run, store).run(once=True) == DONE
    scandir = os.scandir
    failed: list[bool] = []

    def fail_once(*arguments):  # type: ignore[no-untyped-def]
        if not failed:
            failed.append(True)
            raise OSError(errno.ESTALE, "Stale file handle")
        return scandir(*arguments)

    monkeypatch.setattr(os, "scandir", fail_once)
    assert len(list_runs(store)) == 1
    assert failed


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP])
def test_what_a_folder_refuses_for_good_is_no_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_, **__):  # type: ignore[no-untyped-def]
        raise OSError(number, os.strerror(number))

    store = FolderStore(tmp_path / "destination")
    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(StoreRefused, match=f"can't be written: {os.strerror(number)}"):
        store.check()


def put(store: Store, **contents: bytes) -> None:
    for name, content in contents.items():
        store.put(name.replace("_", "/"), io.BytesIO(content), FileDigest.read(io.BytesIO(content)), None)


def test_objects_that_can_not_both_be_files_leave_the_rest_alone(
    bucket: tuple[FakeGcs | FakeS3, str], tmp_path: Path
) -> None:
    store = open_store(bucket[1])
    put(store, logs=b"1", logs_a=b"2", other=b"3", deep_er_x=b"4", deep_er=b"5", **{"x" * 300: b"6", "ä" * 128: b"7"})
    with pytest.raises(NotAllFetched) as caught:
        list(pull(store, tmp_path / "pulled"))
    message = str(caught.value)
    assert "\n" not in message
    assert "4 of 7 objects were left out: " in message
    assert (tmp_path / "pulled" / "other").read_bytes() == b"3"
    assert "File name too long" in message or message.endswith(", and 1 more")


def test_the_longest_names_come_down(bucket: tuple[FakeGcs | FakeS3, str], tmp_path: Path) -> None:
    store = open_store(bucket[1])
    put(store, **{"x" * 255: b"1", "x" * 254 + "y": b"2"})
    assert len(list(pull(store, tmp_path / "pulled"))) == 2


@pytest.mark.parametrize("reader", ["pull", "restore", "mirror"])
def test_a_disk_that_takes_no_more_is_told_in_one_line_and_nothing_half_is_left(
    sample: SampleRun, tmp_path: Path, reader: str
) -> None:
    store, folder = FolderStore(tmp_path / "destination"), tmp_path / "back"
    assert Streamer(sample.run, store).run(once=True) == DONE
    with full_beyond(80), pytest.raises(DiskFailed, match=f"{folder}.*: can't be written: .*; make room") as caught:
        READERS[reader](store, folder)
    assert "\n" not in str(caught.value)
    assert not [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 80]
    assert not list(folder.rglob("*.tmp"))
    READERS[reader](store, folder)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="not run: needs Linux' /sys, in which nothing can be made")
@pytest.mark.parametrize("reader", ["pull", "restore"])
def test_a_disk_on_which_nothing_can_be_made_is_told_in_one_line(
    sample: SampleRun, tmp_path: Path, reader: str
) -> None:
    store = FolderStore(tmp_path / "destination")
    assert Streamer(sample.run, store).run(once=True) == DONE
    with pytest.raises(BadSettings, match=r"^/sys/kernel/run: can't be written: ") as caught:
        READERS[reader](store, Path("/sys/kernel/run"))
    assert "\n" not in str(caught.value)


def test_a_run_that_is_in_use_is_neither_restored_nor_pulled_into(sample: SampleRun, tmp_path: Path) -> None:
    root = FolderStore(tmp_path / "destinations")
    store = FolderStore(root.path / "run")
    assert Streamer(sample.run, store).run(once=True) == DONE
    for path in (sample.run.worker_log(0), sample.run.metrics, sample.run.config):
        path.write_bytes(b"")
    before = sample.files()
    with launcher_lock(sample.run):
        for action in (
            lambda: restore(store, sample.run),
            lambda: list(pull(store, sample.run.path)),
            lambda: list(pull(root, sample.run.path.parent)),
        ):
            with pytest.raises(BadSettings, match="in use by another process"):
                action()
    assert sample.files() == before
    restore(store, sample.run)
    assert sample.files() != before


def test_a_step_that_is_not_there_changes_nothing(sample: SampleRun, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "destination")
    assert Streamer(sample.run, store).run(once=True) == DONE
    with pytest.raises(NotFound, match="there is no checkpoint of step 5; it has 10, 20"):
        restore(store, RunDirectory(tmp_path / "back"), step=5)
    assert not (tmp_path / "back").exists()


def test_a_damaged_history_is_named_and_the_checkpoint_comes_back(
    sample: SampleRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeS3() as fake:
        for name, value in variables(fake.url).items():
            monkeypatch.setenv(name, value)
        store = open_store("s3://bucket/run")
        assert Streamer(sample.run, store).run(once=True) == DONE
        objects = fake.buckets["bucket"]
        (name,) = [name for name in objects if "events.jsonl" in name]
        objects[name] = type(objects[name])(b"other bytes\n", objects[name].tag, objects[name].metadata)
        manifest = restore(store, RunDirectory(tmp_path / "back"))
    assert manifest is not None
    assert manifest.step == 20
    assert "events.jsonl is not brought back: s3://bucket/run/events.jsonl: received" in caplog.text


def test_the_examples_of_a_run_go_up_and_come_back_to_the_chief_alone(sample: SampleRun, tmp_path: Path) -> None:
    examples = Examples("fingerprint", {"a.png": "1"}, {"b.png": "2"})
    examples.write(sample.run)
    store = FolderStore(tmp_path / "destination")
    assert Streamer(sample.run, store).run(once=True) == DONE
    for name, worker, expected in (("all", None, examples), ("chief", 0, examples), ("second", 1, None)):
        back = RunDirectory(tmp_path / name)
        restore(store, back, worker=worker)
        assert Examples.read(back) == expected
    here = RunDirectory(tmp_path / "here")
    here.path.mkdir()
    Examples("another", {}, {}).write(here)
    restore(store, here)
    assert Examples.read(here) == Examples("another", {}, {})
    assert list_runs(store)[0].files == len(list(store.list()))


def test_a_probe_that_meets_an_outage_is_tried_again_also_with_once(
    sample: SampleRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, failures = FolderStore(tmp_path / "destination"), [StoreUnavailable("away"), StoreUnavailable("away")]
    check = store.check

    def fail_twice() -> list[str]:
        if failures:
            raise failures.pop()
        return check()

    monkeypatch.setattr(store, "check", fail_twice)
    assert Streamer(sample.run, store).run(once=True) == DONE


@pytest.mark.parametrize("method", ["list", "read"])
def test_checkpoints_that_can_not_be_listed_end_a_copy_of_what_is_there(
    sample: SampleRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    store = FolderStore(tmp_path / "destination")
    if method == "read":
        assert Streamer(sample.run, store).run(once=True) == DONE

    def refuse(*_: object) -> Iterator[bytes]:
        raise StoreRefused("access was denied")

    monkeypatch.setattr(store, method, refuse)
    code = Streamer(sample.run, store).run(once=True)
    assert (tmp_path / "destination" / "export" / "unet.keras").exists()
    if method == "list":
        assert code != DONE
        assert "not copied: the checkpoints: access was denied" in caplog.text
