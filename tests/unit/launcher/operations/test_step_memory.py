"""Whether a step fits the card, said before."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from launcher.job.training_job import TrainingJob
from launcher.operations import step_memory as looked_at
from launcher.operations.preflight import preflight
from launcher.operations.step_memory import may_be_too_much, step_memory
from launcher.operations.submission import submit
from maskfleet.config import TrainConfig
from maskfleet.gpu_memory import StepMemory
from tests.fakes.cluster import FakeCluster
from tests.unit.launcher.diagnosis.test_gpus import GKE, Allowing, node

T4, H200 = "nvidia-tesla-t4", "nvidia-h200-141gb"
GIB = 1 << 30


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is busy."""
    monkeypatch.setattr(looked_at, "_SECONDS", 600)


def job(**settings: Any) -> TrainingJob:
    random = {"encoder_weights": "none", "upsampling": "nearest"}
    return TrainingJob(name="pets", gpus_per_worker=1, training=TrainConfig(**{**random, **settings}))


LARGE = job(image_size=1024, batch_per_replica=32)


@pytest.mark.parametrize(
    ("cards", "result", "said"),
    [
        ([T4], "warning", f"{T4} (16.0 GiB, compute capability 7.5): a step takes "),
        ([T4, H200], "warning", f"{T4} (16.0 GiB, compute capability 7.5): a step takes "),
        ([H200], "ok", "a step takes "),
    ],
)
def test_preflight_names_the_cards_that_are_too_small_and_a_batch_that_fits(
    cards: list[str], result: str, said: str
) -> None:
    cluster = Allowing(FakeCluster(*(node(card, **{GKE: card}) for card in cards)))
    (found,) = [check for check in preflight(LARGE, cluster) if check.what == "GPU memory"]
    assert (found.result, found.detail[: len(said)]) == (result, said)
    assert ("fit, and --batch-per-replica" in found.detail) == (result != "ok")


def test_submit_warns_only_of_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node(T4, **{GKE: T4})]
    assert any(
        note.startswith(f"{T4} (16.0 GiB") and "fit" in note for note in submit(LARGE, FakeCluster(*nodes)).notes
    )
    monkeypatch.setattr(looked_at.subprocess, "run", None)  # a usual job does not wait for TensorFlow
    assert [note for note in submit(job(), FakeCluster(*nodes)).notes if T4 in note] == [
        f"GPU: {T4} (16.0 GiB, compute capability 7.5) on 1 node"
    ]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"preset": "auto"}, "--preset auto chooses by the data"),
        ({"batch_per_replica": "auto"}, "--batch-per-replica auto takes what fits"),
        ({"xla": True}, "what --xla keeps, its compiler decides"),
        ({"model": "nowhere:network"},
         "the network can't be built here: --model nowhere:network: there is no module nowhere; --code DIR names the "
         "folder that it lies in"),
    ],
)  # fmt: skip
def test_why_it_is_not_known(settings: dict[str, Any], why: str) -> None:
    assert step_memory(job(**settings)) == why


def test_without_tensorflow_it_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = step_memory(LARGE)
    assert "pip install 'maskfleet[trainer]'" in str(found)
    cluster = Allowing(FakeCluster(node(T4, **{GKE: T4})))
    (check,) = [check for check in preflight(LARGE, cluster) if check.what == "GPU memory"]
    assert (check.result, check.detail) == ("unknown", found)


def test_the_examples_of_a_replica_are_those_of_all_workers_and_one_part() -> None:
    settings = {"global_batch": 64, "accumulate": 4, "image_size": 32}
    several = TrainingJob(name="pets", workers="1..2", gpus_per_worker=2, training=job(**settings).training)
    found = step_memory(several)
    assert isinstance(found, StepMemory)
    assert found.batch == 4


def test_own_networks_are_built_from_the_folder_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(
        "from keras import layers\n\n\ndef network(pixels, classes, config):\n"
        "    return layers.Conv2D(classes, 1, dtype='float32')(pixels)\n"
    )
    own = TrainingJob(
        name="pets", gpus_per_worker=1, code=tmp_path, training=job(model="small:network", image_size=64).training
    )
    assert may_be_too_much(own, [GIB * 80])
    assert isinstance(step_memory(own), StepMemory)


@pytest.mark.parametrize(
    ("settings", "memory", "may"),
    [({}, 16, False), ({}, 4, True), ({"decoder_filters": 4096}, 80, True), ({"image_size": 1024}, 80, True)],
)
def test_which_jobs_wait_for_the_dry_run(settings: dict[str, Any], memory: int, may: bool) -> None:
    assert may_be_too_much(job(**settings), [memory * GIB, 200 * GIB]) == may
    assert not may_be_too_much(job(), [])
