"""Kubernetes' quantities (``1500m``, ``4Gi``) and durations (``12h``), read and written for people."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from maskfleet.text import SECONDS_OF_UNIT

_SUFFIXES = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip
MOST = 2.0**63
"""Kubernetes counts in 64 bits, and takes what is larger for this without a word."""
_DIGITS = 9
"""Behind the point: Kubernetes counts in billionths. What a float has beyond them is its own."""
_QUANTITY = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+|(?P<suffix>[numkMGTPE]|[KMGTPE]i))?")
_DURATION = re.compile(r"(?:\d+[smhd])+")


def parse_quantity(text: str) -> float:
    """``"1500m"`` -> 1.5, ``"4Gi"`` -> 4294967296.0.

    Raises:
        ValueError: it is no quantity.
    """
    written = str(text).strip()
    match = _QUANTITY.fullmatch(written)
    if not match:
        raise ValueError("expected a Kubernetes quantity such as 2, 500m or 4Gi")
    suffix = match["suffix"] or ""
    return round(float(written.removesuffix(suffix)) * _SUFFIXES[suffix], _DIGITS)


def is_more(amount: float, than: float) -> bool:
    """Whether it is for Kubernetes too, which adds 50m and 10m up to 60m."""
    return round(amount - than, _DIGITS) > 0


def parse_duration(text: Any) -> int:
    """``"90"``, ``"90s"``, ``"1h30m"`` or ``"2d"`` -> seconds.

    Raises:
        ValueError: it is no duration, or not a positive one.
    """
    written = str(text).strip()
    if written.isdigit():
        seconds = int(written)
    elif _DURATION.fullmatch(written):
        seconds = sum(int(number) * SECONDS_OF_UNIT[unit] for number, unit in re.findall(r"(\d+)([smhd])", written))
    else:
        seconds = 0
    if seconds <= 0:
        raise ValueError("expected a time such as 90s, 30m, 12h or 2d")
    return seconds


def _quantity(text: str) -> str:
    amount = parse_quantity(text)
    if amount <= 0:
        raise ValueError("expected more than nothing")
    if amount >= MOST:
        raise ValueError("expected less than 8Ei, the most that Kubernetes counts")
    return text


Quantity = Annotated[str, BeforeValidator(str), AfterValidator(_quantity)]
"""A Kubernetes quantity, as it is written."""
Duration = Annotated[int, BeforeValidator(parse_duration)]
"""Seconds, written as a number or with the units s, m, h, d."""
