"""What the commands for a cluster have in common: which cluster, which form of output."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

from maskfleet.command_line import UserPath, echo

Function = TypeVar("Function", bound=Callable[..., Any])


class WithSettings(click.Command):
    """A command that takes the trainer's settings behind ``--``, and says on which side of it a flag belongs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for option in self.params for name in option.opts}
        behind = args[args.index("--") + 1 :] if "--" in args else []
        for name in (word.partition("=")[0] for word in behind):
            if name.startswith("--") and name in own and not _is_setting(name):
                raise click.UsageError(f"{name}: is a flag of '{ctx.command_path}': write it before --")
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name
            if name == "--config" and "--file" in own:
                mend = "-f names the job's file, whose section 'training' holds the settings"
                raise click.UsageError(f"--config: there is no such flag; {mend}") from error
            if not _is_setting(name):
                raise
            raise click.UsageError(
                f"{name}: is a setting of the training: write it behind --, as in '{ctx.command_path} -- {name} …'"
            ) from error


def _is_setting(flag: str) -> bool:
    from maskfleet.config import TrainConfig  # slow, and needed for a mistake alone

    key = flag.removeprefix("--").replace("-", "_")
    return key in TrainConfig.model_fields or key.removeprefix("no_") in TrainConfig.model_fields


def is_destination(name: str) -> bool:
    """Whether what stands in a job's place is a URL or a folder: gs://…, s3://…, /…, ./… or ../…"""
    return "://" in name or name.startswith(("/", "./", "../"))


def on_cluster(command: Function) -> Function:
    """Adds -n, --context and --kubeconfig, and passes the cluster that they name as ``cluster``."""
    return _on_cluster(command, lambda arguments: False)


def on_cluster_or_destination(command: Function) -> Function:
    """As :func:`on_cluster`, but passes None where ``name`` is a destination."""
    return _on_cluster(command, lambda arguments: is_destination(arguments["name"]))


def on_cluster_unless_checked_here(command: Function) -> Function:
    """As :func:`on_cluster`, but passes None for ``--dry-run client``, which needs no kubeconfig."""
    return _on_cluster(command, lambda arguments: arguments["dry_run"] == "client")


def _on_cluster(command: Function, needs_none: Callable[[Mapping[str, Any]], bool]) -> Function:

    @click.option("-n", "--namespace", help="namespace  [default: the context's]")
    @click.option("--context", help="context of the kubeconfig  [default: its current one]")
    @click.option("--kubeconfig", type=UserPath(), help="[default: KUBECONFIG, ~/.kube/config]")
    @functools.wraps(command)
    def with_cluster(namespace: str | None, context: str | None, kubeconfig: Path | None, **arguments: Any) -> Any:
        from launcher.cluster.kubernetes_api import Cluster

        if needs_none(arguments):
            return command(cluster=None, **arguments)
        cluster = Cluster.connect(namespace, context=context, kubeconfig=kubeconfig)
        if not cluster.is_verified:
            echo("note: insecure-skip-tls-verify: whoever answers is taken for the API server", err=True)
        return command(cluster=cluster, **arguments)

    return with_cluster  # type: ignore[return-value]


def output_option(*forms: str) -> Callable[[Function], Function]:
    """Adds -o with the given forms beside the text for people."""
    return click.option("-o", "--output-format", "form", type=click.Choice(forms), help="instead of text for people")


def print_as(form: str, value: Mapping[str, Any] | list[Any]) -> None:
    """Prints as JSON or YAML."""
    if form == "json":
        click.echo(json.dumps(value, indent=1))
    else:
        click.echo(yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False).rstrip())
