"""Which checkpoints stay."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskfleet.checkpoint_manifest import CheckpointManifest, best_step, kept_steps
from maskfleet.files import FileDigest
from maskfleet.run_directory import RunDirectory

SCORE = st.none() | st.just(math.nan) | st.sampled_from([0.1, 0.5, 0.9]) | st.floats(allow_nan=True)


@st.composite
def manifests(draw: st.DrawFn) -> dict[int, CheckpointManifest]:
    steps = draw(st.sets(st.integers(0, 50), max_size=12))
    return {step: CheckpointManifest(step, 0, 0.0, draw(SCORE), {}, draw(SCORE)) for step in steps}


def score_of(manifest: CheckpointManifest) -> float | None:
    score = manifest.miou if manifest.score is None else manifest.score
    return score if score is not None and math.isfinite(score) else None


@given(manifests(), st.integers(1, 5))
def test_the_newest_and_the_best_stay_and_no_other(all_of_them: dict[int, CheckpointManifest], keep: int) -> None:
    kept, newest = kept_steps(all_of_them, keep), set(sorted(all_of_them)[-keep:])
    best = best_step(all_of_them)
    assert kept == newest | ({best} if best is not None else set())


@given(manifests())
def test_the_best_has_no_better_and_is_the_newest_of_equals(all_of_them: dict[int, CheckpointManifest]) -> None:
    judged = {step: score for step, each in all_of_them.items() if (score := score_of(each)) is not None}
    best = best_step(all_of_them)
    assert (best is None) == (not judged)
    if best is not None:
        assert judged[best] == max(judged.values())
        assert best == max(step for step, score in judged.items() if score == judged[best])


@given(manifests(), st.integers(1, 5))
def test_what_stays_stays_when_it_is_asked_again(all_of_them: dict[int, CheckpointManifest], keep: int) -> None:
    kept = kept_steps(all_of_them, keep)
    assert kept_steps({step: all_of_them[step] for step in kept}, keep) == kept


GOOD = CheckpointManifest(
    7, 1, 2.5, 0.5, {"step-00000007.data-00000-of-00001": FileDigest(9, "x"), "step-00000007.index": FileDigest(3, "y")}
)


@pytest.mark.parametrize(("change", "message"), [
    ({"step": 8}, "no checkpoint manifest of step 7: it says step 8"),
    ({"step": -99}, "no checkpoint manifest: step: Input should be greater than or equal to 0"),
    ({"step": "7"}, "step: Input should be a valid integer"),
    ({"step": 7.0}, "step: Input should be a valid integer"),
    ({"epoch": -1}, "epoch: Input should be greater than or equal to 0"),
    ({"training_seconds": float("inf")}, "training_seconds: Input should be a finite number"),
    ({"training_seconds": float("nan")}, "training_seconds: Input should be a finite number"),
    ({"training_seconds": 1e300}, "training_seconds: Input should be less than"),
    ({"miou": "good"}, "miou: Input should be a valid number"),
    ({"miou": 2.0}, "miou: Input should be between 0 and 1"),
    ({"miou": -math.inf}, "miou: Input should be between 0 and 1"),
    ({"score": [1]}, "score: Input should be a valid number"),
    ({"files": {"step-00000007.index": FileDigest("3", "y")}}, "files.step-00000007.index.size: Input should be"),  # type: ignore[arg-type]
    ({"files": {}}, "expected step-00000007.index and step-00000007.data-… among its files"),
    ({"files": {"step-00000007.index": FileDigest(3, "y")}}, "expected step-00000007.index and"),
    ({"files": {**GOOD.files, "step-00000008.index": FileDigest(3, "y")}}, "'step-00000008.index' is of no checkpoint"),
])  # fmt: skip
def test_a_manifest_is_believed_of_its_own_step_alone(change: dict[str, Any], message: str) -> None:
    content = dataclasses.replace(GOOD, **change).serialize()
    with pytest.raises(ValueError, match=re.escape(message)):
        CheckpointManifest.of_step(content, 7)


@pytest.mark.parametrize("content", [b"", b"[]", b"1e999", b"[" * 99_999, b'{"step": 1e999, "files": {}}', b"\xff"])
def test_what_is_no_manifest_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="no checkpoint manifest"):
        CheckpointManifest.of_step(content, 7)


def test_a_manifest_of_its_step_is_read() -> None:
    assert CheckpointManifest.of_step(GOOD.serialize(), 7) == GOOD


@pytest.mark.parametrize(("manifest", "run", "counts"), [
    ("a", "a", True), ("b", "a", False), ("", "a", False),
    (None, "a", True),  # an older version wrote it
    ("b", None, True),  # nothing says which run this is
])  # fmt: skip
def test_a_manifest_of_another_run_does_not_count(manifest: str | None, run: str | None, counts: bool) -> None:
    content = dataclasses.replace(GOOD, run_id=manifest).serialize()
    if counts:
        assert CheckpointManifest.of_step(content, 7, run).run_id == manifest
    else:
        with pytest.raises(ValueError, match="it is of another run: expected run_id a, found"):
            CheckpointManifest.of_step(content, 7, run)


def test_a_manifest_without_a_run_is_as_older_versions_wrote_it() -> None:
    content = json.loads(GOOD.serialize())
    del content["run_id"]
    assert CheckpointManifest.of_step(json.dumps(content).encode(), 7, "a") == GOOD


def test_a_pipe_in_the_place_of_a_manifest_is_waited_for_by_nobody(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.checkpoint_manifests.mkdir(parents=True)
    os.mkfifo(run.checkpoint_manifest(7))
    with pytest.raises(OSError, match="pipe or device"):
        CheckpointManifest.read(run, 7)
