"""Flags that several commands have."""

from __future__ import annotations

import click

from maskfleet.command_line import UserPath

RUN_OR_CHECKPOINT = click.argument("place", metavar="RUN|CHECKPOINT", type=UserPath())
BEST = click.option(
    "--best", is_flag=True, help="the run's checkpoint with the best score, instead of the one that counts at its end"
)


def _scales(context: click.Context, option: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        scales = tuple(map(float, value.split(",")))
    except ValueError:
        scales = ()
    if not scales or not all(SMALLEST_SCALE <= scale <= LARGEST_SCALE for scale in scales):
        raise click.UsageError(
            f"--scales {value}: expected numbers from {SMALLEST_SCALE:g} to {LARGEST_SCALE:g}, joined by commas, "
            "as 0.75,1,1.5"
        )
    return scales


SMALLEST_SCALE, LARGEST_SCALE = 0.25, 4.0
TEST_TIME = [
    click.Option(
        ["--window"],
        is_flag=True,
        help="slide the network over large images instead of scaling them to its input; after --fit crop always",
    ),
    click.Option(
        ["--overlap"], type=click.FloatRange(0, 0.9), default=0.5, show_default=True, help="of neighbouring windows"
    ),
    click.Option(["--flip"], is_flag=True, help="average with the prediction of the mirrored image"),
    click.Option(
        ["--scales"],
        callback=_scales,
        default="1",
        show_default=True,
        help="average the predictions at these scales, joined by commas, as 0.75,1,1.5",
    ),
]
OUTPUT = click.Option(["-o", "output"], type=click.Choice(["text", "json"]), default="text", help="output format")
