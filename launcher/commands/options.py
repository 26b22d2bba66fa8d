"""What the commands for a cluster have in common: which cluster, which job, which form of output."""

from __future__ import annotations

import difflib
import functools
import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import yaml

from launcher.job.pod_settings import object_name
from maskfleet.command_line import UserPath, echo
from maskfleet.worker_count import WorkerCount

if TYPE_CHECKING:
    from launcher.cluster.kubernetes_api import Cluster

Function = TypeVar("Function", bound=Callable[..., Any])
Connect = Callable[[], "Cluster"]
"""Opens the cluster that the flags name: for a command to call once all else that it was given is known to be good."""


class ObjectName(click.ParamType[str]):
    """The name of a job or of a namespace; it becomes a part of a request's path."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return object_name(value)
        except ValueError as error:
            self.fail(f"{error}, found {value!r}", param, ctx)


class JobOrDestination(ObjectName):
    """The name of a job, or where a run lies."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value if is_destination(value) else super().convert(value, param, ctx)


class Workers(click.ParamType[WorkerCount]):
    """A number of workers, or a range of them."""

    name = "workers"

    def convert(
        self, value: str | WorkerCount, param: click.Parameter | None, ctx: click.Context | None
    ) -> WorkerCount:
        try:
            return WorkerCount.parse(value)
        except ValueError as error:
            self.fail(f"{error}, found {value!r}", param, ctx)


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
            name = name.replace("_", "-")
            if not _is_setting(name):
                near = difflib.get_close_matches(name, [*own, *_settings()], 1, cutoff=0.8)
                if not near or near[0] in own:
                    raise
                name = near[0]
            raise click.UsageError(
                f"{error.option_name}: settings of the trainer come after --: "
                f"write 'launcher {ctx.info_name} … -- {name} …'"
            ) from error


def _settings() -> list[str]:
    from maskfleet.config import TrainConfig

    return [name for option in TrainConfig.flags() for name in (*option.opts, *option.secondary_opts)]


def _is_setting(flag: str) -> bool:
    from maskfleet.config import TrainConfig  # slow, and needed for a mistake alone

    key = flag.removeprefix("--").replace("-", "_")
    return key in TrainConfig.model_fields or key.removeprefix("no_") in TrainConfig.model_fields


def is_destination(name: str) -> bool:
    """Whether what stands in a job's place is a URL or a folder: gs://…, s3://…, /…, ./…, ~ or runs/…

    A folder in this one may be called as a job is, and is meant if it has ``./`` before it.
    """
    return "/" in name or name.startswith("~") or name in (".", "..")


def on_cluster(command: Function) -> Function:
    """Adds -n, --context and --kubeconfig, and passes as ``connect`` what opens the cluster that they name."""

    @click.option("-n", "--namespace", type=ObjectName(), help="namespace  [default: the context's]")
    @click.option("--context", help="context of the kubeconfig  [default: its current one]")
    @click.option("--kubeconfig", type=UserPath(), help="[default: KUBECONFIG, ~/.kube/config]")
    @functools.wraps(command)
    def with_cluster(namespace: str | None, context: str | None, kubeconfig: Path | None, **arguments: Any) -> Any:
        def connect() -> Cluster:
            from launcher.cluster.kubernetes_api import Cluster

            cluster = Cluster.connect(namespace, context=context, kubeconfig=kubeconfig)
            if not cluster.is_verified:
                echo("note: insecure-skip-tls-verify: whoever answers is taken for the API server", err=True)
            return cluster

        return command(connect=connect, **arguments)

    return with_cluster  # type: ignore[return-value]


def end_as_by_ctrl_c() -> None:
    """Has SIGTERM and SIGHUP end this process as Ctrl-C does: what it has made for its own time is removed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def output_option(*forms: str) -> Callable[[Function], Function]:
    """Adds -o with the given forms beside the text for people."""
    return click.option("-o", "--output-format", "form", type=click.Choice(forms), help="instead of text for people")


def print_as(form: str, value: Mapping[str, Any] | list[Any]) -> None:
    """Prints as JSON or YAML."""
    if form == "json":
        click.echo(json.dumps(value, indent=1))
    else:
        click.echo(yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False).rstrip())
