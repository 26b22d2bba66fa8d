"""What somebody has who installs the wheel: the commands and the examples, in an environment without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.fakes.http import Answer, HttpFake, Request
from tests.helpers.processes import SETTINGS

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "examples"
OUTSIDE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
"""The variables of those who do not have the checkout."""


class Environment:
    """A virtual environment; its commands run in a folder of their own, and find nothing of the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)

    @property
    def packages(self) -> Path:
        """Where its packages are."""
        return Path(sysconfig.get_path("purelib", vars={"base": str(self.folder)}))

    def install(self, *arguments: str) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.folder / "bin" / "python"), "install"]
        options = ["--quiet", "--no-compile", "--constraint", str(CHECKOUT / "constraints.txt")]
        subprocess.run([*pip, *options, *arguments], env=OUTSIDE, check=True)

    def __call__(self, command: str, *arguments: str, **variables: str) -> str:
        """Runs one of its commands and returns what it printed.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run(
            [str(self.folder / "bin" / command), *arguments],
            cwd=self.folder, env=OUTSIDE | variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command} {arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of the source archive, as it is done for a release."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(out), str(CHECKOUT)], cwd=out, env=OUTSIDE, check=True
    )
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel, beside the packages of the environment that runs the tests: TensorFlow is not installed once more.

    Of that environment's path files Python reads none, so its editable installation of the checkout does not count.
    """
    environment = Environment(tmp_path_factory.mktemp("installed") / "venv")
    environment.install("--no-deps", str(wheel))
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (environment.packages / "others.pth").write_text("\n".join(others) + "\n")
    return environment


@pytest.fixture(scope="module")
def run(installed: Environment) -> Path:
    """A run by the installed launcher."""
    path = installed.folder.parent / "run"
    installed("launcher", "run", f"--run-dir={path}", "--", *SETTINGS, "--export")
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    shades = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    Image.fromarray(shades).resize((70, 50)).save(path)
    return path


@pytest.mark.parametrize("package", ["maskfleet", "trainer", "launcher"])
def test_what_is_imported_is_the_wheel_s_and_has_its_types(package: str, installed: Environment) -> None:
    file = Path(installed("python", "-c", f"import {package}; print({package}.__file__)").strip())
    assert file == installed.packages / package / "__init__.py"
    assert (file.parent / "py.typed").is_file()


def test_a_run_gives_what_a_run_gives(run: Path) -> None:
    progress = json.loads((run / "progress.json").read_text())
    assert (progress["state"], progress["step"]) == ("done", 40)
    assert (run / "report.html").is_file()


def test_the_example_predicts_what_the_trainer_predicts(
    installed: Environment, run: Path, photo: Path, tmp_path: Path
) -> None:
    printed = installed("python", str(EXAMPLES / "predict.py"), str(run), str(tmp_path / "by-example"), str(photo))
    installed("trainer", "predict", str(run), str(photo), f"--out={tmp_path / 'by-trainer'}")
    masks = [np.asarray(Image.open(tmp_path / folder / "photo.png")) for folder in ("by-example", "by-trainer")]
    assert [mask.shape for mask in masks] == [(50, 70)] * 2
    assert np.mean(masks[0] == masks[1]) > 0.99
    name, *shares = printed.strip().split("  ")
    assert name == "photo.png"
    classes = json.loads((run / "export" / "classes.json").read_text())["classes"]
    expected = np.bincount(masks[0].ravel(), minlength=len(classes)) / masks[0].size
    assert shares == [f"{label} {share:.1%}" for label, share in zip(classes, expected, strict=True)]


def test_the_launcher_renders_the_example_s_job_with_no_more_than_its_own_dependencies(
    wheel: Path, tmp_path: Path
) -> None:
    environment = Environment(tmp_path / "venv")
    environment.install(str(wheel))
    rendered = list(yaml.safe_load_all(environment("launcher", "render", "-f", str(EXAMPLES / "job.yaml"))))
    assert not (environment.packages / "tensorflow").exists()
    job, config = ({each["kind"]: each for each in rendered}[kind] for kind in ("Job", "ConfigMap"))
    asked = yaml.safe_load((EXAMPLES / "job.yaml").read_text())
    assert (job["metadata"]["name"], job["spec"]["completions"]) == (asked["name"], asked["workers"])
    settings = json.loads(config["data"]["config.json"])["settings"]
    assert settings.items() >= asked["training"].items()


class ApiServer(HttpFake):
    """Keeps what is created, and lets a job that is released succeed at once."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", 0)
        self.objects: dict[str, dict[str, Any]] = {}

    def perform(self, request: Request, *, whole: bool) -> Answer:
        sent = json.loads(request.body) if request.body else {}
        if request.method == "POST":
            made = {**sent, "metadata": {**sent["metadata"], "uid": "1", "creationTimestamp": "2026-11-23T10:00:00Z"}}
            self.objects[f"{request.path}/{sent['metadata']['name']}"] = made
            return Answer.of(made, 201)
        if request.method == "PATCH":
            job = self.objects[request.path]
            job["spec"] |= sent["spec"]
            done = {"type": "Complete", "status": "True"}
            job["status"] = {"conditions": [done], "completedIndexes": f"0-{job['spec']['completions'] - 1}"}
        if request.path in self.objects:
            return Answer.of(self.objects[request.path])
        found = [value for path, value in self.objects.items() if path.startswith(f"{request.path}/")]
        return Answer.of({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": found})


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        yield running


def test_the_example_submits_a_job_and_waits_for_its_end(
    installed: Environment, server: ApiServer, tmp_path: Path
) -> None:
    context = {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "team"}}
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here", "contexts": [context],
        "clusters": [{"name": "here", "cluster": {"server": server.url}}], "users": [{"name": "me", "user": {}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    arguments = (str(EXAMPLES / "submit.py"), str(EXAMPLES / "job.yaml"), "mine")
    printed = installed("python", *arguments, KUBECONFIG=str(tmp_path / "kubeconfig"))
    assert printed.splitlines()[-1] == "mine: Succeeded  all workers are done"
    job = server.objects["/apis/batch/v1/namespaces/team/jobs/mine"]
    assert (job["spec"]["suspend"], job["spec"]["completions"]) == (False, 2)
