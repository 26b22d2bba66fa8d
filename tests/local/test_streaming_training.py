"""Real training beside the streamer: nothing is lost when the machine with the run directory is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.streaming.download.restore import restore
from launcher.streaming.stores.opening import open_store
from maskfleet.errors import BAD_INPUT
from maskfleet.run_directory import RunDirectory
from tests.fakes.gcs import FakeGcs
from tests.helpers.processes import SETTINGS, LocalRun, inspect, launcher, until
from tests.helpers.sample_run import assert_manifests_verify, copied_files

DESTINATION = "gs://bucket/run"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    with FakeGcs() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


def files(run: RunDirectory) -> dict[str, bytes]:
    """All that belongs into the destination."""
    found = (path for path in run.path.rglob("*") if path.is_file())
    named = {path.relative_to(run.path).as_posix(): path for path in found}
    return {name: path.read_bytes() for name, path in named.items() if not name.startswith(".")}


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_run_goes_on_from_the_bucket_when_its_machine_is_lost(
    tmp_path: Path, fake: FakeGcs, undisturbed_state: str
) -> None:
    path = tmp_path / "lost"
    with LocalRun(path, f"--run-dir={path}", "--workers=2", "--output", DESTINATION, "--", *SETTINGS) as run:
        manifests = "checkpoints/manifests/"
        until(lambda: any(name.startswith(manifests) for name in copied_files(fake)), "a checkpoint in the bucket")
        lost = [*run.descendants(), run.process]
        for process in lost:  # the machine is gone: nobody saves or drains anything
            process.kill()
    shutil.rmtree(path)
    assert_manifests_verify(fake)
    back = RunDirectory(tmp_path / "back")
    manifest = restore(open_store(DESTINATION), back)
    assert manifest is not None
    with LocalRun(back.path, f"--resume={back.path}", "--workers=2", "--output", DESTINATION) as resumed:
        assert resumed.wait() == 0, resumed.output.read_text()
    assert inspect(back)["sha256"] == undisturbed_state
    copied, expected = copied_files(fake), files(back)
    assert {name for name in expected if copied.get(name) != expected[name]} == set()
    assert any("tfevents" in name and name not in expected for name in copied)  # the lost machine's


def test_a_destination_that_refuses_is_told_before_anything_is_trained(tmp_path: Path, fake: FakeGcs) -> None:
    refused = launcher("run", f"--run-dir={tmp_path / 'run'}", "--output=gs://missing/run")
    assert refused.returncode == BAD_INPUT
    assert "error: gs://missing/run: there is no bucket missing; create it first" in refused.stdout
    assert not (tmp_path / "run").exists()


def test_old_checkpoints_are_deleted_in_the_destination_where_that_is_asked_for(tmp_path: Path, fake: FakeGcs) -> None:
    where = (f"--run-dir={tmp_path / 'run'}", "--output", DESTINATION, "--keep-checkpoints=1")
    done = launcher("run", *where, "--", *SETTINGS, "--keep=5", "--checkpoint-steps=10")
    assert done.returncode == 0, done.stdout
    assert len(RunDirectory(tmp_path / "run").checkpoint_steps()) > 1
    kept = [name for name in copied_files(fake) if name.startswith("checkpoints/manifests/")]
    assert kept == ["checkpoints/manifests/step-00000040.json"]  # the newest, which is also the best
    assert_manifests_verify(fake)


@pytest.mark.parametrize("mistake", ["--data=folder:/nowhere", "--class-weights=1,2"])
def test_a_refused_run_leaves_nothing_where_the_corrected_one_shall_go(tmp_path: Path, mistake: str) -> None:
    where = (f"--run-dir={tmp_path / 'run'}", f"--output={tmp_path / 'destination'}", "--", *SETTINGS)
    refused = launcher("run", *where, mistake)
    assert refused.returncode == BAD_INPUT, refused.stdout
    assert not (tmp_path / "run").exists()
    assert not [path for path in (tmp_path / "destination").rglob("*") if path.is_file() and path.name != "lock"]
    assert launcher("run", *where).returncode == 0
    assert (tmp_path / "destination" / "checkpoints" / "manifests" / "step-00000040.json").exists()
