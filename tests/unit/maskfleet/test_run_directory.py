"""File names, atomic writing and checkpoint manifests."""

import base64
import json
import os

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskfleet.checkpoint_manifest import CheckpointManifest
from maskfleet.files import FileDigest, stays_inside, write_atomically, write_json
from maskfleet.records import write_settings
from maskfleet.run_directory import RunDirectory

DIGESTS = st.builds(FileDigest, st.integers(0, 2**40), st.text("abcdef=", max_size=8))
MANIFESTS = st.builds(
    CheckpointManifest,
    step=st.integers(0, 10**9),
    epoch=st.integers(0, 1000),
    training_seconds=st.floats(0, 1e6),
    miou=st.none() | st.floats(0, 1),
    files=st.dictionaries(st.text(min_size=1, max_size=10).filter(stays_inside), DIGESTS, max_size=3),
)


@given(MANIFESTS)
def test_a_manifest_survives_the_disk(manifest):
    assert CheckpointManifest.parse(manifest.serialize()) == manifest


@given(st.binary(max_size=50) | MANIFESTS.map(lambda manifest: manifest.serialize()[:-3]))
def test_nothing_else_is_taken_for_a_manifest(content):
    with pytest.raises(ValueError, match="no checkpoint manifest"):
        CheckpointManifest.parse(content)


OUTSIDE = ["/tmp/x", "a//tmp/x", "../x", "a/../../x", "..", ".", "a/./x", "a/", "", "a\0b"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_are_not_those_of_files_below_a_folder_are_refused(name):
    assert not stays_inside(name)
    content = CheckpointManifest(1, 0, 0.0, None, {name: FileDigest(1, "")}).serialize()
    with pytest.raises(ValueError, match="is no file in the folder checkpoints"):
        CheckpointManifest.parse(content)


@pytest.mark.parametrize("name", ["a", "a/b.c", "a/..b", "...", " /-"])
def test_other_names_are_not(name):
    assert stays_inside(name)


def test_a_digest_is_the_file_s_size_and_crc32c(tmp_path):
    content = os.urandom(3 << 20)
    (tmp_path / "file").write_bytes(content)
    crc = base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
    assert FileDigest.of(tmp_path / "file") == FileDigest(len(content), crc)


def test_a_manifest_names_the_file_that_does_not_verify(tmp_path):
    (tmp_path / "step-1.index").write_bytes(b"index")
    manifest = CheckpointManifest(1, 0, 0.0, None, {"step-1.index": FileDigest.of(tmp_path / "step-1.index")})
    assert manifest.problem(tmp_path) is None
    (tmp_path / "step-1.index").write_bytes(b"indeX")
    assert "step-1.index has 5 bytes with crc32c" in manifest.problem(tmp_path)
    (tmp_path / "step-1.index").unlink()
    assert manifest.problem(tmp_path).endswith("step-1.index is missing")


def test_steps_are_listed_newest_first_and_other_files_are_passed_over(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.checkpoint_steps() == []
    run.checkpoint_manifests.mkdir(parents=True)
    for name in ("step-00000009.json", "step-00000010.json", ".step-00000011.json.1.tmp", "notes.txt"):
        (run.checkpoint_manifests / name).touch()
    assert run.checkpoint_steps() == [10, 9]


def test_settings_that_are_refused_are_put_back_unless_something_was_trained_with_them(tmp_path):
    run = RunDirectory(tmp_path)
    write_settings(run, {"epochs": 1})()
    assert json.loads(run.config.read_text()) == {"settings": {"epochs": 1}}, "there was nothing before"
    put_back = write_settings(run, {"epochs": 2})
    write_json(run.config, {"settings": {"epochs": 2}, "versions": {}})
    write_settings(run, {"epochs": 2})()
    assert json.loads(run.config.read_text())["versions"] == {}, "nothing was changed"
    put_back()
    assert json.loads(run.config.read_text()) == {"settings": {"epochs": 1}}
    put_back = write_settings(run, {"epochs": 3})
    write_atomically(run.checkpoint_manifest(9), b"")
    put_back()
    assert json.loads(run.config.read_text()) == {"settings": {"epochs": 3}}


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
