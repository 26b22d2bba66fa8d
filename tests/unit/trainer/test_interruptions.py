"""Wherever a write of a run or of its results is cut, by a full disk or a kill: whole or undone, and the same again
comes to its end."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.scalar.summary_v2 import scalar_pb

from launcher.streaming.download.event_mirror import EventMirror
from launcher.streaming.stores.folder import FolderStore
from maskfleet.checkpoint_manifest import CheckpointManifest
from maskfleet.errors import MaskfleetError
from maskfleet.export_manifest import ExportManifest
from maskfleet.files import FileDigest, write_atomically
from maskfleet.image_size import Size
from maskfleet.run_directory import RunDirectory
from maskfleet.tfrecords import scan_tfrecords
from tests.helpers.interruptions import full_from, killed_at
from tests.unit.trainer.data.test_bands import write_raster
from trainer.checkpoints.store import CheckpointStore
from trainer.data import rasters
from trainer.results.compare import _write_tensorboard
from trainer.results.exporting import _staged
from trainer.results.legend import Legend
from trainer.results.predict import Predictor
from trainer.results.predict_files import is_done, predict_files
from trainer.training.event_file import EventFile

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 16, 3), np.uint8)
LEGEND = Legend.unnamed(5)


def store_of(folder: Path) -> tuple[CheckpointStore, tf.Variable]:
    variable = tf.Variable(tf.zeros([100]))
    store = CheckpointStore(RunDirectory(folder / "run"), tf.train.Checkpoint(weights={"a": variable}), keep=2)
    store.delete_incomplete()
    return store, variable


def save(step: int, folder: Path) -> None:
    store, variable = store_of(folder)
    variable.assign(tf.fill([100], float(step)))
    store.save(step, 0, 0.0, None, 0.5 if step == 1 else None)
    store.wait()


def some_checkpoints(folder: Path) -> None:
    for step in (1, 2, 3):
        save(step, folder)


def restored(folder: Path) -> int:
    store, variable = store_of(folder)
    found = store.restore()
    assert found is not None
    assert float(variable[0]) == found.step
    return found.step


def check_checkpoints(folder: Path, *, done: bool) -> None:
    run = RunDirectory(folder / "run")
    for step in run.checkpoint_steps():
        assert CheckpointManifest.read(run, step).problem(run.checkpoints) is None
    assert run.checkpoint_steps() in ([[4, 3, 1]] if done else [[3, 2, 1], [4, 3, 2, 1], [4, 3, 1]])
    if done:
        names = [path.name for path in run.checkpoints.rglob("*") if path.is_file()]
        assert len(names) == 3 * 3, names
        assert restored(folder) == 4


def add_score(folder: Path) -> None:
    store_of(folder)[0].add_score(2, 0.9, 0.9)


def check_score(folder: Path, *, done: bool) -> None:
    run = RunDirectory(folder / "run")
    found = {step: CheckpointManifest.read(run, step) for step in run.checkpoint_steps()}
    assert all(manifest.problem(run.checkpoints) is None for manifest in found.values())
    assert set(found) == {3, 2} if done else {3, 2} <= set(found) <= {3, 2, 1}
    assert found[2].score in ([0.9] if done else [0.9, None])


def write_events(folder: Path) -> None:
    file = EventFile(folder / "events")
    for step in range(3):
        file.add(Event(step=step, summary=scalar_pb("loss", step)))
    file.close()


def check_events(folder: Path, *, done: bool) -> None:
    """Readers go on from a file that is cut to the next one."""
    files = sorted((folder / "events").iterdir()) if (folder / "events").exists() else []
    contents = [file.read_bytes() for file in files]
    assert all(scan_tfrecords(content).problem is None for content in contents)
    if done:
        assert scan_tfrecords(contents[-1]).whole == len(contents[-1]) > 100


def events_in_a_store(folder: Path) -> None:
    write_events(folder / "store" / "tensorboard")
    profile = folder / "store" / "tensorboard" / "plugins" / "profile.pb"
    profile.parent.mkdir()
    profile.write_bytes(b"profile" * 100)


def mirror(folder: Path) -> None:
    EventMirror(FolderStore(folder / "store"), folder / "mirror").update()


def check_mirror(folder: Path, *, done: bool) -> None:
    original = folder / "store" / "tensorboard"
    for path in original.rglob("*"):
        copy = folder / "mirror" / path.relative_to(original)
        if path.is_file() and (done or copy.exists()):
            found = copy.read_bytes()
            assert path.read_bytes()[: len(found)] == found
            assert len(found) == path.stat().st_size or (not done and "tfevents" in path.name)


def network(images: np.ndarray) -> np.ndarray:
    return np.sin(images[..., :1].astype(np.float32) * np.arange(1, 6, dtype=np.float32))


def pictures(folder: Path) -> None:
    PIL.Image.fromarray(PIXELS).save(folder / "a.png")
    write_raster(folder / "b.tif", PIXELS)


def predict(folder: Path) -> None:
    files = [folder / "a.png", folder / "b.tif"]
    predictor = Predictor(network, Size.of(16), 5)
    for _, problem in predict_files(predictor, LEGEND, files, folder / "out", with_probabilities=True):
        assert problem is None


def check_predictions(folder: Path, *, done: bool) -> None:
    out = folder / "out"
    for name in ("a.png", "a_overlay.png", "b.tif", "b_overlay.png"):
        if done or (out / name).exists():
            with PIL.Image.open(out / name) as image:
                image.load()
    for name in ("a.npy", "b.npy"):
        if done or (out / name).exists():
            assert np.load(out / name).shape == (20, 16, 5)
    if done:
        assert all(is_done(folder / name, out, with_probabilities=True) for name in ("a.png", "b.tif"))
        assert len([*out.iterdir()]) == 6  # and nothing that a kill has left


EXPORTED = ("classes.json", "net.h5", "net.keras", "saved_model/graph.pb", "saved_model/variables/v")


def export(text: str, folder: Path) -> None:
    with _staged(folder / "export") as staging:
        for name in EXPORTED:
            (staging.path / name).parent.mkdir(parents=True, exist_ok=True)
            (staging.path / name).write_text(text)


def check_export(folder: Path, *, done: bool) -> None:
    out = folder / "export"
    found = {name: FileDigest.of(out / name) if (out / name).is_file() else None for name in EXPORTED}
    manifest = ExportManifest.read(out)
    assert manifest is not None
    texts = [(out / name).read_text() if found[name] else None for name in EXPORTED]
    if done or manifest.problem(found) is None:  # who uses an export compares it with its manifest
        assert texts in ([["new"] * 5] if done else [["old"] * 5, ["new"] * 5])
        assert manifest.problem(found) is None
        assert [path.name for path in folder.iterdir()] == ["export"]


def compare(text: str, folder: Path) -> None:
    write_atomically(folder / "compare.md", text.encode())
    _write_tensorboard(folder / "tensorboard", text, b"picture" * 9)


def check_comparison(folder: Path, *, done: bool) -> None:
    assert (folder / "compare.md").read_text() in (["new"] if done else ["old", "new"])
    contents = [path.read_bytes() for path in (folder / "tensorboard").iterdir()]
    assert any(b"old" in content or b"new" in content for content in contents)
    if done:
        assert len(contents) == 1
        assert b"new" in contents[0]
        assert scan_tfrecords(contents[0]).whole == len(contents[0])


@dataclass(frozen=True)
class Writing:
    """What is there before, what is done, and a check of what is there after it, ``done`` or interrupted."""

    prepare: Callable[[Path], object]
    act: Callable[[Path], object]
    check: Callable[..., None]


WRITINGS = {
    "a checkpoint": Writing(some_checkpoints, partial(save, 4), check_checkpoints),
    "a score": Writing(some_checkpoints, add_score, check_score),
    "an event file": Writing(lambda folder: None, write_events, check_events),
    "a mirror of event files": Writing(events_in_a_store, mirror, check_mirror),
    "predictions": Writing(pictures, predict, check_predictions),
    "an export": Writing(partial(export, "old"), partial(export, "new"), check_export),
    "a comparison": Writing(partial(compare, "old"), partial(compare, "new"), check_comparison),
}


@pytest.fixture(params=WRITINGS)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(rasters, "LARGE", 0)  # so that the TIFF is written a part at a time
    return str(request.param)


def copies(prepared: Path) -> Callable[[], Path]:
    """Each call gives what was prepared, in a folder of its own."""
    numbers = iter(range(10_000))

    def copy() -> Path:
        return Path(shutil.copytree(prepared, prepared.with_name(f"{next(numbers)}")))

    return copy


def changes_of(writing: Writing, folder: Path) -> int:
    with full_from(10_000, 1, 0, below=folder) as disk:
        writing.act(folder)
    writing.check(folder, done=True)
    return disk.changes


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_disk_may_be_full_at_any_write(name: str, share: float, tmp_path: Path) -> None:
    writing = WRITINGS[name]
    (tmp_path / "prepared").mkdir()
    writing.prepare(tmp_path / "prepared")
    copy = copies(tmp_path / "prepared")
    changes = changes_of(writing, copy())
    assert changes > 2
    for number in range(1, changes + 1):
        folder = copy()
        with full_from(number, 10_000, share, below=folder):
            try:
                writing.act(folder)
                told = False
            except (OSError, MaskfleetError) as error:
                told = "space" in str(error)
        writing.check(folder, done=not told)
        writing.act(folder)
        writing.check(folder, done=True)


CLEAN = multiprocessing.get_context("forkserver")  # a process in which TensorFlow has begun must not be forked
CLEAN.set_forkserver_preload([__name__])


def act_until_killed(name: str, number: int, share: float, folder: Path) -> None:
    rasters.LARGE = 0
    if not killed_at(number, share, partial(WRITINGS[name].act, folder), below=folder):
        raise SystemExit("it was not killed")


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_kill_may_come_at_any_write(name: str, share: float, tmp_path: Path) -> None:
    writing = WRITINGS[name]
    (tmp_path / "prepared").mkdir()
    writing.prepare(tmp_path / "prepared")
    copy = copies(tmp_path / "prepared")
    folders = {number: copy() for number in range(1, changes_of(writing, copy()) + 1)}
    for number, folder in folders.items():
        process = CLEAN.Process(target=act_until_killed, args=(name, number, share, folder))
        process.start()
        process.join(60)
        assert process.exitcode == 0, (name, number)
        writing.check(folder, done=False)
        writing.act(folder)
        writing.check(folder, done=True)
