"""What TensorBoard's HParams dashboard makes of runs: asked of the dashboard's own code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from maskfleet.config import TrainConfig
from maskfleet.records import FinalScores, Resolved, RunRecord
from maskfleet.run_directory import RunDirectory
from tests.unit.trainer.training.test_summaries import summaries
from trainer.objective.metrics import Scores
from trainer.training.summaries import facts_of

CLASSES = ("class 0", "class 1")


def finished(path: Path, learning_rate: float, right: int) -> None:
    """A run that has ended with ``right`` of ten pixels of its second class."""
    run = RunDirectory(path)
    settings = TrainConfig(learning_rate=learning_rate).model_dump(mode="json")
    path.mkdir()
    RunRecord(settings, Resolved(global_batch=8), started=1.0).write(run)
    scores = Scores(np.array([[10, 0], [10 - right, right]]), CLASSES)
    for _ in range(2):  # a run that goes on after its end tells it once more
        told = summaries(run)
        told.final(FinalScores("test", 2, None, 20, 4, 0.5, **facts_of(scores)))
        told.end("done")


def groups_of(logdir: Path) -> list[api_pb2.SessionGroup]:
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    backend = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(logdir))))
    request = api_pb2.ListSessionGroupsRequest(allowed_statuses=[api_pb2.STATUS_SUCCESS], slice_size=10)
    return list(list_session_groups.Handler(context.RequestContext(), backend, "", request).run().session_groups)


def test_the_dashboard_compares_runs_by_settings_and_final_scores(tmp_path: Path) -> None:
    finished(tmp_path / "a", 0.001, 4)
    finished(tmp_path / "b", 0.002, 8)
    groups = sorted(groups_of(tmp_path), key=lambda group: group.hparams["learning_rate"].number_value)
    assert [group.hparams["learning_rate"].number_value for group in groups] == [0.001, 0.002]
    assert groups[0].hparams["optimizer"].string_value == "adamw"
    assert groups[0].hparams["global_batch"].number_value == 8
    assert "class_weights" not in groups[0].hparams  # it has no value
    for group, right in zip(groups, (4, 8), strict=True):
        metrics = {value.name.tag: value.value for value in group.metric_values}
        assert metrics["precision/class 1"] == 1
        assert metrics["recall/class 1"] == pytest.approx(right / 10)
        assert metrics["precision/class 0"] == pytest.approx(10 / (20 - right))
        assert {"miou", "loss", "iou/class 0"} <= metrics.keys()
        assert "learning_rate" not in metrics  # a curve is no result
