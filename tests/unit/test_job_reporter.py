"""What the run directory's progress and events look like on the Job."""

from __future__ import annotations

import pytest

from launcher.job_reporter import kubernetes_event, progress_sentence

PROGRESS = {
    "epoch": 3, "epochs": 20, "step": 57, "steps": 380, "images_per_second": 41.23, "loss": 0.5123, "miou": 0.613,
    "eta_seconds": 725.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        ({}, "epoch 3 of 20, step 57 of 380, 41.2 images/s, loss 0.512, mIoU 0.613, 12m5s left"),
        ({"miou": None, "eta_seconds": None}, "epoch 3 of 20, step 57 of 380, 41.2 images/s, loss 0.512"),
        ({"miou": None, "eta_seconds": None, "loss": None, "images_per_second": None}, "epoch 3 of 20, step 57 of 380"),
    ],
)
def test_progress_is_a_sentence_of_what_is_known(known: dict[str, None], sentence: str) -> None:
    assert progress_sentence({**PROGRESS, **known}) == sentence


def test_a_restart_is_a_warning_on_the_job_with_its_time_and_reason() -> None:
    line = {"time": 1795428000.5, "kind": "restart", "message": "attempt 1 ended: worker 1 left"}
    event = kubernetes_event(line, "team", "pets", "0-1")
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "TrainingRestarted", line["message"])
    assert event["involvedObject"]["uid"] == "0-1"
    assert event["firstTimestamp"] == "2026-11-23T10:00:00Z"
