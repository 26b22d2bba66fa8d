"""constraints.txt pins exactly what setup.cfg asks for."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[2]


def lines() -> list[str]:
    return [line for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]


def asked() -> list[Requirement]:
    """What setup.cfg names, of itself and in every extra."""
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    lists = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    return [Requirement(line) for each in lists for line in each.split("\n") if line.strip()]


@pytest.mark.parametrize("line", lines())
def test_a_line_is_one_package_and_its_exact_version(line: str) -> None:
    pinned = Requirement(line)  # which no option and no address of an index is
    assert pinned.url is None
    assert [(each.operator, each.version.endswith("*")) for each in pinned.specifier] == [("==", False)]


@pytest.mark.parametrize("requirement", asked(), ids=str)
def test_every_requirement_has_a_version_that_suits_it(requirement: Requirement) -> None:
    pins = [
        pin for pin in map(Requirement, lines()) if canonicalize_name(pin.name) == canonicalize_name(requirement.name)
    ]
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    assert len(here) == 1, "make constraints renews them"
    (version,) = here[0].specifier
    assert requirement.specifier.contains(version.version), "make constraints renews them"
