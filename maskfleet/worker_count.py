"""How many workers a job has: ``8``, or ``2..8`` where fewer train for as long as no more find room."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from maskfleet.config import MOST

_FORM = re.compile(r"(\d{1,10})(?:\.\.(\d{1,10}))?", re.ASCII)


@dataclass(frozen=True)
class WorkerCount:
    """At least ``least`` workers, and ``most`` where there is room for them."""

    least: int
    most: int

    @classmethod
    def parse(cls, text: object) -> Self:
        """``8``, ``"8"`` or ``"2..8"``.

        Raises:
            ValueError: it is neither, or not within 1 to :data:`~maskfleet.config.MOST`.
        """
        match = _FORM.fullmatch(str(text).strip())
        if match is None:
            raise ValueError("expected a number such as 8, or a range such as 2..8")
        least = int(match[1])
        most = int(match[2] or least)
        if not 1 <= least <= most <= MOST:
            form = ", the smaller first, as in 2..8" if match[2] else ""
            raise ValueError(f"expected {'numbers' if match[2] else 'a number'} from 1 to {MOST}{form}")
        return cls(least, most)

    @property
    def is_range(self) -> bool:
        return self.least < self.most

    @property
    def written(self) -> int | str:
        """As settings have it."""
        return str(self) if self.is_range else self.most

    def __str__(self) -> str:
        return f"{self.least}..{self.most}" if self.is_range else str(self.most)
