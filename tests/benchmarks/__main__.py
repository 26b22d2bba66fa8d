"""``python -m tests.benchmarks [NAME …]``: one table of ratios, each measured in turns within one run.

The machine may be noisy: what counts is the ratio of medians, never a time by itself.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
import time

import pytest
from rich.console import Console
from rich.table import Table

BENCHMARKS = (
    "training_speed",
    "against_pytorch",
    "around_training",
    "prediction",
    "start",
    "time_to_quality",
    "fine_tuning",
    "street",
    "networks",
    "checkpoints",
    "recovery",
    "pod_recovery",
    "scaling",
    "estimate",
    "memory",
    "step_memory",
    "opening",
    "decoding",
    "raster_memory",
    "streaming",
    "packed",
)
"""Modules beside this one; each has ``rows() -> Iterable[Row]``."""


def main(names: list[str]) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"error: no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    table = Table(title=f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} CPUs")
    for column in ("benchmark", "value", "unit", "note"):
        table.add_column(column, overflow="fold")
    for name in names or BENCHMARKS:
        try:
            for row in importlib.import_module(f"tests.benchmarks.{name}").rows():
                table.add_row(row.name, f"{row.value:.3g}", row.unit, row.note)
        except pytest.skip.Exception as missing:
            table.add_row(name, "not run", "", str(missing))
    Console(width=150).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
