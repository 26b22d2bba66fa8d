"""``trainer train``, ``find-lr`` and ``compare``."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from maskfleet.child_processes import end_with_parent
from maskfleet.command_line import UserPath, echo
from maskfleet.config import TrainConfig, is_address
from maskfleet.errors import BAD_INPUT, BadSettings
from maskfleet.out_setting import check_out
from maskfleet.places_here import check_places
from maskfleet.quiet import quiet_stderr
from maskfleet.records import write_settings
from maskfleet.run_directory import RunDirectory, check_name
from maskfleet.settings import flag_layer
from trainer.commands.options import OUTPUT


@click.command(
    params=[
        click.Option(["--run-dir"], type=UserPath(), required=True, help="where the run's files go"),
        click.Option(["--config"], type=UserPath(), help="settings as YAML or JSON; flags win"),
        *TrainConfig.flags(),
    ]
)
def train(run_dir: Path, config: Path | None, **flags: Any) -> int:
    """Train the run in --run-dir, going on from its newest checkpoint if there is one.

    This process is one worker of several when TF_CONFIG or MASKFLEET_PEERS say so.
    """
    from maskfleet.peers import Peers
    from maskfleet.run_lock import open_worker_log
    from trainer.supervision.supervisor import supervise

    check_name(run_dir)
    run, peers, layer = RunDirectory(run_dir), Peers.from_environment(), flag_layer(flags)

    def resolve() -> TrainConfig:
        files = [file for file in (run.config, config) if file is not None and (file is config or file.exists())]
        return TrainConfig.from_sources(files, layer)

    check_places(resolve(), begun=bool(run.checkpoint_steps()))  # before anything is made
    code = BAD_INPUT
    with open_worker_log(run, peers.worker) as log:  # before anything is changed
        settings = resolve()
        put_back = write_settings(run, settings.model_dump(mode="json"))
        command, spare = (
            [sys.executable, "-m", f"trainer.training.{module}", str(run.path)] for module in ("process", "spare")
        )
        try:
            code = supervise(command, settings, peers, run, log, spare)
        finally:
            if code == BAD_INPUT:
                put_back()
    return code


@click.command(
    params=[
        click.Option(["--out"], type=UserPath(), help="PNG file of the curve"),
        click.Option(["--steps"], type=click.IntRange(min=20), default=100, show_default=True, help="training steps"),
        OUTPUT,
        *(option for option in TrainConfig.flags() if option.name not in ("learning_rate", "schedule", "epochs")),
    ]
)
def find_lr(out: Path | None, steps: int, output: str, **flags: Any) -> int:
    """Find a --learning-rate: train for some steps while it grows, and look where the loss is lowest.

    Takes the settings that the run shall have. Nothing of it is kept but the picture.
    """
    settings = TrainConfig.from_sources([], flag_layer(flags))
    check_places(settings)
    if settings.start_from is not None and is_address(settings.start_from):
        raise BadSettings(
            f"--start-from {settings.start_from}: expected a place on this machine, as nothing is fetched for so few "
            "steps; bring it here with 'launcher pull'"
        )
    if out is not None:
        check_out(out)
    with tempfile.TemporaryDirectory() as folder:
        write_settings(RunDirectory(Path(folder)), settings.model_dump(mode="json"))
        command = [sys.executable, "-m", "trainer.training.learning_rate_finder", folder, str(steps), output]
        command += [] if out is None else [str(out)]
        return subprocess.run(command, check=False, preexec_fn=end_with_parent(signal.SIGKILL)).returncode


@click.command(
    params=[
        click.Option(
            ["--models"],
            default="unet,fcn32s,fcn16s,fcn8s,deeplabv3plus,lraspp,pspnet,segformer",
            show_default=True,
            help="networks, joined by commas",
        ),
        click.Option(
            ["--upsampling"],
            default="transposed,nearest,bilinear,bicubic",
            show_default=True,
            help="ways to enlarge, joined by commas",
        ),
        click.Option(["--out"], type=UserPath(), required=True, help="folder for runs and tables"),
        click.Option(
            ["--images"], type=click.IntRange(min=1), default=6, show_default=True, help="in the picture's rows"
        ),
        *(option for option in TrainConfig.flags() if option.name not in ("model", "upsampling", "export")),
    ]
)
def compare(models: str, upsampling: str, out: Path, images: int, **flags: Any) -> None:
    """Train every network with every up-sampling, and put what they reach into one table and one picture.

    None is exported; 'trainer export' does that with the one of your choice.
    Begun again with the same settings it goes on with what is not done.
    """
    quiet_stderr()
    settings = TrainConfig.from_sources([], flag_layer(flags))
    check_places(settings)  # before TensorFlow is imported
    from trainer.data.auto_preset import planned
    from trainer.own_code import use_code
    from trainer.results.compare import chooser, grid, train_all, write_comparison

    use_code(settings.code)
    settings = planned(settings.model_copy(update={"model": settings.model}), echo)  # which is for the grid to choose
    configs = grid(settings, models.split(","), upsampling.split(","))
    for line in train_all(configs, out):
        echo(line)
    echo("\n" + write_comparison(configs, out, images))
    echo(f"scores are of the {chooser(configs, out)} split")
    echo(f"{out / 'compare.png'}, {out / 'compare.csv'}; tensorboard --logdir {out}")
