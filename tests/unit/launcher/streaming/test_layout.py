"""Names of objects are those of files, and are found again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.streaming.layout import (
    EXPORT_MANIFEST,
    LOGS,
    MANIFEST,
    OF_A_RUN,
    PROGRESS,
    TENSORBOARD,
    checkpoint_step,
    object_name,
    worker_of_log,
)
from maskfleet.run_directory import RunDirectory

RUN = RunDirectory(Path("/somewhere/run"))
FILES = [
    RUN.config, RUN.progress, RUN.metrics, RUN.events, RUN.goodput, RUN.report, RUN.tensorboard / "train/e",
    RUN.export / "a/b",
]  # fmt: skip


@given(step=st.integers(0, 10**12), worker=st.integers(0, 10**6), above=st.sampled_from(["", "a/", "team/b/"]))
def test_what_run_directory_names_is_found_again(step: int, worker: int, above: str) -> None:
    manifest = object_name(RUN, RUN.checkpoint_manifest(step))
    match = MANIFEST.fullmatch(above + manifest)
    assert match is not None
    assert int(match[1]) == step
    data = object_name(RUN, RUN.checkpoint_prefix(step)) + ".data-00000-of-00001"
    assert checkpoint_step(manifest) == checkpoint_step(data) == step
    assert worker_of_log(object_name(RUN, RUN.worker_log(worker))) == worker


@pytest.mark.parametrize("path", [*FILES, RUN.worker_log(3), RUN.pictures / "p.png", RUN.checkpoint_manifest(7)])
@pytest.mark.parametrize("above", ["", "a", "team/b"])
def test_each_file_of_a_run_tells_the_run_that_it_is_of(path: Path, above: str) -> None:
    match = OF_A_RUN.fullmatch(f"{above}/{object_name(RUN, path)}".lstrip("/"))
    assert match is not None
    assert (match["run"] or "") == above


@pytest.mark.parametrize("name", ["README.md", "config.json.bak", "tensorboard", "my.progress.json.x", "logsworker-1"])
def test_other_files_are_of_no_run(name: str) -> None:
    assert OF_A_RUN.fullmatch(name) is None
    assert checkpoint_step(name) is worker_of_log(name) is None


def test_the_prefixes_are_run_directory_s() -> None:
    assert object_name(RUN, RUN.tensorboard / "x").startswith(TENSORBOARD)
    assert object_name(RUN, RUN.worker_log(0)).startswith(LOGS)
    assert object_name(RUN, RUN.progress) == PROGRESS
    assert Path(EXPORT_MANIFEST).parent == Path(object_name(RUN, RUN.export))
