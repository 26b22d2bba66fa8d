"""The names that are known without importing TensorFlow Datasets, against its own list."""

from __future__ import annotations

import tensorflow_datasets as tfds

from maskfleet.tfds_names import builders


def test_none_that_it_builds_is_refused() -> None:
    assert set(tfds.list_builders(with_community_datasets=False)) <= builders()
