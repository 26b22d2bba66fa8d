"""A namespace for each test on the cluster of KUBECONFIG, and images of this checkout on it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher import JobStatus, TrainingJob
from launcher.cluster.kubernetes_api import Cluster
from launcher.operations import following as operations
from maskfleet.errors import MaskfleetError, NotFound
from tests.fakes.gcs import FakeGcs

CHECKOUT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MASKFLEET_SHARED", CHECKOUT.parent / "shared"))
NOT_RUN = "not run: needs a Kubernetes cluster; set MASKFLEET_TEST_CLUSTER=1 and KUBECONFIG to one that may be used"
LAUNCHER_IMAGE = "maskfleet/launcher:test"
SCRIPTED_IMAGE = "maskfleet/scripted:test"
TRAINER_IMAGE = "maskfleet/trainer:test"
HOST = os.environ.get("MASKFLEET_TEST_HOST", "10.250.0.1")
"""This machine, as pods see it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.cluster)
            if os.environ.get("MASKFLEET_TEST_CLUSTER") != "1":
                item.add_marker(pytest.mark.skip(reason=NOT_RUN))


class Kit:
    """The one-node cluster's own commands: faults, simulated nodes, images."""

    def __init__(self, folder: Path):
        self._folder = folder

    def __call__(self, command: str, *arguments: str) -> str:
        """Runs a command and returns what it printed.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run([self._folder / command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command} {arguments}: {done.stderr[-2000:]}"
        return done.stdout


@pytest.fixture(scope="session")
def kit() -> Kit:
    folder = SHARED / "cluster"
    if not (folder / "fault").is_file():
        pytest.skip(f"not run: needs the test cluster's own commands, which are not at {folder}")
    return Kit(folder)


def image(variable: str, tag: str, build: Callable[[Kit], object], request: pytest.FixtureRequest) -> str:
    """The image that ``variable`` names, or else one of this checkout, built into the test cluster."""
    if given := os.environ.get(variable):
        return given
    if not (SHARED / "cluster" / "build").is_file():
        pytest.skip(f"not run: needs an image on the cluster; build one and name it in {variable}")
    build(request.getfixturevalue("kit"))
    return tag


@pytest.fixture(scope="session")
def scripted_image(request: pytest.FixtureRequest) -> str:
    """The launcher's image with a trainer that does what its variable SCRIPT says."""

    def build(kit: Kit) -> None:
        kit("base-image")
        kit("build", "docker/Dockerfile", str(CHECKOUT), LAUNCHER_IMAGE, "--target", "launcher")
        folder = CHECKOUT / "tests" / "cluster" / "scripted"
        kit("build", str(folder / "Dockerfile"), str(folder), SCRIPTED_IMAGE, "--build-arg",
            f"LAUNCHER_IMAGE={LAUNCHER_IMAGE}")  # fmt: skip

    return image("MASKFLEET_SCRIPTED_IMAGE", SCRIPTED_IMAGE, build, request)


@pytest.fixture(scope="session")
def trainer_image(request: pytest.FixtureRequest) -> str:
    """The project's own image for CPUs."""

    def build(kit: Kit) -> None:
        kit("base-image")
        kit("build", "docker/Dockerfile", str(CHECKOUT), TRAINER_IMAGE, "--target", "cpu")

    return image("MASKFLEET_TRAINER_IMAGE", TRAINER_IMAGE, build, request)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A folder of the node, which is this machine, that the streamer's user may write."""
    folder = tmp_path / "output"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A new namespace that enforces Pod Security ``restricted``, deleted afterwards."""
    with namespace("restricted") as connection:
        yield connection


@pytest.fixture
def open_cluster() -> Iterator[Cluster]:
    """A new namespace whose pods may mount folders of the node, deleted afterwards."""
    with namespace("privileged") as connection:
        yield connection


@contextlib.contextmanager
def namespace(level: str) -> Iterator[Cluster]:
    """A new namespace that enforces a level of Pod Security."""
    name = f"maskfleet-{uuid.uuid4().hex[:8]}"
    connection = Cluster.connect(name)
    labels = {"pod-security.kubernetes.io/enforce": level}
    connection.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        yield connection
    finally:
        # Kubernetes deletes a namespace's pods before its Jobs; a failed pod whose replacement is due waits for that,
        # and so would the namespace, for ever.
        patient = connection.patient(120)
        for job in patient.list("Job"):
            patient.delete("Job", job["metadata"]["name"])
        patient.delete("Namespace", name)


@contextlib.contextmanager
def defined(asked: str, kind: str, plural: str, group: str, version: str) -> Iterator[None]:
    """A kind of objects of another project, which the launcher asks for as ``asked``, without what acts on them."""
    cluster, path = Cluster.connect(), "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": anything, "status": anything}}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
              "subresources": {"status": {}}}  # fmt: skip
    # Some groups are protected ones: this says that the definition is not Kubernetes' own.
    metadata = {
        "name": f"{plural}.{group}", "annotations": {"api-approved.kubernetes.io": "unapproved, a test's own"},
    }  # fmt: skip
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [served]}
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": metadata}
    cluster._json("POST", path, {}, {**definition, "spec": spec})
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                cluster.list(asked)
                break
            except MaskfleetError:
                assert time.monotonic() < deadline
                time.sleep(0.3)
        yield
    finally:
        cluster._json("DELETE", f"{path}/{plural}.{group}")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    """A bucket on this machine that pods reach."""
    try:
        server = FakeGcs(host=HOST)
    except OSError as error:
        pytest.skip(f"not run: pods have to reach this machine ({HOST}: {error}); set MASKFLEET_TEST_HOST")
    with server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


Scripted = Callable[..., TrainingJob]


@pytest.fixture
def scripted(scripted_image: str) -> Scripted:
    """Makes a job whose workers run a script in Python; small requests, quick to stop."""

    def job(script: str, **settings: object) -> TrainingJob:
        given: dict[str, object] = {
            "name": "job", "image": scripted_image, "cpu": "50m", "memory": "256Mi", "grace": "5s", "max_restarts": 0,
            "env": (f"SCRIPT={script}",), **settings,
        }  # fmt: skip
        return TrainingJob(**given)  # type: ignore[arg-type]

    return job


def until(name: str, cluster: Cluster, condition: Callable[[JobStatus], bool], seconds: float = 60) -> JobStatus:
    """The first status that fulfils ``condition``; fails with the last one after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            now: object = operations.status(name, cluster.patient(30))
        except NotFound as error:  # it is being submitted
            now = error
        except MaskfleetError as error:
            raise AssertionError(f"no status: {error}") from None
        if isinstance(now, JobStatus) and condition(now):
            return now
        assert time.monotonic() < deadline, f"still {now}"
        time.sleep(0.5)
