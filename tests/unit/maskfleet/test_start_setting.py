"""What a place to start from is, by its name."""

from __future__ import annotations

import pytest

from maskfleet.start_setting import checkpoint_at


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("runs/pets/checkpoints/step-00000171", ("runs/pets", 171)),
        ("runs/pets/checkpoints/step-00000171.index", ("runs/pets", 171)),
        ("gs://b/pets/checkpoints/manifests/step-00000171.json", ("gs://b/pets", 171)),
        ("checkpoints/step-1", (".", 1)),
        ("runs/step-2", None),
        ("gs://b/runs/step-2", None),
        ("step-1.png", None),
        ("runs/pets", None),
    ],
)
def test_a_checkpoint_is_known_by_the_folder_it_lies_in(place: str, found: tuple[str, int] | None) -> None:
    assert checkpoint_at(place) == found
