"""--tracker to_file:Tracker: settings and scores into RUN/tracked.jsonl.

With MLflow, ``start`` would be mlflow.start_run(run_name=run.name) and mlflow.log_params(settings), ``scores``
mlflow.log_metrics(values, step) and ``end`` mlflow.end_run("FINISHED" if state == "done" else "FAILED").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Tracker:
    """A JSON object a line."""

    def start(self, run: Path, settings: Mapping[str, Any]) -> None:
        self.file = (run / "tracked.jsonl").open("a", buffering=1)
        self.write(settings=dict(settings))

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        self.write(step=step, **values)

    def end(self, state: str) -> None:
        self.write(state=state)

    def write(self, **line: Any) -> None:
        self.file.write(json.dumps(line) + "\n")
