"""A line of the table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What was measured, its value, the value's unit, and what it is compared with."""

    name: str
    value: float
    unit: str
    note: str = ""
