"""``trainer``: what runs in the container. Thin: each command is in ``trainer/commands``."""

from __future__ import annotations

import click

from maskfleet.command_line import Group
from trainer.commands.data import pack, plan, verify_data
from trainer.commands.prediction import export, predict
from trainer.commands.scoring import evaluate, inspect, rank_labels, report
from trainer.commands.training import compare, find_lr, train


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Trains, evaluates and exports segmentation networks."""


for command in (
    train,
    evaluate,
    predict,
    export,
    verify_data,
    plan,
    pack,
    find_lr,
    compare,
    report,
    rank_labels,
    inspect,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
