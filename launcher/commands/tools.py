"""``launcher build`` and ``completion``."""

from __future__ import annotations

from pathlib import Path

import click

from maskfleet.command_line import UserPath, echo


@click.command()
@click.option("--target", type=click.Choice(["cpu", "gpu", "launcher"]), default="cpu", show_default=True)
@click.option("--tag", help="name of the image  [default: maskfleet/trainer:VERSION]")
@click.option("--encoder-weights", type=UserPath(), help="file of encoder weights to bake in")
@click.option("--push", is_flag=True, help="push it afterwards")
def build(target: str, tag: str | None, encoder_weights: Path | None, push: bool) -> None:
    """Build the container image of this checkout with docker, podman or buildah."""
    from launcher import image

    tag = tag or image.default_tag(target)
    image.build(target, tag, encoder_weights, push=push)
    echo(f"built {tag}" + (" and pushed it" if push else ""))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the line-completion of a shell: eval "$(launcher completion bash)"."""
    from click.shell_completion import get_completion_class

    from launcher.cli import main

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(main, {}, "launcher", "_LAUNCHER_COMPLETE").source())
