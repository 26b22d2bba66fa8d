"""Growing and whole files, step by step: what is copied, what is held back, what is refused and in which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.streaming.layout import EXPORT_MANIFEST
from launcher.streaming.stores.folder import FolderStore
from launcher.streaming.upload.growing_file import GrowingFile, flush_interval
from launcher.streaming.upload.guarded_object import Conflict
from launcher.streaming.upload.streamer import Streamer
from launcher.streaming.upload.whole_files import ExportFolder, WholeFile
from maskfleet.export_manifest import ExportManifest
from maskfleet.files import write_atomically
from maskfleet.plain_files import PlainFiles
from maskfleet.tfrecords import frame, scan_lines, scan_tfrecords
from tests.helpers.sample_run import SampleRun

NAME = "tensorboard/train/events.out.tfevents.1"


class Pair:
    """A growing file and its copy; the clock is the test's own."""

    def __init__(self, tmp_path: Path):
        self.now = 1000.0
        self.path = tmp_path / "run" / NAME
        self.path.parent.mkdir(parents=True)
        self.store = FolderStore(tmp_path / "destination")
        self.file = self.follow()

    def follow(self, *, lines: bool = False, history: bool = False) -> GrowingFile:
        scan = scan_lines if lines else scan_tfrecords
        return GrowingFile(self.store, PlainFiles(self.path.parents[2]), NAME, scan, interval=2, history=history)

    def write(self, content: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(content)

    def step(self, *, final: bool = False) -> bytes:
        self.now += 60
        self.file.step(self.now, final=final)
        copy = self.store.path / NAME
        return copy.read_bytes() if copy.exists() else b""


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_whole_records_are_copied_and_a_cut_one_waits_for_its_end(pair: Pair) -> None:
    first, second = frame(b"first"), frame(b"second" * 10)
    assert pair.step() == b""  # there is no file yet
    pair.write(first + second[:20])
    assert pair.step() == first
    assert (pair.file.pending, pair.file.problem) == (20, None)
    assert pair.file.pending_since == pair.now
    assert pair.step(final=True) == first
    assert pair.file.is_caught_up()
    pair.write(second[20:])
    assert pair.step() == first + second
    assert pair.file.pending == 0


@pytest.mark.parametrize(
    ("tail", "problem"),
    [(bytes(64), "a block of zeros at byte 21"), (b"\xff" * 64, "no record: the checksum of the length is wrong")],
)
def test_what_is_no_record_is_refused_once_it_stays_there(pair: Pair, tail: bytes, problem: str) -> None:
    pair.write(frame(b"first") + tail)
    assert pair.step() == frame(b"first")
    assert pair.step() == frame(b"first")
    assert pair.file.problem is None  # the first look might have caught a write that was half visible
    assert pair.step() == frame(b"first")
    assert problem in str(pair.file.problem)
    assert str(pair.path) in str(pair.file.problem)


def test_a_zero_block_that_is_filled_in_later_is_copied_then(pair: Pair) -> None:
    pair.write(frame(b"first") + bytes(len(frame(b"later"))))
    for _ in range(4):
        pair.step()
    assert pair.file.problem is not None
    with pair.path.open("r+b") as file:
        file.seek(len(frame(b"first")))
        file.write(frame(b"later"))
    assert pair.step() == frame(b"first") + frame(b"later")
    assert pair.file.problem is None


def test_a_file_that_shrinks_is_refused_even_when_it_has_grown_again(pair: Pair) -> None:
    content = frame(b"first") + frame(b"other")
    pair.write(content)
    pair.step()
    pair.path.open("r+b").truncate(10)
    assert pair.step() == content
    assert "has only 10 bytes, but 42 were copied before; it is not copied any further" in str(pair.file.problem)
    pair.path.open("r+b").truncate(0)
    pair.write(frame(b"FIRST") * 3)  # records of the same size: the next one begins where the copy ends
    assert pair.step() == content
    assert "was replaced" in str(pair.file.problem)


def test_a_file_that_is_written_anew_is_refused(pair: Pair) -> None:
    pair.write(frame(b"first"))
    pair.step()
    with pair.path.open("r+b") as file:  # the same inode, and longer when it is next looked at
        file.truncate(0)
        file.write(frame(b"FIRST") * 2)
    assert pair.step() == frame(b"first")
    assert "was written anew" in str(pair.file.problem)


def test_a_replaced_file_is_refused_and_an_identical_one_goes_on(pair: Pair) -> None:
    pair.write(frame(b"first"))
    pair.step()
    write_atomically(pair.path, frame(b"first") + frame(b"second"))
    assert pair.step() == frame(b"first") + frame(b"second")
    write_atomically(pair.path, frame(b"other") * 9)
    assert pair.step() == frame(b"first") + frame(b"second")
    assert "was replaced: it differs from the 43 bytes" in str(pair.file.problem)


def test_a_deleted_file_keeps_its_copy(pair: Pair) -> None:
    pair.write(frame(b"first"))
    pair.step()
    pair.path.unlink()
    assert pair.step() == frame(b"first")
    assert (pair.file.problem, pair.file.is_caught_up()) == (None, True)


def test_a_restarted_streamer_goes_on_from_what_the_store_holds(pair: Pair) -> None:
    pair.write(frame(b"first"))
    pair.step()
    pair.write(frame(b"second"))
    pair.file = pair.follow()
    assert pair.step() == frame(b"first") + frame(b"second")


@pytest.mark.parametrize("cut", [1, 4, 5, 17, 18, 25])
def test_a_copy_that_a_crash_has_cut_within_a_record_goes_on_there(pair: Pair, cut: int) -> None:
    pair.write(frame(b"first") + frame(b"second"))
    pair.step()
    with (pair.store.path / NAME).open("ab") as copy:
        copy.truncate(copy.tell() - cut)
    third = frame(b"third")
    pair.write(third[:7])
    pair.file = pair.follow()
    assert pair.step() == frame(b"first") + frame(b"second")
    assert pair.file.problem is None
    pair.write(third[7:])
    assert pair.step() == frame(b"first") + frame(b"second") + third


def test_a_record_larger_than_a_piece_is_copied_whole(pair: Pair) -> None:
    large = frame(b"x" * (9 << 20))
    pair.write(large[:-1])
    assert pair.step() == b""
    pair.write(large[-1:])
    assert pair.step() == large


def test_appends_keep_their_distance_but_not_at_the_end(pair: Pair) -> None:
    pair.write(frame(b"first"))
    pair.file.step(1000.0)
    pair.write(frame(b"second"))
    assert pair.file.step(1001.0) == 0
    assert pair.file.pending == len(frame(b"second"))
    assert pair.file.step(1001.0, final=True) > 0


def test_the_distance_grows_with_the_object_up_to_a_limit() -> None:
    assert [flush_interval(megabytes << 20, 2.0) for megabytes in (0, 15, 16, 48, 1000)] == [2, 2, 4, 8, 8]


def test_a_logs_last_line_is_copied_at_the_end_without_its_newline(pair: Pair) -> None:
    pair.file = pair.follow(lines=True)
    pair.write(b"one\ntw")
    assert pair.step() == b"one\n"
    assert pair.step(final=True) == b"one\ntw"
    pair.write(b"o\n")
    assert pair.step() == b"one\ntwo\n"


def test_another_runs_history_stops_the_streamer(pair: Pair) -> None:
    pair.write(b"one run\n")
    pair.file = pair.follow(lines=True, history=True)
    pair.step()
    pair.path.write_bytes(b"another\nrun, and longer\n")
    pair.file = pair.follow(lines=True, history=True)
    with pytest.raises(Conflict, match=r"belongs to another run .*'launcher restore") as caught:
        pair.step()
    assert "\n" not in str(caught.value)


def test_of_two_streamers_on_one_file_the_later_stops(pair: Pair) -> None:
    pair.write(frame(b"first"))
    zombie = pair.follow()
    pair.step()
    zombie.step(pair.now)
    pair.write(frame(b"second"))
    pair.step()
    pair.write(frame(b"third"))
    with pytest.raises(Conflict, match="another streamer writes to this destination"):
        zombie.step(pair.now + 60)
    assert pair.step() == frame(b"first") + frame(b"second") + frame(b"third")


def test_a_whole_file_is_replaced_when_it_changed(tmp_path: Path) -> None:
    path, store = tmp_path / "progress.json", FolderStore(tmp_path / "destination")
    copied = WholeFile(store, PlainFiles(tmp_path), "progress.json", interval=10)
    assert copied.step(0) == 0
    for now, content, arrived in ((20, b"1", b"1"), (21, b"2", b"1"), (40, b"3", b"3"), (60, b"3", b"3")):
        write_atomically(path, content)
        copied.step(now)
        assert (store.path / "progress.json").read_bytes() == arrived
    write_atomically(path, b"4")
    copied.step(61, final=True)
    assert (store.path / "progress.json").read_bytes() == b"4"
    write_atomically(path, b"5")
    again = WholeFile(store, PlainFiles(tmp_path), "progress.json", interval=10)
    assert again.step(100) == 1
    write_atomically(path, b"6")
    with pytest.raises(Conflict):
        copied.step(200)


def test_an_export_is_complete_when_its_manifest_is_there(tmp_path: Path) -> None:
    sample = SampleRun(tmp_path / "run")
    store = FolderStore(tmp_path / "destination")
    folder = ExportFolder(store, sample.run)
    sample.path("export/saved_model/saved_model.pb").write_bytes(b"model")
    sample.path("export/.unet.keras.tmp").write_bytes(b"half")
    now = sample.path("export/saved_model/saved_model.pb").stat().st_mtime
    assert folder.step(now + 1) == 0
    assert not folder.is_caught_up()
    assert folder.step(now + 10) > 0
    names = [each.name for each in store.list()]
    assert names == [EXPORT_MANIFEST, "export/saved_model/saved_model.pb"]
    assert ExportFolder(store, sample.run).step(now + 10) == 0


def test_an_interrupted_export_is_not_copied_over_a_whole_one(tmp_path: Path) -> None:
    sample, store = SampleRun(tmp_path / "run"), FolderStore(tmp_path / "destination")
    files = {"net.keras": b"old", "saved_model/graph.pb": b"old"}
    for name, content in files.items():
        sample.path(f"export/{name}").write_bytes(content)
    ExportManifest.of(sample.run.export).write(sample.run.export)
    assert Streamer(sample.run, store).run(once=True) == 0

    (sample.run.export / "net.keras").write_bytes(b"newer")  # and then a kill
    assert Streamer(sample.run, store).run(once=True) == 1
    problems = json.loads(sample.run.streamer_notes.read_text())["problems"]
    assert [line for line in problems if line.startswith("the export is not whole, as one that was interrupted: net")]
    assert (store.path / "export/net.keras").read_bytes() == b"old"

    ExportManifest.of(sample.run.export).write(sample.run.export)
    assert Streamer(sample.run, store).run(once=True) == 0
    assert (store.path / "export/net.keras").read_bytes() == b"newer"


def test_metrics_that_a_resumed_run_takes_back_are_taken_back_there(tmp_path: Path) -> None:
    sample, store = SampleRun(tmp_path / "run"), FolderStore(tmp_path / "destination")
    for step in (1, 2):
        sample.validate(step)
    streamed = [Streamer(sample.run, store).run(once=True)]
    write_atomically(sample.run.metrics, sample.run.metrics.read_bytes().splitlines(keepends=True)[0])
    streamed.append(Streamer(sample.run, store).run(once=True))
    assert streamed == [0, 0]
    assert (store.path / "metrics.jsonl").read_bytes() == sample.run.metrics.read_bytes()
