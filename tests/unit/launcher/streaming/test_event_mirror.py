"""Event files of a store on this disk: only what is new is fetched, whatever the store does with them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.streaming.download.event_mirror import EventMirror
from launcher.streaming.stores.opening import open_store
from launcher.streaming.stores.s3 import SEAL
from launcher.streaming.stores.store import Store, StoredObject
from launcher.streaming.upload.streamer import Streamer
from tests.fakes.gcs import FakeGcs, Fault
from tests.fakes.s3 import FakeS3
from tests.helpers.sample_run import EVENTS, SampleRun
from tests.helpers.streamer_process import variables


@pytest.fixture(params=[("gs", FakeGcs), ("s3", FakeS3)], ids=["gs", "s3"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    scheme, service = request.param
    with service() as server:
        for name, value in variables(server.url).items():
            monkeypatch.setenv(name, value)
        yield open_store(f"{scheme}://bucket/run")


def test_what_was_appended_is_all_that_is_fetched(store: Store, tmp_path: Path) -> None:
    sample, mirror = SampleRun(tmp_path / "run"), EventMirror(store, tmp_path / "mirror")
    assert mirror.update() == 0
    sample.everything()  # with a log, metrics and checkpoints, which TensorBoard has no use for
    sizes = []
    for size in (100, SEAL, 100, 3 * SEAL, 100):
        sample.log_events(1, size=size)
        assert Streamer(sample.run, store).run(once=True) == 0
        mirror.update()
        sizes.append(sample.path(EVENTS).stat().st_size)
        files = {path.relative_to(tmp_path / "mirror").as_posix() for path in (tmp_path / "mirror").rglob("events*")}
        assert files == {name.removeprefix("tensorboard/") for name in sample.files() if "tfevents" in name}
        assert (tmp_path / "mirror" / EVENTS.removeprefix("tensorboard/")).read_bytes() == sample.files()[EVENTS]
    assert mirror.update() == 0
    sample.log_events(1, size=50)
    assert Streamer(sample.run, store).run(once=True) == 0
    assert mirror.update() == sample.path(EVENTS).stat().st_size - sizes[-1]


def test_a_file_that_was_begun_anew_is_fetched_anew(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "destination"))
    mirror, source = EventMirror(store, tmp_path / "mirror"), random.Random(0)
    for size in (1000, 10):
        (tmp_path / "destination/tensorboard/train").mkdir(parents=True, exist_ok=True)
        content = source.randbytes(size)
        (tmp_path / "destination" / EVENTS).write_bytes(content)
        assert mirror.update() == size
        assert (tmp_path / "mirror/train" / Path(EVENTS).name).read_bytes() == content


def test_a_file_that_grows_while_it_is_read_is_completed_by_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeGcs() as fake:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
        sample, store = SampleRun(tmp_path / "run"), open_store("gs://bucket/run")
        sample.log_events()
        assert Streamer(sample.run, store).run(once=True) == 0
        fake.faults.add(Fault("status", "alt=media", status=404))  # that generation is gone
        mirror = EventMirror(store, tmp_path / "mirror")
        assert mirror.update() == 0
        assert mirror.update() == sample.path(EVENTS).stat().st_size


@pytest.mark.parametrize("outside", ["../../events.out.tfevents.1", "/{}/events.out.tfevents.1"])
def test_names_that_lead_out_of_the_folder_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: str
) -> None:
    store = open_store(str(tmp_path / "destination"))
    stored = StoredObject("tensorboard/" + outside.format(tmp_path), 5, None, "1", 0.0)
    monkeypatch.setattr(store, "list", lambda prefix: iter([stored]))
    monkeypatch.setattr(store, "read", lambda found, start: iter([b"hello"]))
    assert EventMirror(store, tmp_path / "mirror").update() == 0
    assert not list(tmp_path.rglob("*tfevents*"))
