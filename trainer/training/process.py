"""The training process: sets everything up in the one order that works, trains, and leaves the results behind.

The supervisor starts it as ``python -m trainer.training.process RUN`` for every attempt.
"""

from __future__ import annotations

import gc
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from maskfleet.child_processes import report_line
from maskfleet.command_line import prepare_outputs
from maskfleet.config import TrainConfig
from maskfleet.environment import is_debugging
from maskfleet.errors import DONE, MaskfleetError, Stopped
from maskfleet.goodput import PEERS, PREPARING, STARTUP
from maskfleet.peers import Peers
from maskfleet.phase_log import PhaseLog
from maskfleet.quiet import leave_out_warnings
from maskfleet.records import write_settings
from maskfleet.run_directory import RunDirectory
from maskfleet.sentences import ERROR
from maskfleet.settings import read_settings_file
from trainer.training.batch_size import choose_batch
from trainer.training.heartbeat import beating, open_heartbeat
from trainer.training.strategy import check_gpus, configure_threads, make_strategy, threads_of

if TYPE_CHECKING:
    from trainer.training.assembly import Worker


def main(arguments: list[str]) -> int:
    """Trains the run in the directory that ``arguments`` names; returns the exit code."""
    # Until the first step almost everything that is made stays: looking through it for garbage took .8 s.
    gc.set_threshold(100_000, 20, 20)
    prepare_outputs()
    leave_out_warnings()
    run = RunDirectory(Path(arguments[0]))
    try:
        config = TrainConfig.resolve([read_settings_file(run.config)])
        train_run(run, config, Peers.from_environment())
    except MaskfleetError as error:
        if is_debugging():
            traceback.print_exc()
        report_line(ERROR + str(error) if not isinstance(error, Stopped) else str(error))
        return error.exit_code
    return DONE


def train_run(run: RunDirectory, config: TrainConfig, peers: Peers) -> None:
    """Trains ``run`` to its end, going on from its newest checkpoint.

    Raises:
        MaskfleetError: see :func:`trainer.training.loop.train`; PeerLost when another worker is gone.
    """
    phases = PhaseLog(run if peers.is_chief else None)
    # Slow imports come after the settings are known to be good.
    _import_keras()
    configure_threads(threads_of(config, peers))
    check_gpus()
    from trainer.data.auto_preset import planned
    from trainer.data.cache import cached, open_divided
    from trainer.data.source import Reading
    from trainer.data.splits import Division
    from trainer.own_code import use_code

    use_code(config.code)
    phases.begin_start(PREPARING)
    heartbeat = open_heartbeat()
    fitting = None
    with beating(heartbeat):  # to download and read a large data set takes longer than a start may
        reading = Reading.of(config)
        source = open_divided(config.data, config.data_dir, reading, Division.of(config))
        if config.unplanned:
            config = planned(config, report_line if peers.is_chief else lambda line: None, source)
            write_settings(run, config.model_dump(mode="json"))  # for the next start, and for who reads them meanwhile
        dataset = cached(
            source,
            config.image_size,
            config.data,
            report_line=report_line,
            reading=reading,
            cache=config.cache,
            local_workers=peers.local_workers,
            fit=config.fit,
        )
        if dataset.packed is not None:
            dataset.packed.heartbeat = heartbeat
        if config.batch_per_replica == "auto" and config.global_batch is None:
            share = len(dataset.train) // (peers.workers * config.accumulate)
            fitting = choose_batch(run, len(dataset.classes), share)
    phases.begin_start(PEERS if peers.workers > 1 else STARTUP)
    strategy = make_strategy(peers)
    phases.begin_start(STARTUP)

    import tensorflow as tf

    from trainer.training.assembly import Worker
    from trainer.training.failures import meaning_of

    try:
        _train(Worker(run, config, peers, strategy, dataset, source, fitting, heartbeat, phases))
    except (OSError, tf.errors.OpError) as error:
        meaning = meaning_of(error, run, peers)
        if meaning is None:
            raise
        raise meaning from error


def import_all() -> None:
    """All that a training process imports before its first step."""
    _import_keras()
    import trainer.data.cache
    import trainer.training.assembly  # noqa: F401


def _import_keras() -> None:
    """Without Matplotlib, which Keras would import, for half a second, for functions that nothing calls here."""
    if "keras" in sys.modules:
        return
    sys.modules["matplotlib"] = None  # type: ignore[assignment]
    import keras  # noqa: F401

    del sys.modules["matplotlib"]


def _train(worker: Worker) -> None:
    import tensorflow as tf

    from trainer.training.assembly import train_and_leave_results

    try:
        train_and_leave_results(worker)
    except tf.errors.OpError as error:
        # What its threads meet in the data comes through TensorFlow as an error of another type.
        if worker.dataset.packed is not None and worker.dataset.packed.failure is not None:
            raise worker.dataset.packed.failure from error
        raise
    finally:
        if worker.dataset.packed is not None:
            worker.dataset.packed.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
