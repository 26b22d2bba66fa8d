"""Several trained networks as one: the mean of their probabilities."""

from __future__ import annotations
