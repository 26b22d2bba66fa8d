"""``launcher``: thin and lazy. A command's module is imported when that command runs, so that help is instant."""

from __future__ import annotations

import importlib

import click

from maskfleet.command_line import Group

COMMANDS = {
    "run": ("launcher.commands.run:run", "Train here, in the foreground."),
    "submit": ("launcher.commands.jobs:submit", "Train on Kubernetes."),
    "render": ("launcher.commands.jobs:render", "Print what submit would send."),
    "resume": ("launcher.commands.jobs:resume", "Go on with a cancelled, failed or complete job."),
    "scale": ("launcher.commands.jobs:scale", "Go on with another number of workers."),
    "status": ("launcher.commands.watching:status", "Show where a job stands, and why."),
    "list": ("launcher.commands.watching:list_", "List the jobs of a namespace."),
    "logs": ("launcher.commands.watching:logs", "Print what the workers of a job print."),
    "exec": ("launcher.commands.execution:exec_", "Run a command in a worker's pod."),
    "wait": ("launcher.commands.watching:wait", "Return when a job has ended."),
    "describe": ("launcher.commands.watching:describe", "Show all that is known of a job."),
    "tensorboard": ("launcher.commands.tensorboard:tensorboard", "Show a job's curves in TensorBoard."),
    "preflight": ("launcher.commands.jobs:preflight", "Check whether a job would start."),
    "estimate": ("launcher.commands.estimate:estimate_", "Tell how fast more workers would be."),
    "build": ("launcher.commands.tools:build", "Build the container image of this checkout."),
    "completion": ("launcher.commands.tools:completion", "Print the line-completion of a shell."),
    "prepare": ("launcher.commands.pod:prepare", "In a pod: bring in data and the newest checkpoint."),
    "sidecar": ("launcher.commands.pod:sidecar", "In a pod: report to the Job and stream the run."),
    "cancel": ("launcher.commands.ending:cancel", "Stop a job and keep its objects."),
    "delete": ("launcher.commands.ending:delete", "Delete a job with all its objects."),
    "stream": ("launcher.commands.destinations:stream", "Copy a run to a bucket or folder while it grows."),
    "restore": ("launcher.commands.destinations:restore", "Bring a run's newest checkpoint back."),
    "ls": ("launcher.commands.destinations:ls", "List the runs in a bucket or folder."),
    "pull": ("launcher.commands.destinations:pull", "Copy runs from a bucket or folder to this disk."),
}
"""Each command's place and its line in the overview."""


class LazyGroup(Group):
    """Knows its commands by name."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="maskfleet", message="%(package)s %(version)s")
def main() -> None:
    """Trains segmentation networks, on this machine or on a fleet of Kubernetes workers.

    The trainer's own settings follow after --, for example: launcher run -- --epochs 20 --model unet
    """


if __name__ == "__main__":
    main()
