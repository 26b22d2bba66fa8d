"""Links and special files, in a run, in a destination and where something comes down: left out, and named once."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.streaming.download.arrival import InTheWay
from launcher.streaming.download.event_mirror import EventMirror
from launcher.streaming.download.pull import NotAllFetched, pull
from launcher.streaming.download.restore import restore
from launcher.streaming.download.stored_runs import list_runs
from launcher.streaming.stores.folder import FolderStore
from launcher.streaming.stores.opening import open_store
from launcher.streaming.stores.store import StoreRefused
from launcher.streaming.stream_metrics import StreamMetrics
from launcher.streaming.upload import run_files
from launcher.streaming.upload.streamer import Streamer
from maskfleet.errors import DONE, FAILED, BadSettings
from maskfleet.run_directory import RunDirectory
from tests.fakes.s3 import FakeS3
from tests.helpers.sample_run import EVENTS, SampleRun, copied_files
from tests.helpers.streamer_process import variables

SECRET = b"a private file\n"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is nobody's business, and holds what a run's folders might."""
    folder = tmp_path / "outside"
    for name in ("secret", "worker-0.log", "step-00000099.json", "events.out.tfevents.9", "deep/secret"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(SECRET)
    return folder


@pytest.fixture
def sample(tmp_path: Path) -> SampleRun:
    return SampleRun(tmp_path / "run")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "destination")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


LINKS = [
    "config.json", "progress.json", "report.html", "examples.json", "metrics.jsonl", "events.jsonl", "notes.txt",
    "logs/worker-7.log", EVENTS + ".2", "tensorboard/train/plugins/profile/x", "pictures/a.png", "export/net.keras",
    "export/saved_model/variables/v", "checkpoints/manifests/step-00000099.json",
]  # fmt: skip


@pytest.mark.parametrize("kind", [lambda path, at: path.symlink_to(at), lambda path, _: os.mkfifo(path)])
def test_no_linked_file_of_a_run_is_copied_and_each_is_named_once(
    sample: SampleRun, store: FolderStore, outside: Path, caplog: pytest.LogCaptureFixture,
    kind: Callable[[Path, Path], None],
) -> None:  # fmt: skip
    sample.everything()
    for name in LINKS:
        sample.path(name).unlink(missing_ok=True)
        kind(sample.path(name), outside / "secret")
    assert Streamer(sample.run, store).run(once=True) == DONE
    assert SECRET not in contents(store.path).values()
    assert not set(LINKS) & set(contents(store.path))
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(told) == 3  # the files', the checkpoints' and the export's
    metrics = StreamMetrics.load(sample.run)
    assert metrics is not None
    assert metrics.left_out == len(LINKS)


@pytest.mark.parametrize("name", ["logs", "tensorboard", "tensorboard/train", "pictures", "export", "checkpoints",
                                  "checkpoints/manifests"])  # fmt: skip
def test_no_linked_folder_of_a_run_is_walked(
    sample: SampleRun, store: FolderStore, outside: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    sample.everything()
    others = {each: content for each, content in sample.files().items() if not each.startswith(f"{name}/")}
    shutil.move(sample.run.path / name, outside / "moved")
    sample.run.path.joinpath(name).symlink_to(outside / "moved")
    assert Streamer(sample.run, store).run(once=True) == DONE
    copied = {each for each in contents(store.path) if not each.startswith(".maskfleet")} - {"export/manifest.json"}
    assert copied == {each for each in others if name != "checkpoints/manifests" or "checkpoints/" not in each}
    assert f"left out: {name} is a link" in caplog.text


def test_a_run_whose_folder_is_a_link_is_copied(sample: SampleRun, store: FolderStore, tmp_path: Path) -> None:
    sample.everything()
    (tmp_path / "named").symlink_to(sample.run.path)
    assert Streamer(RunDirectory(tmp_path / "named"), store).run(once=True) == DONE
    assert set(sample.files()) <= set(contents(store.path))


@pytest.mark.parametrize("name", [EVENTS, "logs/worker-0.log", "config.json", "export/unet.keras"])
def test_a_file_that_becomes_a_link_while_it_is_followed_is_named_and_not_read(
    sample: SampleRun, store: FolderStore, outside: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, name: str,
) -> None:  # fmt: skip
    sample.everything()
    open_ = os.open

    def swap(path: str, *arguments, **how):  # type: ignore[no-untyped-def]
        if path == Path(name).name and sample.path(name).is_file():
            sample.path(name).unlink()
            sample.path(name).symlink_to(outside / "secret")
        return open_(path, *arguments, **how)

    monkeypatch.setattr(os, "open", swap)
    assert Streamer(sample.run, store).run(once=True) == FAILED
    monkeypatch.undo()
    assert name not in contents(store.path)
    assert SECRET not in contents(store.path).values()
    assert "is a link, which is left alone" in caplog.text


def test_a_checkpoint_with_a_linked_file_is_not_copied_and_named(
    sample: SampleRun, store: FolderStore, outside: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sample.everything()
    data = sample.run.checkpoint_prefix(20).with_suffix(".data-00000-of-00001")
    shutil.move(data, outside / "data")
    data.symlink_to(outside / "data")
    assert Streamer(sample.run, store).run(once=True) == FAILED
    assert f"not copied: the checkpoint of step 20: {data}: is a link, which is left alone" in caplog.text
    assert not any("00000020" in name for name in contents(store.path))


@pytest.mark.parametrize(("name", "words"), [
    (b"bad-\xff.txt", "bad-\\udcff.txt has a name that is not UTF-8"),
    (b"new\nline.txt", "new line.txt has a name with control characters"),
    (b"\x1b[31m.txt", "\\x1b[31m.txt has a name with control characters"),
])  # fmt: skip
def test_names_that_no_bucket_takes_are_left_out(
    sample: SampleRun, store: FolderStore, caplog: pytest.LogCaptureFixture, name: bytes, words: str
) -> None:
    sample.everything()
    Path(os.fsdecode(os.fsencode(sample.run.path) + b"/" + name)).write_bytes(b"x")
    assert Streamer(sample.run, store).run(once=True) == DONE
    assert words in caplog.text


def test_a_name_that_a_bucket_refuses_holds_up_no_other(
    sample: SampleRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever name is not known here to be refused."""
    sample.everything()
    sample.path("a\x1fb.txt").write_bytes(b"x")
    monkeypatch.setattr(run_files, "_CONTROL", re.compile("(?!)"))
    with FakeS3() as fake:
        for variable, value in variables(fake.url).items():
            monkeypatch.setenv(variable, value)
        assert Streamer(sample.run, open_store("s3://bucket/run")).run(once=True) == FAILED
        assert set(sample.files()) - {"a\x1fb.txt"} == set(copied_files(fake))
    assert "not copied: a\x1fb.txt: s3://bucket/run/a\x1fb.txt: Could not parse path" in caplog.text


@pytest.mark.parametrize("name", ["config.json", "logs/worker-0.log", "checkpoints/step-00000020.index"])
def test_a_destination_s_links_are_no_objects_and_nothing_is_written_through_them(
    sample: SampleRun, store: FolderStore, outside: Path, name: str
) -> None:
    sample.everything()
    (store.path / name).parent.mkdir(parents=True)
    (store.path / name).symlink_to(outside / "secret")
    assert store.find(name) is None
    assert list(store.list()) == []
    assert Streamer(sample.run, store).run(once=True) == FAILED
    assert (outside / "secret").read_bytes() == SECRET
    assert (store.path / name).is_symlink()
    assert contents(store.path)["metrics.jsonl"] == sample.files()["metrics.jsonl"]


def test_a_destination_s_linked_folder_is_not_written_into(
    sample: SampleRun, store: FolderStore, outside: Path
) -> None:
    sample.everything()
    before = contents(outside)
    for name in ("logs", "checkpoints", "export", "tensorboard"):
        store.path.mkdir(exist_ok=True)
        (store.path / name).symlink_to(outside)
    assert Streamer(sample.run, store).run(once=True) == FAILED
    assert contents(outside) == before


@pytest.mark.parametrize("place", [".maskfleet", ".maskfleet/lock", ".maskfleet/probe"])
def test_the_streamer_s_own_names_may_be_links_too(store: FolderStore, outside: Path, place: str) -> None:
    (store.path / place).parent.mkdir(parents=True)
    (store.path / place).symlink_to(outside if place == ".maskfleet" else outside / "secret")
    before = contents(outside)
    with pytest.raises(StoreRefused, match=r"\.maskfleet.*: is a link, which is left alone"):
        store.check()
    assert contents(outside) == before


@pytest.mark.parametrize("note", ["0\n../outside/secret\n", "0\nlinked/secret\n", "-1\n../outside/secret\n", "x\na\n",
                                  "-1\nlinked/secret\n", "²\na\n", "99\na\n", "0\na", ""])  # fmt: skip
def test_a_note_that_somebody_else_wrote_leads_nowhere(store: FolderStore, outside: Path, note: str) -> None:
    (store.path / ".maskfleet").mkdir(parents=True)
    (store.path / "a").write_bytes(b"content")
    (store.path / "linked").symlink_to(outside)
    (store.path / ".maskfleet" / "append-1").write_text(note)
    before = contents(outside)
    try:
        store.check()
    except StoreRefused as error:
        assert "left alone" in str(error) or "no name" in str(error)  # noqa: PT017
    assert contents(outside) == before
    assert (store.path / "a").read_bytes() == b"content"


@pytest.fixture
def streamed(sample: SampleRun, store: FolderStore) -> FolderStore:
    sample.everything()
    sample.path("examples.json").write_text('{"fingerprint": "f", "train": {}, "test": {}}')
    assert Streamer(sample.run, store).run(once=True) == DONE
    return store


@pytest.mark.parametrize("name", ["logs", "checkpoints", "export", "config.json", "logs/worker-0.log", EVENTS])
@pytest.mark.parametrize("kind", ["link", "fifo", "hanging"])
def test_pull_writes_through_no_link_and_names_what_it_left_out(
    streamed: FolderStore, outside: Path, tmp_path: Path, name: str, kind: str
) -> None:
    pulled = tmp_path / "pulled"
    (pulled / name).parent.mkdir(parents=True)
    if kind == "fifo":
        os.mkfifo(pulled / name)
    else:
        (pulled / name).symlink_to(outside / "nowhere" if kind == "hanging" else outside)
    before = contents(outside)
    with pytest.raises(NotAllFetched, match=f"objects were left out: {name}.*: is a (link|FIFO)") as caught:
        list(pull(streamed, pulled))
    assert "\n" not in str(caught.value)
    assert contents(outside) == before
    assert not (outside / "nowhere").exists()
    there = {each.name for each in streamed.list() if each.name != name and not each.name.startswith(f"{name}/")}
    assert there <= set(contents(pulled))


@pytest.mark.parametrize("name", ["logs", "logs/worker-0.log", "events.jsonl", "metrics.jsonl", "config.json"])
def test_restore_writes_no_history_through_a_link(
    streamed: FolderStore, outside: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    back = RunDirectory(tmp_path / "back")
    (back.path / name).parent.mkdir(parents=True)
    (back.path / name).symlink_to(outside / "deep" if name == "logs" else outside / "new")
    before = contents(outside)
    manifest = restore(streamed, back)
    assert manifest is not None
    assert manifest.step == 20
    assert contents(outside) == before
    assert not (outside / "new").exists()
    if name != "metrics.jsonl" or "is not brought back" in caplog.text:
        assert "is not brought back" in caplog.text


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/manifests", "checkpoints/step-00000020.index"])
def test_restore_brings_no_checkpoint_through_a_link(
    streamed: FolderStore, outside: Path, tmp_path: Path, name: str
) -> None:
    back = RunDirectory(tmp_path / "back")
    (back.path / name).parent.mkdir(parents=True)
    (back.path / name).symlink_to(outside / "secret" if name.endswith("index") else outside)
    before = contents(outside)
    with pytest.raises(InTheWay, match=f"{name}: is a link, which is left alone"):
        restore(streamed, back)
    assert contents(outside) == before


def test_what_a_pull_from_a_folder_leaves_out_is_named(
    streamed: FolderStore, outside: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (streamed.path / "private").symlink_to(outside / "secret")
    (streamed.path / "folder").symlink_to(outside)
    with caplog.at_level(logging.WARNING):
        names = {each.name for each in pull(streamed, tmp_path / "pulled")}
    assert "left out: folder is a link, private is a link" in caplog.text
    assert "private" not in names
    assert SECRET not in contents(tmp_path / "pulled").values()
    assert len(list_runs(streamed)) == 1


def test_the_mirror_of_event_files_goes_on_beside_a_name_that_can_have_no_file(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "destination")
    for name in ("tensorboard/a/events.out.tfevents.1", "tensorboard/z/events.out.tfevents.1"):
        (store.path / name).parent.mkdir(parents=True)
        (store.path / name).write_bytes(SECRET)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "a").write_bytes(b"a file where a folder shall be")
    assert EventMirror(store, mirror).update() == len(SECRET)
    assert (mirror / "z" / "events.out.tfevents.1").read_bytes() == SECRET


@pytest.mark.parametrize("below", ["", "inside"])
@pytest.mark.parametrize("kind", ["file", "FIFO", "device"])
def test_what_is_no_folder_is_named_once_in_either_direction(
    sample: SampleRun, store: FolderStore, tmp_path: Path, kind: str, below: str
) -> None:
    place = Path("/dev/null") if kind == "device" else tmp_path / kind
    if kind == "file":
        place.touch()
    elif kind == "FIFO":
        os.mkfifo(place)
    sample.everything()
    assert Streamer(sample.run, store).run(once=True) == DONE
    for bring in (lambda: restore(store, RunDirectory(place / below)), lambda: list(pull(store, place / below))):
        with pytest.raises(BadSettings, match=f"^{place}: expected a folder, or nothing"):
            bring()
    other = FolderStore(place / below)
    with pytest.raises(StoreRefused, match=r"can't be read: Not a directory$"):
        list(other.list("logs/"))
    with pytest.raises(StoreRefused, match=r"can't be written: Not a directory$"):
        other.check()
