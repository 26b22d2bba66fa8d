"""Wherever a write to a folder is cut, by a kill or a full disk: what is there is whole, and it goes on from there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.streaming.download.arrival import DiskFailed
from launcher.streaming.download.pull import pull
from launcher.streaming.download.restore import restore
from launcher.streaming.stores import patience
from launcher.streaming.stores.folder import FolderStore
from launcher.streaming.upload.streamer import Streamer
from maskfleet.checkpoint_manifest import CheckpointManifest
from maskfleet.errors import DONE
from maskfleet.run_directory import RunDirectory
from tests.helpers.interruptions import full_from, killed_at
from tests.helpers.sample_run import SampleRun


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[SampleRun, Path]:
    """A run, and a destination that holds a part of it, so that all kinds of writes are still to come."""
    sample = SampleRun(tmp_path_factory.mktemp("sample") / "run")
    half = tmp_path_factory.mktemp("half") / "destination"
    sample.everything()
    assert Streamer(sample.run, FolderStore(half)).run(once=True) == DONE
    sample.log_events()
    sample.log_lines()
    sample.validate(30)
    sample.checkpoint(30)
    sample.path("export/unet.h5").write_bytes(b"another export")
    return sample, half


@pytest.fixture
def places(
    samples: tuple[SampleRun, Path], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "SHORTEST_PAUSE", 0.001)
    monkeypatch.setattr(patience, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr("launcher.streaming.upload.refusals.LONGEST_PAUSE", 0.01)


def contents(folder: Path) -> dict[str, bytes]:
    """What is there but for what is hidden."""
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in names.items() if "/." not in f"/{name}"}


def assert_never_half(folder: Path, whole: dict[str, bytes], before: dict[str, bytes], *, appended: bool) -> None:
    """Each file is as it was before or as it is to be, or of one that grows a beginning; each manifest verifies."""
    for name, content in contents(folder).items():
        grows = appended and ("tfevents" in name or name.endswith((".log", "events.jsonl", "goodput.jsonl")))
        wanted = [whole.get(name, content if name == "export/manifest.json" else b""), before.get(name, b"none")]
        assert content in wanted or (grows and whole[name].startswith(content)), name
        if "manifests/" in name:
            assert CheckpointManifest.parse(content).problem(folder / "checkpoints") is None


MOMENTS = st.tuples(st.integers(1, 90), st.sampled_from([0.0, 0.3, 0.99]))
MANY = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@MANY
@given(moment=MOMENTS)
def test_streaming_may_be_killed_at_any_write(
    places: None, samples: tuple[SampleRun, Path], tmp_path_factory: pytest.TempPathFactory, moment: tuple[int, float]
) -> None:
    sample, half = samples
    destination = tmp_path_factory.mktemp("killed") / "destination"
    shutil.copytree(half, destination)
    killed_at(*moment, lambda: Streamer(sample.run, FolderStore(destination)).run(once=True))
    assert Streamer(sample.run, FolderStore(destination)).run(once=True) == DONE
    copied = contents(destination)
    assert copied.pop("export/manifest.json")
    assert copied == sample.files()
    assert [path.name for path in (destination / ".maskfleet").iterdir()] == ["lock"] or not left(destination)


def left(destination: Path) -> set[str]:
    """What lies among the streamer's own files though nothing goes on."""
    return {path.name for path in (destination / ".maskfleet").iterdir()} - {"lock", "probe"}


@MANY
@given(moment=MOMENTS)
def test_what_a_killed_streamer_leaves_is_never_half(
    places: None, samples: tuple[SampleRun, Path], tmp_path_factory: pytest.TempPathFactory, moment: tuple[int, float]
) -> None:
    sample, half = samples
    destination = tmp_path_factory.mktemp("killed") / "destination"
    shutil.copytree(half, destination)
    killed_at(*moment, lambda: Streamer(sample.run, FolderStore(destination)).run(once=True))
    FolderStore(destination).check()  # undoes an append
    assert_never_half(destination, sample.files(), contents(half), appended=True)


@MANY
@given(moment=MOMENTS, changes=st.integers(1, 40))
def test_streaming_goes_on_when_a_full_disk_has_room_again(
    places: None, samples: tuple[SampleRun, Path], tmp_path_factory: pytest.TempPathFactory,
    moment: tuple[int, float], changes: int,
) -> None:  # fmt: skip
    sample, half = samples
    destination = tmp_path_factory.mktemp("full") / "destination"
    shutil.copytree(half, destination)
    number, share = moment
    with full_from(number, changes, share) as disk:
        assert Streamer(sample.run, FolderStore(destination)).run(once=True) == DONE
    copied = contents(destination)
    assert copied.pop("export/manifest.json")
    assert copied == sample.files()
    assert disk.changes > 40
    assert not left(destination)


@MANY
@given(moment=MOMENTS)
def test_a_pull_and_a_restore_may_be_killed_at_any_write(
    places: None, samples: tuple[SampleRun, Path], tmp_path_factory: pytest.TempPathFactory, moment: tuple[int, float]
) -> None:
    store = FolderStore(samples[1])
    pulled, back = (tmp_path_factory.mktemp("down") / name for name in ("pulled", "back"))
    killed_at(*moment, lambda: list(pull(store, pulled)))
    assert_never_half(pulled, contents(samples[1]), {}, appended=False)
    list(pull(store, pulled))
    assert contents(pulled) == contents(samples[1])
    killed_at(*moment, lambda: restore(store, RunDirectory(back)))
    assert_never_half(back, contents(samples[1]), {}, appended=False)
    manifest = restore(store, RunDirectory(back))
    assert manifest is not None
    assert manifest.step == 20
    restored = contents(back)
    assert restored.items() <= contents(samples[1]).items()
    assert {"config.json", "events.jsonl", "metrics.jsonl", "logs/worker-0.log"} <= set(restored)


@MANY
@given(moment=MOMENTS)
def test_a_pull_and_a_restore_onto_a_full_disk_end_in_one_line_and_go_on_later(
    places: None, samples: tuple[SampleRun, Path], tmp_path_factory: pytest.TempPathFactory, moment: tuple[int, float]
) -> None:
    store = FolderStore(samples[1])
    pulled, back = (tmp_path_factory.mktemp("down") / name for name in ("pulled", "back"))
    number, share = moment
    for folder, action in (
        (pulled, lambda: list(pull(store, pulled))),
        (back, lambda: restore(store, RunDirectory(back))),
    ):
        with full_from(number, 10**6, share) as disk:
            try:
                action()
            except DiskFailed as error:
                assert str(error).startswith(str(folder))  # noqa: PT017
                assert "No space left on device; make room and begin again" in str(error)  # noqa: PT017
                assert "\n" not in str(error)  # noqa: PT017
            else:
                assert disk.changes < number
        assert_never_half(folder, contents(samples[1]), {}, appended=False)
        assert not list(folder.rglob("*.tmp"))
        action()
    assert contents(pulled) == contents(samples[1])
