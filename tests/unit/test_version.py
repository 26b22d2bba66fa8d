"""The version stands in setup.cfg; what can't read it there agrees with it."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher import TrainingJob

CHECKOUT = Path(__file__).parents[2]
CODE = ("maskfleet", "trainer", "launcher", "k8s", "docker", "examples")
TAGS = {"base/kustomization.yaml": "{}", "overlays/gpu/kustomization.yaml": "{}-gpu"}
"""The files of k8s/ that name the version, and how: kustomize reads it from nowhere else."""


def declared() -> str:
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    return setup["metadata"]["version"]


def test_the_installed_version_is_the_declared_one() -> None:
    assert version("maskfleet") == declared(), "the installation is an older one: make lint installs it anew"


@pytest.mark.parametrize("file", TAGS)
def test_kustomize_sets_the_tag_of_this_version(file: str) -> None:
    images = yaml.safe_load((CHECKOUT / "k8s" / file).read_text())["images"]
    assert images == [{"name": "maskfleet/trainer", "newTag": TAGS[file].format(declared())}]


def test_no_other_file_names_the_version() -> None:
    naming = {
        path.relative_to(CHECKOUT).as_posix()
        for folder in CODE
        for path in (CHECKOUT / folder).rglob("*")
        if path.suffix in (".py", ".yaml") or path.name == "Dockerfile"
        if declared() in path.read_text()
    }
    assert naming == {f"k8s/{file}" for file in TAGS}


def test_the_changelog_has_a_section_for_it() -> None:
    assert f"\n## [{declared()}] - " in (CHECKOUT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("folder", ["base", "overlays/gke", "overlays/gpu", "overlays/kueue", "overlays/local"])
def test_every_container_by_hand_has_the_launcher_s_image(folder: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl on the PATH")
    command = ["kubectl", "kustomize", str(CHECKOUT / "k8s" / folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (job,) = [each for each in yaml.safe_load_all(made) if each["kind"] == "Job"]
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    images = {container["image"] for container in (*pod["initContainers"], *pod["containers"])}
    assert images == {TrainingJob(name="maskfleet", gpus_per_worker=2 if folder.endswith("gpu") else 0).image}
