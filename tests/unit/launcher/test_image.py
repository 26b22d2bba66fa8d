"""Which builder of images is taken, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import image
from maskfleet.errors import BadInput


def tools(folder: Path, **codes: int) -> None:
    """Programs that note how they are called and exit with their code when they are asked for ``info``."""
    for name, code in codes.items():
        program = folder / name
        program.write_text(f'#!/bin/sh\n[ "$1" = info ] && exit {code}\necho {name} "$@" >> {folder}/calls\n')
        program.chmod(0o755)


def test_a_docker_without_its_daemon_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools(tmp_path, docker=1, buildah=0)
    monkeypatch.setenv("PATH", str(tmp_path))
    image.build("cpu", "team/trainer:1", None, push=True)
    build, push = (tmp_path / "calls").read_text().splitlines()
    assert build.startswith("buildah build --file")
    assert "--target cpu --tag team/trainer:1" in build
    assert push == "buildah push team/trainer:1"


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ({}, "no builder of images found: expected one of docker, podman, buildah on the PATH"),
        ({"podman": 1}, "no builder of images that works: 'podman info' says why; expected its daemon to run"),
    ],
)
def test_without_a_builder(
    codes: dict[str, int], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools(tmp_path, **codes)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput) as refused:
        image.build("cpu", "team/trainer:1", None, push=False)
    assert str(refused.value) == message
