"""A run's settings as TensorBoard's HParams dashboard takes them, so that it compares runs by their final scores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.api import hparams_pb
from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
from tensorboard.plugins.hparams.summary import session_end_pb

from maskfleet.records import Resolved, RunRecord

SETTINGS_AND_SCORES = "settings-and-scores"
"""The folder beside those of the curves."""


def session(record: RunRecord, name: str) -> Iterator[Summary]:
    """One row of the dashboard: every setting that has one value, and what came of them.

    Args:
        name: of the run, which with the time of its start keeps runs of the same settings apart.
    """
    found = dict(record.settings) | asdict(record.resolved or Resolved())
    values = {key: value for key, value in found.items() if isinstance(value, bool | int | float | str)}
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started))
    start = hparams_pb(values, trial_id=f"{name}, {started}", start_time_secs=record.started)
    for summary in (start, session_end_pb(STATUS_SUCCESS)):
        yield Summary.FromString(summary.SerializeToString())  # of the same name in TensorFlow
