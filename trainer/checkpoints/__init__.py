"""Checkpoints of a run on its disk: written, verified, restored, read."""
