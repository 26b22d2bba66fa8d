"""Training stops after so many validations that are not better than the best."""

import math

import pytest

from trainer.training.early_stopping import Progress


@pytest.mark.parametrize(
    ("values", "patience", "stops_after"),
    [
        ([0.1, 0.2, 0.15, 0.2], 2, 4),  # as good as the best is not better
        ([0.1, 0.05, 0.2, 0.1, 0.1, 0.1], 3, 6),
        ([0.1, math.nan, math.nan], 2, 3),
        ([0.3, 0.2, 0.1], 0, None),
        ([0.1, 0.2, 0.3], 1, None),
        ([math.nan, 0.1, 0.2], 2, None),
    ],
)
def test_it_stops_when_patience_is_exhausted(values: list[float], patience: int, stops_after: int | None) -> None:
    progress = Progress()
    for number, value in enumerate(values, start=1):
        progress = progress.after(value)
        assert progress.is_exhausted(patience) == (number == stops_after)
