"""The same copy and return on servers that we did not write, where they are installed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.streaming.download.pull import pull
from launcher.streaming.download.restore import restore
from launcher.streaming.stores.opening import open_store
from launcher.streaming.stores.s3_uploads import UnfinishedUploads
from launcher.streaming.upload.streamer import Streamer
from maskfleet.errors import DONE
from maskfleet.run_directory import RunDirectory
from tests.helpers.sample_run import SampleRun


@pytest.mark.parametrize("server", ["moto", "versitygw", "fake_gcs_server"])
def test_a_run_is_copied_in_three_goes_and_comes_back(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    destination = request.getfixturevalue(server)
    sample = SampleRun(tmp_path / "run")
    sample.everything()
    for step, size in ((30, 1_000_000), (40, 10_000_000), (50, 40_000_000)):  # in one request and in several
        assert Streamer(sample.run, open_store(destination), keep_checkpoints=1).run(once=True) == DONE
        sample.log_events(100, size=10_000)
        sample.log_lines()
        sample.validate(step)
        sample.checkpoint(step, size=size)
    assert Streamer(sample.run, open_store(destination), keep_checkpoints=1).run(once=True) == DONE
    assert all(each.verified for each in pull(open_store(destination), tmp_path / "pulled"))
    pulled = {
        path.relative_to(tmp_path / "pulled").as_posix(): path.read_bytes()
        for path in (tmp_path / "pulled").rglob("*")
        if path.is_file()
    }
    expected = sample.files()
    assert {name: content for name, content in pulled.items() if name in expected} == {
        name: content for name, content in expected.items() if "checkpoints/" not in name or "00000050" in name
    }
    manifest = restore(open_store(destination), RunDirectory(tmp_path / "back"))
    assert manifest is not None
    assert manifest.step == 50


KILLED = """
import os, obstore, time
from obstore.store import S3Store
bucket = S3Store("bucket", prefix="run", client_options={"allow_http": True})
writer = obstore.open_writer(bucket, "checkpoints/step-00000001.data-00000-of-00001", buffer_size=5 << 20)
for _ in range(4):
    writer.write(os.urandom(5 << 20))
time.sleep(1)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("server", ["moto", "versitygw"])
def test_the_parts_of_a_killed_upload_are_given_up_at_the_next_start(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    destination = request.getfixturevalue(server)
    assert subprocess.run([sys.executable, "-c", KILLED], timeout=60, check=False).returncode == -signal.SIGKILL
    unfinished = UnfinishedUploads("bucket", "run")
    ((key, _),) = unfinished.find("checkpoints/")
    assert key == "run/checkpoints/step-00000001.data-00000-of-00001"
    sample = SampleRun(tmp_path / "run")
    sample.everything()
    assert Streamer(sample.run, open_store(destination)).run(once=True) == DONE
    assert list(unfinished.find("")) == []
