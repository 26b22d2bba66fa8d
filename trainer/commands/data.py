"""``trainer verify-data``, ``plan`` and ``pack``."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from maskfleet.command_line import UserPath, echo
from maskfleet.config import TrainConfig
from maskfleet.errors import BAD_INPUT, DONE
from maskfleet.files import check_writable
from maskfleet.places_here import check_places
from maskfleet.quiet import quiet_stderr
from maskfleet.settings import flag_layer
from maskfleet.text import format_bytes
from trainer.commands.options import OUTPUT

_OF_READING = ("code", "data", "data_dir", "mask_pattern", "mask_threshold", "max_pixels", "masks_drawn_on")
"""Settings that say which files a data set is of and what they hold."""


@click.command(
    params=[
        OUTPUT,
        click.Option(["--pictures"], type=UserPath(), help="write a picture of 16 augmented examples"),
        *TrainConfig.flags(),
    ]
)
def verify_data(output: str, pictures: Path | None, **flags: Any) -> int:
    """Read every image and mask of --data, and count; ends with exit code 2 if one is bad."""
    from trainer.data.auto_preset import planned
    from trainer.data.verify import verify
    from trainer.own_code import use_code

    config = TrainConfig.from_sources([], flag_layer(flags))
    check_places(config)
    use_code(config.code)
    config = planned(config, functools.partial(echo, err=True))
    if pictures is not None:  # before everything is read
        check_writable(pictures)
    report = verify(config)
    echo(json.dumps(report.as_json()) if output == "json" else report.text())
    if pictures is not None and report.first_bad is None:
        quiet_stderr()
        from trainer.data.samples import write_samples

        write_samples(config, pictures)
        echo(f"pictures: {pictures}", err=True)
    return DONE if report.first_bad is None else BAD_INPUT


@click.command(params=[OUTPUT, *TrainConfig.flags()])
def plan(output: str, **flags: Any) -> None:
    """Show what --preset auto would choose for --data, with a reason each, in seconds; the other flags stand."""
    from trainer.data.auto_preset import lines
    from trainer.data.auto_preset import plan as plan_for
    from trainer.own_code import use_code

    config = TrainConfig.from_sources([], flag_layer({**flags, "preset": flags["preset"] or "auto"}))
    check_places(config)
    use_code(config.code)
    seen, found = plan_for(config)
    if output == "json":
        chosen = [{**choice._asdict(), "flag": choice.flag} for choice in found]
        echo(json.dumps({"seen": asdict(seen), "chosen": chosen}))
    else:
        echo("\n".join(lines(seen, found)))


@click.command(
    params=[
        click.Argument(["destination"], metavar="DESTINATION"),
        click.Option(
            ["--max-side"],
            type=click.IntRange(min=1),
            help="make larger pictures smaller, pixels of the larger side  [default: they stay as they are]",
        ),
        *(option for option in TrainConfig.flags() if option.name in _OF_READING),
    ]
)
def pack(destination: str, max_side: int | None, **flags: Any) -> None:
    """Write --data into a folder, gs://BUCKET/PATH or s3://BUCKET/PATH, as shards that training reads by position.

    Interrupted and begun again it goes on. '--data packed:DESTINATION' trains on it without a copy.
    """
    from maskfleet.child_processes import report_line
    from trainer.data.cache import counted
    from trainer.data.opening import open_source
    from trainer.data.packed.bucket import open_bucket
    from trainer.data.packed.packing import pack as pack_source
    from trainer.data.source import Reading
    from trainer.own_code import use_code

    config = TrainConfig.from_sources([], flag_layer(flags))
    check_places(config)  # before a folder is made
    use_code(config.code)
    bucket = open_bucket(destination, writing=True)
    reading = Reading.of(config)
    source = open_source(config.data, config.data_dir, reading)
    manifest = pack_source(source, reading, config.data, bucket, max_side, report_line)
    sizes = [shard.size for split in manifest.splits.values() for shard in split.shards]
    echo(
        f"{counted(source.splits)} images in {len(sizes)} shards, {format_bytes(sum(sizes))}; "
        f"'--data packed:{bucket.url}' trains on them"
    )
