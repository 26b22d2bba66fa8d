"""A user's own code goes with a job into its pods, and stays with it."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import zipfile
from pathlib import Path

import pytest

from launcher.commands.pod import prepare
from launcher.job import code as job_code
from launcher.job.code import Code
from launcher.job.rendering import render
from launcher.job.training_job import TrainingJob
from launcher.operations.ending import resume
from launcher.operations.submission import submit
from maskfleet.errors import BadInput, BadSettings
from maskfleet.own_code import read_sources
from maskfleet.run_directory import RunDirectory
from tests.fakes.cluster import FakeCluster
from tests.fakes.gcs import FakeGcs

TRAINING = ("--model", "net:build")


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "code" / "heads").mkdir(parents=True)
    (tmp_path / "code" / "net.py").write_text("def build(pixels, classes, config): ...\n")
    (tmp_path / "code" / "heads" / "wide.py").write_text("x = 1\n")
    return tmp_path / "code"


def job(code: Path | None, *flags: str, training: tuple[str, ...] = TRAINING) -> TrainingJob:
    given = ["--name", "pets", *flags, *(("--code", str(code)) if code else ())]
    return TrainingJob.from_sources(None, TrainingJob.parse_flags(given), training)


def code_of(cluster: FakeCluster) -> dict[str, bytes]:
    config_map = cluster.objects["ConfigMap", "pets"]
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(config_map["binaryData"]["code.zip"]))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_small_code_is_in_the_configmap_where_the_trainer_looks(code: Path) -> None:
    cluster = FakeCluster()
    submit(job(code), cluster)
    assert code_of(cluster) == read_sources(code)
    config = json.loads(cluster.objects["ConfigMap", "pets"]["data"]["config.json"])["settings"]
    assert config["code"] == "/etc/maskfleet/code.zip"
    assert config["model"] == "net:build"
    assert len(cluster.requests) == 9
    assert "binaryData" in render(job(code))


def end(cluster: FakeCluster) -> None:
    cluster.objects["Job", "pets"]["status"] = {
        "conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": ""}]
    }


def test_a_resumed_job_keeps_its_code_whatever_the_folder_holds_by_now(code: Path) -> None:
    cluster = FakeCluster()
    submit(job(code), cluster)
    before = code_of(cluster)
    (code / "net.py").write_text("def other(): ...\n")
    end(cluster)
    resume("pets", cluster, training=("--epochs", "9"))
    assert code_of(cluster) == before
    assert json.loads(cluster.objects["ConfigMap", "pets"]["data"]["config.json"])["settings"]["epochs"] == 9


def test_the_same_submit_with_other_code_is_refused(code: Path) -> None:
    cluster = FakeCluster()
    submit(job(code), cluster)
    assert not submit(job(code), cluster).new
    (code / "heads" / "wide.py").write_text("x = 2\n")
    with pytest.raises(BadInput, match=r"a job of this name exists with other code than --code .* holds now"):
        submit(job(code), cluster)


def test_large_code_goes_through_the_bucket_and_is_fetched_by_each_pod(
    code: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (code / "table.py").write_text(f"TABLE = '{random.Random(0).randbytes(4000).hex()}'\n")
    monkeypatch.setattr(job_code, "MOST_IN_CONFIGMAP", 3000)
    with pytest.raises(
        BadSettings, match=r"expected at most 2.9 KiB of packed Python files, .* an --output in a bucket"
    ):
        submit(job(code, "--output", "pvc:claim"), FakeCluster())
    with FakeGcs() as bucket:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        cluster = FakeCluster()
        asked = job(code, "--output", "gs://bucket/runs")
        for _ in range(2):  # the second finds it there
            submit(asked, cluster)
        packed = Code.of(asked)
        assert packed is not None
        assert "binaryData" not in cluster.objects["ConfigMap", "pets"]
        pod = cluster.objects["Job", "pets"]["spec"]["template"]["spec"]
        arguments = pod["initContainers"][0]["args"]
        address = f"gs://bucket/runs/pets/code/{packed.fingerprint}.zip"
        assert arguments[3:5] == ["--code", address]
        config = json.loads(cluster.objects["ConfigMap", "pets"]["data"]["config.json"])["settings"]
        assert config["code"] == "/run/maskfleet/pets/.code.zip"
        run = RunDirectory(tmp_path / "run")
        prepare.main([str(run.path), "--code", address], standalone_mode=False)
        assert read_sources(run.fetched_code) == read_sources(code)
        (code / "net.py").unlink()  # of another machine there is no folder at all
        end(cluster)
        resume("pets", cluster)
        assert cluster.objects["Job", "pets"]["spec"]["template"]["spec"]["initContainers"][0]["args"] == arguments
        with pytest.raises(BadInput, match="there is nothing: expected what 'launcher submit --code' has put there"):
            prepare.main([str(run.path), "--code", "gs://bucket/runs/pets/code/x.zip"], standalone_mode=False)


@pytest.mark.parametrize(
    ("flags", "training", "message"),
    [
        ((), ("--model", "net:bild"), "--model net:bild: {}/net.py: expected a function bild, found build"),
        (
            (),
            ("--loss", "dice+loss:loss"),
            "--loss loss:loss: expected loss.py in --code {}, found heads/",
        ),
        ((), (*TRAINING, "--code", "{}"), "--code {}: after -- it would be a folder of the image; write it before --"),
        ((), (*TRAINING, "--code", "code"), "--code code: after -- it would be a folder of the image"),
    ],
)
def test_what_the_code_lacks_is_told_before_anything_is_sent(
    flags: tuple[str, ...], training: tuple[str, ...], message: str, code: Path
) -> None:
    cluster = FakeCluster()
    with pytest.raises(BadSettings, match=re.escape(message.format(code))):
        submit(job(code, *flags, training=tuple(each.format(code) for each in training)), cluster)
    assert cluster.requests == []


def test_code_of_the_image_is_named_by_its_path_there() -> None:
    assert str(job(None, training=(*TRAINING, "--code", "/opt/team")).training.code) == "/opt/team"
