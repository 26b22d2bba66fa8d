"""The runs in a destination, whatever lies beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.streaming.download.stored_runs import list_runs
from launcher.streaming.stores.folder import FolderStore
from launcher.streaming.stores.store import StoredObject, StoreRefused
from launcher.streaming.upload.streamer import Streamer
from maskfleet.errors import NotFound
from tests.helpers.sample_run import SampleRun


@pytest.fixture
def sample(tmp_path: Path) -> SampleRun:
    return SampleRun(tmp_path / "run")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "destination")


def test_runs_are_listed_with_their_steps_and_progress(sample: SampleRun, tmp_path: Path) -> None:
    sample.everything()
    root = FolderStore(tmp_path / "destination")
    with pytest.raises(NotFound, match="there is no run"):
        list_runs(root)
    for name in ("one", "team/two"):
        Streamer(sample.run, FolderStore(root.path / name)).run(once=True)
    one, two = list_runs(root)
    assert (one.name, two.name) == ("one", "team/two")
    assert one.steps == two.steps == [10, 20]
    assert one.progress is not None
    assert one.progress.step == 20
    assert one.size == sum(map(len, sample.files().values())) + (root.path / "one/export/manifest.json").stat().st_size
    assert list_runs(FolderStore(root.path / "one"))[0].name == ""


@pytest.mark.parametrize("content", [b"no JSON", b"\xff", b"[1]", b"null", b"", b'{"epoch": 1}'])
def test_runs_are_listed_whatever_a_file_called_progress_holds(
    sample: SampleRun, store: FolderStore, content: bytes
) -> None:
    sample.validate(1)
    sample.run.progress.write_bytes(content)
    Streamer(sample.run, store).run(once=True)
    (run,) = list_runs(store)
    assert run.progress is None


def test_one_run_s_bad_progress_hides_no_other_run(
    sample: SampleRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample.validate(1)
    root = FolderStore(tmp_path / "destination")
    for name in ("denied", "good", "huge"):
        Streamer(sample.run, FolderStore(root.path / name)).run(once=True)
    os.truncate(root.path / "huge" / "progress.json", 1 << 40)
    read = root.read

    def deny(found: StoredObject, start: int = 0) -> Iterator[bytes]:
        if found.name.startswith("denied/"):
            raise StoreRefused("access was denied")
        return read(found, start)

    monkeypatch.setattr(root, "read", deny)
    assert [(run.name, run.progress is not None) for run in list_runs(root)] == [
        ("denied", False), ("good", True), ("huge", False),
    ]  # fmt: skip


def test_progress_that_is_replaced_while_runs_are_listed_is_the_newest(
    sample: SampleRun, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample.validate(1)
    Streamer(sample.run, store).run(once=True)
    listed = list(store.list())
    sample.validate(2)
    Streamer(sample.run, store).run(once=True)
    monkeypatch.setattr(store, "list", lambda: iter(listed))
    progress = list_runs(store)[0].progress
    assert progress is not None
    assert progress.step == 2
