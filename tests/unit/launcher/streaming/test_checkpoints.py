"""Checkpoints on their way there and back: order, retention, damage, and what another attempt left behind."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from launcher.streaming.download.pull import pull
from launcher.streaming.download.restore import restore
from launcher.streaming.layout import remote_manifests
from launcher.streaming.stores.folder import FolderStore
from launcher.streaming.stores.opening import open_store
from launcher.streaming.stores.store import StoredObject
from launcher.streaming.upload.checkpoint_uploads import CheckpointUploads
from launcher.streaming.upload.guarded_object import Conflict
from launcher.streaming.upload.streamer import Streamer
from maskfleet.checkpoint_manifest import CheckpointManifest, kept_steps
from maskfleet.errors import BadData, NotFound
from maskfleet.files import FileDigest, write_atomically
from maskfleet.records import Resolved, RunRecord
from maskfleet.run_directory import RunDirectory
from tests.fakes.gcs import FakeGcs
from tests.helpers.sample_run import SampleRun


class RecordingStore(FolderStore):
    """A folder that remembers in which order its objects came and went."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.writes: list[str] = []

    def put(self, name: str, file: BinaryIO, digest: FileDigest, expected: StoredObject | None) -> StoredObject:
        self.writes.append("+" + name.rpartition("/")[2])
        return super().put(name, file, digest, expected)

    def delete(self, found: StoredObject) -> None:
        self.writes.append("-" + found.name.rpartition("/")[2])
        super().delete(found)


@pytest.fixture
def sample(tmp_path: Path) -> SampleRun:
    return SampleRun(tmp_path / "run")


@pytest.fixture
def store(tmp_path: Path) -> RecordingStore:
    return RecordingStore(tmp_path / "destination")


def upload_all(sample: SampleRun, store: FolderStore, keep: int | None = None) -> CheckpointUploads:
    uploads = CheckpointUploads(store, sample.run, keep)
    uploads.start()
    for step in uploads.pending():
        uploads.upload(step)
    uploads.delete_old()
    return uploads


def stored_steps(sample: SampleRun, store: FolderStore) -> list[int]:
    return list(remote_manifests(store, sample.run))


def test_the_manifest_comes_last_and_goes_first(sample: SampleRun, store: RecordingStore) -> None:
    sample.checkpoint(1)
    uploads = upload_all(sample, store, keep=1)
    data, index, manifest = "step-00000001.data-00000-of-00001", "step-00000001.index", "step-00000001.json"
    assert store.writes == ["+" + data, "+" + index, "+" + manifest]
    sample.checkpoint(2)
    store.writes.clear()
    uploads.upload(2)
    uploads.delete_old()
    assert store.writes[3:] == ["-" + manifest, "-" + data, "-" + index]
    assert stored_steps(sample, store) == [2]


def test_the_newest_and_the_best_are_kept() -> None:
    manifests = {
        step: CheckpointManifest(step, 1, 1.0, miou, {}) for step, miou in ((1, 0.5), (2, 0.9), (3, None), (4, 0.9))
    }
    assert kept_steps(manifests, 1) == {4}
    del manifests[4]
    assert kept_steps(manifests, 1) == {2, 3}
    assert kept_steps({}, 1) == set()


def test_the_best_is_what_the_run_calls_so() -> None:
    def manifest(step: int, miou: float | None, score: float | None) -> CheckpointManifest:
        return CheckpointManifest(step, 1, 1.0, miou, {}, score)

    nan = float("nan")
    by_loss = {
        1: manifest(1, 0.9, -2.0),
        2: manifest(2, 0.1, -1.0),
        3: manifest(3, None, None),
        4: manifest(4, 0.5, nan),
    }
    assert kept_steps(by_loss, 1) == {2, 4}
    assert kept_steps({1: manifest(1, 0.3, None), 2: manifest(2, nan, nan), 3: manifest(3, nan, None)}, 1) == {1, 3}
    assert kept_steps({1: manifest(1, nan, nan), 2: manifest(2, nan, nan)}, 1) == {2}


def test_what_would_be_deleted_at_once_is_not_copied(sample: SampleRun, store: RecordingStore) -> None:
    for step, miou in ((1, 0.1), (2, 0.9), (3, 0.2), (4, 0.3)):
        sample.checkpoint(step, miou=miou)
    upload_all(sample, store, keep=1)
    assert stored_steps(sample, store) == [2, 4]
    assert not [name for name in store.writes if "0001" in name.split(".")[0]]


def test_the_older_ones_stay_while_the_newest_is_damaged_there(sample: SampleRun, store: RecordingStore) -> None:
    sample.checkpoint(1)
    sample.checkpoint(2)
    upload_all(sample, store)
    (store.path / "checkpoints/step-00000002.index").write_bytes(b"damaged")
    upload_all(sample, store, keep=1)
    assert stored_steps(sample, store) == [1, 2]


def test_a_checkpoint_that_is_deleted_before_it_is_copied_is_skipped(sample: SampleRun, store: RecordingStore) -> None:
    sample.checkpoint(1)
    sample.checkpoint(2)
    uploads = CheckpointUploads(store, sample.run, None)
    uploads.start()
    steps = uploads.pending()
    sample.delete_checkpoint(1)
    sample.run.checkpoint_prefix(2).with_suffix(".index").unlink()  # half gone
    for step in steps:
        assert uploads.upload(step) == 0
    assert (store.writes, uploads.problems, uploads.pending()) == ([], {}, [])


def test_a_damaged_local_checkpoint_is_named_and_not_copied(sample: SampleRun, store: RecordingStore) -> None:
    sample.checkpoint(1)
    path = sample.run.checkpoint_prefix(1).with_suffix(".index")
    path.write_bytes(bytes(path.stat().st_size))
    uploads = upload_all(sample, store)
    assert "checkpoint of step 1 is damaged on this disk and was not copied" in uploads.problems[1]
    assert stored_steps(sample, store) == []


def test_an_interrupted_copy_is_replaced_by_the_next_attempts(sample: SampleRun, store: RecordingStore) -> None:
    sample.checkpoint(1)
    upload_all(sample, store)
    (store.path / "checkpoints/manifests/step-00000001.json").unlink()
    (store.path / "checkpoints/step-00000001.index").unlink()
    sample.checkpoint(1)  # trained again, with other bytes
    upload_all(sample, store)
    back = restore(store, RunDirectory(store.path.parent / "back"))
    assert back is not None
    assert back.problem(sample.run.checkpoints) is None


def test_an_attempt_that_comes_to_a_step_again_replaces_it_manifest_first(
    sample: SampleRun, store: RecordingStore
) -> None:
    sample.checkpoint(1)
    upload_all(sample, store)
    store.writes.clear()
    sample.checkpoint(1)
    upload_all(sample, store)
    assert store.writes[0] == "-step-00000001.json"
    assert store.writes[-1] == "+step-00000001.json"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_score_that_comes_late_completes_the_manifest_there(
    sample: SampleRun, store: RecordingStore, restarted: bool
) -> None:
    for step in (1, 2):
        sample.checkpoint(step)
    uploads = upload_all(sample, store)
    assert uploads.pending() == []
    path = sample.run.checkpoint_manifest(1)
    manifest = replace(CheckpointManifest.read(sample.run, 1), miou=0.5, score=0.5)
    write_atomically(path, manifest.serialize())
    store.writes.clear()
    if restarted:
        uploads = upload_all(sample, store, keep=1)
    else:
        assert uploads.pending() == [1]
        uploads.upload(1)
        assert uploads.pending() == []
    assert store.writes == ["+step-00000001.json"]
    assert (store.path / "checkpoints/manifests" / path.name).read_bytes() == path.read_bytes()
    assert stored_steps(sample, store) == [1, 2]


def test_another_streamers_checkpoint_of_the_same_step_is_a_conflict(sample: SampleRun, store: RecordingStore) -> None:
    late = CheckpointUploads(store, sample.run, None)
    late.start()
    other = SampleRun(sample.run.path.parent / "other", seed=1)
    other.checkpoint(1)
    upload_all(other, store)
    sample.checkpoint(1)
    with pytest.raises(Conflict, match="another streamer wrote another checkpoint of step 1"):
        late.upload(1)


def test_leftovers_of_an_interrupted_deletion_are_deleted(sample: SampleRun, store: RecordingStore) -> None:
    for step in (1, 2):
        sample.checkpoint(step)
    upload_all(sample, store)
    sample.delete_checkpoint(1)
    (store.path / "checkpoints/manifests/step-00000001.json").unlink()
    upload_all(sample, store)
    assert not [each.name for each in store.list() if "00000001" in each.name]


@pytest.mark.parametrize("content", [b"{}", b"", b"\xff"])
def test_a_damaged_manifest_there_is_replaced_or_passed_over(
    sample: SampleRun, store: RecordingStore, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    for step in (1, 2, 3):
        sample.checkpoint(step)
    upload_all(sample, store)
    manifests = [store.path / f"checkpoints/manifests/step-{step:08d}.json" for step in (1, 2)]
    for path in manifests:
        path.write_bytes(content)
    sample.delete_checkpoint(1)
    upload_all(sample, store)
    assert "the checkpoint of step 1 in" in caplog.text
    assert manifests[0].read_bytes() == content  # what is left of it may be all that there is
    assert (store.path / "checkpoints/step-00000001.index").exists()
    assert manifests[1].read_bytes() == sample.run.checkpoint_manifest(2).read_bytes()


def test_restore_brings_back_the_newest_that_verifies(
    sample: SampleRun, store: RecordingStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sample.everything()
    sample.log_lines(worker=1)
    assert Streamer(sample.run, store).run(once=True) == 0
    (store.path / "checkpoints/step-00000020.index").write_bytes(b"damaged")
    back = RunDirectory(tmp_path / "back")
    manifest = restore(store, back)
    assert manifest is not None
    assert manifest.step == 10
    assert manifest.problem(back.checkpoints) is None
    assert "step-00000020.index has 7 bytes" in caplog.text
    histories = ("metrics.jsonl", "events.jsonl", "goodput.jsonl", "logs/worker-0.log", "logs/worker-1.log")
    assert {name: (back.path / name).read_bytes() for name in histories} == {
        name: content for name, content in sample.files().items() if name in histories
    }
    assert not list(back.path.rglob("*.tmp"))


def test_restore_brings_each_worker_its_own(sample: SampleRun, store: RecordingStore, tmp_path: Path) -> None:
    sample.everything()
    sample.log_lines(worker=1)
    Streamer(sample.run, store).run(once=True)
    chief, second = RunDirectory(tmp_path / "chief"), RunDirectory(tmp_path / "second")
    assert restore(store, chief, worker=0) is not None
    assert not chief.worker_log(1).exists()
    assert restore(store, second, worker=1) is None
    assert [path.name for path in second.path.rglob("*") if path.is_file()] == ["worker-1.log"]


def test_restore_keeps_what_is_here_already(sample: SampleRun, store: RecordingStore) -> None:
    sample.everything()
    Streamer(sample.run, store).run(once=True)
    sample.checkpoint(30)
    sample.log_lines()
    before = sample.files()
    manifest = restore(store, sample.run)
    assert manifest is not None
    assert manifest.step == 30
    assert sample.files() == before


def test_restore_of_a_step_says_what_is_wrong_with_it(sample: SampleRun, store: RecordingStore, tmp_path: Path) -> None:
    for step in (1, 2):
        sample.checkpoint(step)
    upload_all(sample, store)
    back = RunDirectory(tmp_path / "back")
    older = restore(store, back, step=1)
    assert older is not None
    assert older.step == 1
    with pytest.raises(NotFound, match="there is no checkpoint of step 5; it has 1, 2"):
        restore(store, back, step=5)
    (store.path / "checkpoints/step-00000002.index").unlink()
    with pytest.raises(BadData, match=r"the checkpoint of step 2 is not used: step-00000002\.index is missing"):
        restore(store, back, step=2)
    assert restore(FolderStore(tmp_path / "nothing"), RunDirectory(tmp_path / "new")) is None


def of_a_run(sample: SampleRun, run_id: str) -> SampleRun:
    sample.run_id = run_id
    RunRecord({}, Resolved(), run_id=run_id).write(sample.run)
    return sample


def test_another_runs_checkpoint_with_good_data_of_its_own_does_not_count(
    sample: SampleRun, store: RecordingStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = of_a_run(SampleRun(tmp_path / "other", seed=1), "other")
    other.checkpoint(99, miou=0.99)
    of_a_run(sample, "own").checkpoint(1, miou=0.5)
    assert Streamer(sample.run, store).run(once=True) == 0
    for path in other.run.checkpoints.rglob("step-*"):
        there = store.path / "checkpoints" / path.relative_to(other.run.checkpoints)
        there.write_bytes(path.read_bytes())

    manifest = restore(store, RunDirectory(tmp_path / "pod"), worker=0)  # which has no config.json of its own
    assert manifest is not None
    assert (manifest.step, manifest.run_id) == (1, "own")
    assert "step 99 in" in caplog.text
    assert "it is of another run: expected run_id own, found other" in caplog.text
    with pytest.raises(BadData, match="step 99 is not used: it is of another run"):
        restore(store, RunDirectory(tmp_path / "back"), step=99)

    sample.checkpoint(2, miou=0.4)
    upload_all(sample, store, keep=1)
    assert set(stored_steps(sample, store)) == {1, 2, 99}, "the other's is the best of nothing here"


def test_restore_brings_back_the_best_beside_the_newest(
    sample: SampleRun, store: RecordingStore, tmp_path: Path
) -> None:
    for step, miou in ((1, 0.1), (2, 0.9), (3, 0.5), (4, None)):
        sample.checkpoint(step, miou=miou)
    upload_all(sample, store)
    back = RunDirectory(tmp_path / "back")
    manifest = restore(store, back, worker=0)
    assert manifest is not None
    assert manifest.step == 4
    assert back.checkpoint_steps() == [4, 2]
    assert CheckpointManifest.read(back, 2).problem(back.checkpoints) is None


def test_a_damaged_best_is_told_and_the_newest_is_there(
    sample: SampleRun, store: RecordingStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step, miou in ((1, 0.9), (2, 0.5)):
        sample.checkpoint(step, miou=miou)
    upload_all(sample, store)
    (store.path / "checkpoints/step-00000001.index").write_bytes(b"")
    back = RunDirectory(tmp_path / "back")
    assert restore(store, back) is not None
    assert back.checkpoint_steps() == [2]
    assert "the best checkpoint in" in caplog.text
    assert "of step 1, is not used: step-00000001.index has 0 bytes" in caplog.text


def test_restore_writes_nothing_outside_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"../../x.index": FileDigest.read(io.BytesIO(b"x"))}
    manifest = CheckpointManifest(1, 1, 1.0, None, files).serialize()
    with FakeGcs() as fake:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
        store = open_store("gs://bucket/run")
        for name, content in (
            ("logs/worker-/../../../x.log", b"x"),
            ("checkpoints/../../x.index", b"x"),
            ("checkpoints/manifests/step-00000001.json", manifest),
        ):
            store.put(name, io.BytesIO(content), FileDigest.read(io.BytesIO(content)), None)
        assert restore(store, RunDirectory(tmp_path / "back" / "run")) is None
    assert not list(tmp_path.rglob("x.*"))


def test_a_manifest_that_is_too_large_for_one_is_passed_over(
    sample: SampleRun, store: RecordingStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        sample.checkpoint(step)
    upload_all(sample, store)
    os.truncate(store.path / "checkpoints/manifests/step-00000002.json", 1 << 40)
    manifest = restore(store, RunDirectory(tmp_path / "back"))
    assert manifest is not None
    assert manifest.step == 1
    assert "no checkpoint manifest: it has 1099511627776 bytes" in caplog.text


def test_pull_fetches_everything_once(sample: SampleRun, store: RecordingStore, tmp_path: Path) -> None:
    sample.everything()
    Streamer(sample.run, store).run(once=True)
    pulled = tmp_path / "pulled"
    fetched = [each.name for each in pull(store, pulled)]
    assert {name: (pulled / name).read_bytes() for name in sample.files()} == sample.files()
    assert all("manifests" in name for name in fetched[-2:])
    (pulled / "metrics.jsonl").write_bytes(b"older")
    assert [each.name for each in pull(store, pulled)] == ["metrics.jsonl"]
