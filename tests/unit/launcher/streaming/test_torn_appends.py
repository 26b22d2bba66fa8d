"""An append to a folder is whole or undone, wherever it is cut, and streaming goes on from there."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.streaming.stores.folder import FolderStore
from launcher.streaming.stores.store import StoreUnavailable
from launcher.streaming.upload.streamer import Streamer
from maskfleet.errors import DONE
from maskfleet.files import FileDigest
from tests.helpers.sample_run import EVENTS, SampleRun


@contextmanager
def full_beyond(size: int) -> Iterator[None]:
    """No file of this process grows beyond ``size`` bytes, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def digest(content: bytes) -> FileDigest:
    import io

    return FileDigest.read(io.BytesIO(content))


@given(before=st.binary(min_size=1, max_size=200), content=st.binary(min_size=1, max_size=300), data=st.data())
@settings(deadline=None, max_examples=50)
def test_an_append_for_which_there_is_no_room_changes_nothing(
    before: bytes, content: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = FolderStore(tmp_path_factory.mktemp("store"))
    made = store.append("f", before, digest(before), None)
    room = data.draw(st.integers(0, len(content) - 1))
    with full_beyond(len(before) + room), pytest.raises(StoreUnavailable):
        store.append("f", content, digest(before + content), made)
    assert (store.path / "f").read_bytes() == before
    store.append("f", content, digest(before + content), made)  # the version is the one before
    assert (store.path / "f").read_bytes() == before + content


@pytest.mark.parametrize("cut", [1, 7, 12, 13, 100])
def test_streaming_goes_on_after_a_kill_in_the_middle_of_an_append(tmp_path: Path, cut: int) -> None:
    sample = SampleRun(tmp_path / "run")
    sample.log_events(3)
    destination = tmp_path / "destination"
    assert Streamer(sample.run, FolderStore(destination)).run(once=True) == DONE
    sample.log_events(3)
    # A real process that is killed when a part of the new records is written.
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom launcher.streaming.stores import folder\n"
        "from launcher.streaming.upload.streamer import Streamer\nfrom maskfleet.run_directory import RunDirectory\n"
        "from maskfleet.plain_files import PlainFiles\n"
        f"target = {EVENTS!r}\nopen_ = PlainFiles.open_to_append\n"
        "def opened(files, name):\n"
        "    file = open_(files, name)\n"
        "    if name == target:\n"
        "        class Cut:\n"
        "            def __enter__(self): return self\n"
        "            def __exit__(self, *_): file.close()\n"
        f"            def write(self, content): file.write(content[:{cut}]); os.kill(os.getpid(), 9)\n"
        "        return Cut()\n"
        "    return file\n"
        "PlainFiles.open_to_append = opened\n"
        "Streamer(RunDirectory(Path(sys.argv[1])), folder.FolderStore(Path(sys.argv[2]))).run(once=True)\n"
    )
    command = [sys.executable, "-c", program, str(sample.run.path), str(destination)]
    assert subprocess.run(command, env=dict(os.environ), timeout=60, check=False).returncode == -9
    whole = (sample.run.path / EVENTS).read_bytes()
    torn = (destination / EVENTS).read_bytes()
    assert whole.startswith(torn)
    assert len(torn) < len(whole)
    assert Streamer(sample.run, FolderStore(destination)).run(once=True) == DONE
    assert (destination / EVENTS).read_bytes() == whole
