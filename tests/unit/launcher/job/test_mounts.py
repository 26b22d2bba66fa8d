"""Mounts that would keep a worker from starting are refused on this machine."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from launcher.cli import main
from launcher.job.manifests import manifests
from launcher.job.places import parse_mount
from launcher.job.training_job import TrainingJob
from maskfleet.errors import BadSettings


@pytest.mark.parametrize(
    ("mounts", "settings", "why"),
    [
        (["pvc:a=/tmp"], {}, "/tmp is the place of the worker's own tmp"),
        (["pvc:a=/tmp/"], {}, "/tmp is the place of the worker's own tmp"),
        (["pvc:a=//tmp/./"], {}, "/tmp is the place of the worker's own tmp"),
        (["pvc:a=/run/maskfleet"], {}, "is the place of the worker's own run"),
        (["pvc:a=/run:rw"], {}, "/run/maskfleet below it is the place of the worker's own run"),
        (["secret:a=/etc/maskfleet"], {}, "is the place of the worker's own config"),
        (["secret:a=/etc/maskfleet/more"], {}, "nothing can be mounted below /etc/maskfleet"),
        (["secret:a=/var/run/secrets/kubernetes.io/serviceaccount"], {}, "is the place of the worker's own api-token"),
        (["secret:a=/var/run/secrets"], {}, "below it is the place of the worker's own api-token"),
        (["pvc:a=/data"], {"data": "pvc:b"}, "/data is the place of the worker's own data"),
        (["pvc:a=/data"], {"data": "gs://b"}, "/data is the place of the worker's own data"),
        (["pvc:a=/data/more"], {"data": "pvc:b"}, "nothing can be mounted below /data"),
        (["pvc:a=/output"], {"output": "pvc:b"}, "/output is the place of the worker's own output"),
        (["pvc:a=/dev/shm"], {"gpus_per_worker": 1}, "is the system's"),
        (["pvc:a=/usr"], {}, "/usr is the system's"),
        (["pvc:a=/proc/1"], {}, "/proc/1 is the system's"),
        (["pvc:a=/x", "pvc:b=/x/"], {}, "/x is mounted twice"),
        (["pvc:a=/x", "secret:b=/x/y"], {}, "/x/y below it is the place of --mount secret:b=/x/y"),
        (["secret:b=/x/y", "pvc:a=/x"], {}, "nothing can be mounted below /x, the place of --mount pvc:a=/x"),
    ],
)  # fmt: skip
def test_mounts_that_clash(mounts: list[str], settings: dict[str, str], why: str) -> None:
    flags = [word for mount in mounts for word in ("--mount", mount)]
    flags += [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    done = CliRunner().invoke(main, ["submit", "--name", "pets", "--dry-run", "client", *flags])
    assert done.exit_code == 2
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: --mount")


@pytest.mark.parametrize(
    ("mounts", "settings"),
    [
        (["pvc:a=/data", "pvc:b=/output"], {"data": "oxford_iiit_pet", "output": "gs://b"}),
        (["pvc:a=/tmp/a", "secret:b=/run/maskfleet-not"], {}),
        (["pvc:a=/x:rw", "secret:b=/x/y"], {}),
        (["pvc:a=/x", "pvc:b=/xy"], {}),
        (["host:/etc=/mnt/etc"], {}),
    ],
)
def test_mounts_that_do_not(mounts: list[str], settings: dict[str, str]) -> None:
    manifests(TrainingJob(name="pets", mount=tuple(mounts), **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["pvc:a=//", "pvc:a=/.", "pvc:a=/x/../tmp", "pvc:a=x", "pvc:a=/x:y"])
def test_a_path_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected SOURCE=/PATH"):
        parse_mount(text)


def test_a_folder_of_the_node_has_to_be_there() -> None:
    job = manifests(TrainingJob(name="pets", data="host:/srv/pets"))[0]
    volumes = {volume["name"]: volume for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert volumes["data"]["hostPath"] == {"path": "/srv/pets", "type": "Directory"}


def test_a_job_of_a_clash_is_not_rendered_either() -> None:
    with pytest.raises(BadSettings):
        manifests(TrainingJob(name="pets", mount=("pvc:a=/tmp",)))
