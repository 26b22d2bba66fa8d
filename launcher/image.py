"""Building the project's container images with whichever builder is there."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

from launcher.job.training_job import GPU_IMAGE, IMAGE
from maskfleet.child_processes import end_with_parent
from maskfleet.errors import BadInput, BadSettings, MaskfleetError

BUILDERS = ("docker", "podman", "buildah")
_CHECKOUT = Path(__file__).parents[1]
_WEIGHTS = Path("build") / "encoder-weights"


def default_tag(target: str) -> str:
    """``maskfleet/trainer:VERSION`` for cpu, with ``-gpu`` for gpu, ``maskfleet/launcher:VERSION`` for launcher."""
    return {"cpu": IMAGE, "gpu": GPU_IMAGE, "launcher": IMAGE.replace("/trainer:", "/launcher:")}[target]


def build(target: str, tag: str, weights: Path | None, *, push: bool) -> None:
    """Builds ``target`` of docker/Dockerfile, with the file of encoder weights if one is given.

    Raises:
        BadInput: there is no checkout, no builder, or no such file.
        MaskfleetError: the builder failed; it has said why.
    """
    dockerfile = _CHECKOUT / "docker" / "Dockerfile"
    if not dockerfile.is_file():
        raise BadInput(f"{dockerfile} is missing: images are built in a checkout of the project")
    builder = _builder()
    command = [builder, "build", "--file", str(dockerfile), "--target", target, "--tag", tag]
    if weights is not None:
        if not weights.is_file():
            raise BadSettings(f"--encoder-weights {weights}: there is no such file")
        inside = _CHECKOUT / _WEIGHTS / weights.name
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, inside)
        command += ["--build-arg", f"ENCODER_WEIGHTS={_WEIGHTS / weights.name}"]
    _run([*command, str(_CHECKOUT)])
    if push:
        _run([builder, "push", tag])


def _builder() -> str:
    """The first builder that works: a docker without its daemon does not."""
    found = list(filter(shutil.which, BUILDERS))
    for name in found:
        if subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return name
    if found:
        raise BadInput(f"no builder of images that works: '{found[0]} info' says why; expected its daemon to run")
    raise BadInput(f"no builder of images found: expected one of {', '.join(BUILDERS)} on the PATH")


def _run(command: list[str]) -> None:
    code = subprocess.run(command, check=False, preexec_fn=end_with_parent(signal.SIGTERM)).returncode
    if code:
        raise MaskfleetError(f"'{' '.join(command[:2])}' failed with exit code {code}; its last lines say why")
