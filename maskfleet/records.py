"""The files of a run that others read back: each has one reader and one writer, here."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from maskfleet.run_directory import RunDirectory


def read_metrics(run: RunDirectory) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without one that a kill has cut short."""
    if not run.metrics.exists():
        return []
    lines = run.metrics.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def progress_of(run: RunDirectory) -> dict:
    """The content of progress.json; empty before the first step."""
    with contextlib.suppress(OSError, json.JSONDecodeError):
        content = json.loads(run.progress.read_text())
        if isinstance(content, dict):
            return content
    return {}
