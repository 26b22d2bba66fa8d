"""``launcher preflight``, ``build`` and ``completion``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launcher.commands.jobs import asked_for, job_settings
from launcher.commands.options import on_cluster, output_option, print_as
from maskfleet.errors import DONE, FAILED

if TYPE_CHECKING:
    from launcher.cluster.kubernetes_api import Cluster


@job_settings
@click.command()
@output_option("json", "yaml")
@on_cluster
def preflight(cluster: Cluster, form: str | None, **arguments: Any) -> int:
    """Check whether a job would start, without starting it; exit code 1 if not.

    Takes the flags of submit.
    """
    from dataclasses import asdict

    from launcher.operations.preflight import preflight
    from launcher.status.tables import table

    checks = preflight(asked_for(arguments), cluster)
    if form:
        print_as(form, [asdict(check) for check in checks])
    else:
        click.echo("\n".join(table(["CHECK", "RESULT", "DETAIL"], [(c.what, c.result, c.detail) for c in checks])))
    return FAILED if any(check.result == "no" for check in checks) else DONE


@click.command()
@click.option("--target", type=click.Choice(["cpu", "gpu", "launcher"]), default="cpu", show_default=True)
@click.option("--tag", help="name of the image  [default: maskfleet/trainer:VERSION]")
@click.option("--encoder-weights", type=click.Path(path_type=Path), help="file of encoder weights to bake in")
@click.option("--push", is_flag=True, help="push it afterwards")
def build(target: str, tag: str | None, encoder_weights: Path | None, push: bool) -> None:
    """Build the container image of this checkout with docker, podman or buildah."""
    from launcher import image

    tag = tag or image.default_tag(target)
    image.build(target, tag, encoder_weights, push=push)
    click.echo(f"built {tag}" + (" and pushed it" if push else ""))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the line-completion of a shell: eval "$(launcher completion bash)"."""
    from click.shell_completion import get_completion_class

    from launcher.cli import main

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(main, {}, "launcher", "_LAUNCHER_COMPLETE").source())
