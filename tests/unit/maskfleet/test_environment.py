"""The variables stand in one file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from maskfleet import environment

ROOT = Path(environment.__file__).parents[1]
KNOWN = {value for name, value in vars(environment).items() if name.endswith("_VARIABLE")}
NAME = re.compile(r"\bMASKFLEET_[A-Z_]+[A-Z]\b")


@pytest.mark.parametrize("folder", ["maskfleet", "trainer", "launcher"])
def test_the_code_names_a_variable_by_its_constant(folder: str) -> None:
    quoted = re.compile(r"""["']MASKFLEET_[A-Z_]+["']""")
    files = [path for path in (ROOT / folder).rglob("*.py") if path != Path(environment.__file__)]
    assert len(files) > 10
    assert [str(path) for path in files if quoted.search(path.read_text())] == []


def test_manifests_and_images_set_none_that_is_not_known() -> None:
    files = [*(ROOT / "k8s").rglob("*.yaml"), ROOT / "docker" / "Dockerfile"]
    named = {name for path in files for name in NAME.findall(path.read_text())}
    assert {environment.PEERS_VARIABLE, environment.ENCODER_WEIGHTS_VARIABLE} <= named <= KNOWN


def test_each_has_a_name_of_its_own() -> None:
    assert len(KNOWN) == len([name for name in vars(environment) if name.endswith("_VARIABLE")])


@pytest.mark.parametrize(("value", "on"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)])
def test_debugging_is_asked_for(value: str | None, on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASKFLEET_DEBUG", raising=False)
    if value is not None:
        monkeypatch.setenv("MASKFLEET_DEBUG", value)
    assert environment.is_debugging() == on
