"""The watch loop: whose files it copies, what does not hold it up, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from launcher.streaming.download.stored_logs import stored_logs
from launcher.streaming.stores import patience
from launcher.streaming.stores.folder import FolderStore
from launcher.streaming.stores.store import StoredObject, StoreRefused, StoreUnavailable
from launcher.streaming.upload.guarded_object import Conflict
from launcher.streaming.upload.refusals import told
from launcher.streaming.upload.streamer import Streamer
from maskfleet.errors import DONE, FAILED
from maskfleet.files import FileDigest, write_json
from tests.helpers.sample_run import EVENTS, SampleRun


@pytest.fixture
def sample(tmp_path: Path) -> SampleRun:
    return SampleRun(tmp_path / "run")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "destination")


def test_a_worker_but_the_chief_leaves_alone_what_the_chief_wrote(
    sample: SampleRun, store: FolderStore, tmp_path: Path
) -> None:
    sample.everything()
    assert Streamer(sample.run, store, worker=0).run(once=True) == 0
    half_way = store.path / "checkpoints/step-00000015.index"  # the newest went first; its manifest comes last
    half_way.write_bytes(b"on its way")
    before = {found.name: found.version for found in store.list()}
    second = SampleRun(tmp_path / "second", seed=1)
    write_json(second.run.config, {"settings": {"epochs": 1}, "resolved": "nothing"})
    second.log_lines(worker=1)
    assert Streamer(second.run, store, worker=1).run(once=True) == 0
    after = {found.name: found.version for found in store.list()}
    assert after.pop("logs/worker-1.log")
    assert after == before


class RefusingStore(FolderStore):
    """A folder in which objects whose names contain ``refused`` can't be written."""

    refused = ""
    error: Exception = StoreRefused("access was denied")

    def put(self, name: str, file: BinaryIO, digest: FileDigest, expected: StoredObject | None) -> StoredObject:
        self._refuse(name)
        return super().put(name, file, digest, expected)

    def append(self, name: str, content: bytes, digest: FileDigest, expected: StoredObject | None) -> StoredObject:
        self._refuse(name)
        return super().append(name, content, digest, expected)

    def _refuse(self, name: str) -> None:
        if self.refused and self.refused in name:
            raise self.error


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RefusingStore:
    monkeypatch.setattr(patience, "SHORTEST_PAUSE", 0.01)
    return RefusingStore(tmp_path / "destination")


def names(store: FolderStore) -> set[str]:
    return {found.name for found in store.list()} - {"export/manifest.json"}


@pytest.mark.parametrize("error", [StoreRefused("access was denied"), PermissionError(13, "Permission denied")])
@pytest.mark.parametrize(
    ("refused", "what"),
    [
        ("config.json", "config.json"),
        ("logs/worker-0.log", "logs/worker-0.log"),
        ("step-00000020.index", "the checkpoint of step 20"),
        ("export/", "the export"),
    ],
)
def test_what_is_refused_is_named_and_the_rest_is_copied(
    sample: SampleRun, refusing: RefusingStore, caplog: pytest.LogCaptureFixture,
    refused: str, what: str, error: Exception,
) -> None:  # fmt: skip
    sample.everything()
    refusing.refused, refusing.error = refused, error
    assert Streamer(sample.run, refusing).run(once=True) == FAILED
    assert [record.message for record in caplog.records if record.message.startswith("not copied")] == [
        f"not copied: {what}: {told(error)}"
    ]
    missing = set(sample.files()) - names(refusing)
    assert missing
    assert all(refused in name or ("20" in what and "00000020" in name) for name in missing)


def test_a_folder_in_the_way_of_a_file_is_named(
    sample: SampleRun, store: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    sample.everything()
    (store.path / "config.json").mkdir(parents=True)
    assert Streamer(sample.run, store).run(once=True) == FAILED
    assert (
        f"not copied: config.json: {store.path}/config.json: expected a file or nothing, found a folder" in caplog.text
    )
    assert set(sample.files()) - names(store) == {"config.json"}


@contextmanager
def streaming(streamer: Streamer, *, once: bool = False) -> Iterator[list[int]]:
    """Runs it in a thread meanwhile; its exit code is in the list afterwards."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(streamer.run(once=once)), daemon=True)
    thread.start()
    yield codes
    streamer.stop()
    thread.join(20)
    assert not thread.is_alive()


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_was_refused_for_a_while_is_copied_then(
    sample: SampleRun, refusing: RefusingStore, caplog: pytest.LogCaptureFixture
) -> None:
    sample.everything()
    sample.checkpoint(30)
    refusing.refused = "0"  # the checkpoints, the event files, the log
    streamer = Streamer(sample.run, refusing, interval=0.01)
    with streaming(streamer) as codes:
        wait_until(lambda: "export/unet.keras" in names(refusing) and streamer.metrics.errors > 8)
        sample.delete_checkpoint(10)  # which is not to be named at the end
        refusing.refused = ""
    assert codes == [DONE]
    assert names(refusing) == set(sample.files())
    assert caplog.text.count("access was denied") == 6  # each is told of once


def test_one_that_copies_what_is_there_ends_when_it_is_told_to(
    sample: SampleRun, refusing: RefusingStore, caplog: pytest.LogCaptureFixture
) -> None:
    sample.everything()
    refusing.refused, refusing.error = "config.json", StoreUnavailable("no route")
    streamer = Streamer(sample.run, refusing, grace=0.2)
    with streaming(streamer, once=True) as codes:
        wait_until(lambda: streamer.metrics.errors > 2)
    assert codes == [FAILED]
    assert "bytes of config.json" in caplog.text


@pytest.mark.parametrize(
    ("content", "more", "lines"),
    [
        (b"one\n", b"two\n", ["one", "two"]),
        (b"one\n\ntw", b"o", ["one", "", "two"]),
        (b"one\n", b"", ["one"]),
        (b"", b"", []),
    ],
)
def test_the_log_of_a_run_that_still_grows_is_told(
    store: FolderStore, content: bytes, more: bytes, lines: list[str]
) -> None:
    log = store.path / "logs" / "worker-0.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(content)
    told = stored_logs(store)
    with log.open("ab") as file:
        file.write(more)
    assert {worker: list(each) for worker, each in told.items()} == {0: lines}


def test_a_destination_of_another_run_gets_no_checkpoint_of_this_one(tmp_path: Path) -> None:
    first, second = SampleRun(tmp_path / "first"), SampleRun(tmp_path / "second", seed=1)
    for number, sample in enumerate((first, second)):
        sample.everything()
        sample.checkpoint(30 + number)
    destination = tmp_path / "destination"
    assert Streamer(first.run, FolderStore(destination)).run(once=True) == 0
    before = sorted(path.name for path in destination.rglob("*"))
    with pytest.raises(Conflict, match="belongs to another run"):
        Streamer(second.run, FolderStore(destination)).run(once=True)
    assert sorted(path.name for path in destination.rglob("*")) == before


def test_a_clock_that_is_set_back_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = SampleRun(tmp_path / "run")
    sample.log_events()
    store = FolderStore(tmp_path / "destination")
    streamer = Streamer(sample.run, store, interval=0.1)
    thread = threading.Thread(target=streamer.run)
    thread.start()
    try:
        copy = tmp_path / "destination" / EVENTS
        wait_until(copy.exists)
        monkeypatch.setattr(time, "time", lambda: 0.0)  # for all of this process
        sample.log_events()
        content = (sample.run.path / EVENTS).read_bytes()
        wait_until(lambda: copy.read_bytes() == content)
    finally:
        streamer.stop()
        thread.join(30)
