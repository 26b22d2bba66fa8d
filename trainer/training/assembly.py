"""Builds what trains, restores it and hands it to all workers."""

from __future__ import annotations

import contextlib
import functools
import math
import signal
import time
from collections.abc import Callable
from typing import Any

from maskfleet.config import TrainConfig
from maskfleet.errors import BadData, Stopped, TrainingFailed
from maskfleet.files import write_atomically
from maskfleet.peers import Peers
from maskfleet.run_directory import RunDirectory
from trainer.training.collectives import _of_chief, _wait_for_all
from trainer.training.heartbeat import beating
from trainer.training.plan import Plan


def _train(
    run: RunDirectory,
    config: TrainConfig,
    peers: Peers,
    strategy: Any,
    dataset: Any,
    fitting: int | None,
    heartbeat: Callable[[], None],
) -> None:
    """Builds what trains, restores it on the chief and hands it to all, trains, and leaves the results behind."""
    import tensorflow as tf

    from trainer.checkpoints.inspection import state_digest
    from trainer.checkpoints.reading import optimizer_by_path, values_by_name, weights_by_path
    from trainer.checkpoints.store import CheckpointStore
    from trainer.models.network import build_network
    from trainer.objective.losses import build_loss
    from trainer.objective.optimizers import build_optimizer
    from trainer.objective.schedules import learning_rate
    from trainer.training.collectives import broadcast_from_chief
    from trainer.training.features import cached_features
    from trainer.training.loop import train
    from trainer.training.profiling import Profiler
    from trainer.training.run_record import check_goes_on, record_start
    from trainer.training.state import StopFlag, Training, TrainingState
    from trainer.training.summaries import Summaries

    _check_data(peers, strategy, dataset)
    config = _with_found_batch(config, peers, strategy, fitting)
    plan = _plan(config, peers, strategy.num_replicas_in_sync, len(dataset.train.names))
    # What may be refused comes before anything is written.
    if peers.is_chief:
        check_goes_on(run, config, dataset)
    loss = build_loss(config, len(dataset.classes), dataset.train.masks)
    with strategy.scope():
        network = build_network(config, len(dataset.classes))
        schedule = learning_rate(
            config,
            steps_per_epoch=plan.examples / plan.global_batch,
            total_steps=plan.steps,
            scale=config.scaled_learning_rate(plan.global_batch) / config.learning_rate,
        )
        optimizer = build_optimizer(config, schedule, network.encoder)
        optimizer.build(network.model.trainable_variables)
        state = TrainingState(len(dataset.classes))

    # TensorFlow's own handler swallows SIGTERM; ours has to come after the strategy that installs it.
    stop = StopFlag()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor passes it on

    everything = tf.train.Checkpoint(
        weights=weights_by_path(network.model), optimizer=optimizer_by_path(optimizer), state=state
    )
    checkpoints = summaries = profiler = manifest = None
    if peers.is_chief:
        checkpoints = CheckpointStore(run, everything, config.keep)
        checkpoints.delete_incomplete()
        manifest = checkpoints.restore()
    variables = [variable.value for variable in (*network.model.variables, *optimizer.variables)]
    broadcast_from_chief(strategy, [*variables, *state.variables], is_chief=peers.is_chief)
    if peers.is_chief:
        predict = functools.partial(_predict, network.model, optimizer)
        summaries = Summaries(run, plan, dataset, predict, int(state.step.numpy()), int(state.validated.numpy()))
        trainable = sum(math.prod(variable.shape) for variable in network.model.trainable_variables)
        facts = record_start(run, config, peers, plan, dataset, strategy.num_replicas_in_sync, trainable)
        if manifest is None:
            summaries.settings({**config.model_dump(mode="json"), **facts})
        else:
            report_line(f"goes on from step {manifest.step} of {plan.steps}")
        if config.profiled is not None:
            profiler = Profiler(run.tensorboard / "train", *config.profiled)

    started = time.monotonic()
    features = cached_features(config, network, dataset, plan.local_batch(peers.worker), report_line, heartbeat)
    training_seconds = (manifest.training_seconds if manifest else 0.0) + time.monotonic() - started
    training = Training(
        config, peers, strategy, dataset, features, network, optimizer, loss, plan, state, stop, heartbeat,
        checkpoints, summaries, profiler,
    )  # fmt: skip
    try:
        scores = train(training, training_seconds)
        if summaries is not None and config.export:
            with beating(heartbeat):
                _leave_results(run, training)
    except (Stopped, TrainingFailed) as ending:
        if summaries is not None:
            with contextlib.suppress(OSError, tf.errors.OpError):  # of a full disk, which may have been the cause
                summaries.end("stopped" if isinstance(ending, Stopped) else "failed")
        raise
    finally:
        if profiler is not None:
            profiler.stop()
    if summaries is not None:
        summaries.end("done")
        print(_table(scores), flush=True)
    _wait_for_all(strategy)
    if peers.workers > 1:
        digest = state_digest(values_by_name(everything))
        print(
            f"worker {peers.worker} ends with step {int(state.step.numpy())} and the state sha256 {digest}",
            flush=True,
        )


def report_line(line: str) -> None:
    print(line, flush=True)


def _check_data(peers: Peers, strategy: Any, dataset: Any) -> None:
    """Every worker takes its examples from its own disk: they must be the same everywhere.

    Raises:
        BadData: they are not.
    """
    own = dataset.fingerprint[:15]
    found = f"{_of_chief(int(own, 16), peers, strategy):015x}"
    if found != own:
        raise BadData(
            f"worker {peers.worker}: --data: expected the data of worker 0, with the fingerprint {found}, "
            f"found {own}; give all workers the same copy"
        )


def _with_found_batch(config: TrainConfig, peers: Peers, strategy: Any, fitting: int | None) -> TrainConfig:
    """With a number in the place of an automatic batch per replica, the same on all workers.

    As a setting it is kept in config.json, so that the learning rate stays what it was when the run goes on.

    Args:
        fitting: what fits this worker's device, of which the chief's counts; None where the global batch is fixed.
    """
    if config.batch_per_replica != "auto":
        return config
    if fitting is None:
        found = max(1, config.effective_global_batch(1) // strategy.num_replicas_in_sync)
    else:
        found = _of_chief(fitting, peers, strategy)
    return config.model_copy(update={"batch_per_replica": found})


def _plan(config: TrainConfig, peers: Peers, replicas: int, examples: int) -> Plan:
    from trainer.data.pipeline import worker_slices

    global_batch = config.effective_global_batch(replicas)
    return Plan(examples, global_batch, config.epochs, tuple(worker_slices(global_batch, peers.workers)))


def _leave_results(run: RunDirectory, training: Any) -> None:
    """The exported network and the report."""
    from trainer.checkpoints.averaging import averaged_weights
    from trainer.results.exporting import export
    from trainer.results.legend import Legend
    from trainer.results.report import collect
    from trainer.results.report_page import page
    from trainer.results.trained import Trained

    with averaged_weights(training.network.model, training.optimizer):
        trained = Trained(training.network.model, Legend.of(training.dataset), training.config)
        export(trained.model, run.export, trained.legend)
        report = page([collect(run, run.path.resolve().name, trained, training.dataset)])
        write_atomically(run.report, report.encode())


def _predict(model: Any, optimizer: Any, images: Any) -> Any:
    """uint8 images [b, H, W, 3] -> class indices uint8 [b, H, W]."""
    import numpy as np

    from trainer.checkpoints.averaging import averaged_weights

    with averaged_weights(model, optimizer):
        return np.argmax(model(images, training=False), axis=-1).astype(np.uint8)


def _table(scores: Any) -> str:
    """The closing table: IoU of each class and what follows from all of them."""
    rows = [(name, f"{value:.4f}") for name, value in scores.iou.items()]
    rows += [
        ("mIoU", f"{scores.miou:.4f}"),
        ("mIoU without background", f"{scores.miou_without_background:.4f}"),
        ("pixel accuracy", f"{scores.pixel_accuracy:.4f}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(
        ["", f"{'IoU on the test split':{width}}", *(f"  {name:{width}}  {value}" for name, value in rows)]
    )
