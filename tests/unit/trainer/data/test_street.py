"""The drawn streets are what their benchmark takes them for, and what is rare in them comes most often."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskfleet.config import TrainConfig
from tests.helpers.street import CLASSES, SIZE, write_street
from trainer.data.opening import open_source
from trainer.data.sampling import Balance
from trainer.data.verify import verify


def test_streets_have_large_surfaces_thin_poles_and_rare_signs(tmp_path: Path) -> None:
    folder = write_street(tmp_path / "street", 14, 2)
    report = verify(TrainConfig(data=f"folder:{folder}"))
    assert report.first_bad is None
    assert (report.train.smallest, report.train.largest) == (SIZE, SIZE)
    shares = {name: count / sum(report.train.pixels.values()) for name, count in report.train.pixels.items()}
    assert min(shares["sky"], shares["road"], shares["building"]) > 0.1
    assert 0 < max(shares["sign"], shares["cyclist"], shares["pedestrian"]) < 0.005
    source = open_source(f"folder:{folder}", None)
    masks = [source.train.read(i).mask for i in range(14)]
    poles = np.concatenate([(mask == CLASSES.index("pole")).sum(axis=1) for mask in masks])
    assert np.median(poles[poles > 0]) < 12, "pixels of a row, of all poles in it"
    balance = Balance.of(masks, len(CLASSES))
    assert balance is not None
    drawn = dict(zip(CLASSES, np.diff(balance.cumulative, prepend=0).tolist(), strict=True))
    assert sum(drawn[name] for name in ("sign", "cyclist", "pedestrian")) > 0.4
    assert drawn["sky"] + drawn["road"] + drawn["building"] < 1e-4


def test_a_seed_draws_the_same_streets(tmp_path: Path) -> None:
    first, again = (write_street(tmp_path / name, 1, 1, seed=3) for name in ("first", "again"))
    for part in ("images", "masks"):
        assert (first / part / "street_0001.png").read_bytes() == (again / part / "street_0001.png").read_bytes()
