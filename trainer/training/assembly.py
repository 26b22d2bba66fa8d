"""Builds what trains, restores it on the chief and hands it to all workers, trains, and leaves the results behind."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.checkpoint_manifest import CheckpointManifest
from maskfleet.child_processes import report_line
from maskfleet.config import TrainConfig
from maskfleet.errors import BadData, Stopped, TrainingFailed
from maskfleet.files import write_atomically
from maskfleet.goodput import RESULTS, STARTUP
from maskfleet.peers import Peers
from maskfleet.phase_log import PhaseLog
from maskfleet.records import FinalScores, SplitScores
from maskfleet.run_directory import RunDirectory
from maskfleet.start_setting import start_place
from trainer.checkpoints.averaging import averaged_weights
from trainer.checkpoints.inspection import state_digest
from trainer.checkpoints.reading import optimizer_by_path, values_by_name, weights_by_path
from trainer.checkpoints.store import CheckpointStore
from trainer.data.cache import Dataset
from trainer.data.pipeline import worker_slices
from trainer.data.source import Source
from trainer.models.network import Network, build_network
from trainer.objective.losses import build_loss
from trainer.objective.metrics import most_likely
from trainer.objective.optimizers import build_optimizer
from trainer.objective.schedules import learning_rate
from trainer.training.collectives import broadcast_from_chief, value_of_chief, wait_for_all
from trainer.training.ending import settle
from trainer.training.features import cached_features
from trainer.training.heartbeat import beating
from trainer.training.loop import train
from trainer.training.own_checks import check_own, check_own_network
from trainer.training.pace import PaceMeter
from trainer.training.plan import Plan
from trainer.training.precision import bfloat16_unit
from trainer.training.profiling import Profiler
from trainer.training.run_record import check_goes_on, record_start, split_roles
from trainer.training.starting import start_from
from trainer.training.state import Loss, StopFlag, Training, TrainingState
from trainer.training.summaries import Summaries
from trainer.training.tracker import Tracking


@dataclass(frozen=True)
class Worker:
    """What one training process has before anything is built.

    Attributes:
        source: the data as it lies, of which ``dataset`` is the cache.
        fitting: examples of a replica's batch that fit this worker's device; None unless that was to be found out.
        heartbeat: called whenever something was achieved, for the supervisor's watchdog.
        phases: takes down what the time is spent on.
    """

    run: RunDirectory
    config: TrainConfig
    peers: Peers
    strategy: tf.distribute.Strategy
    dataset: Dataset
    source: Source
    fitting: int | None
    heartbeat: Callable[[], None]
    phases: PhaseLog = field(default_factory=lambda: PhaseLog(None))


def train_and_leave_results(worker: Worker) -> None:
    """Trains the run to its end, going on from its newest checkpoint.

    Raises:
        MaskfleetError: see :func:`assemble` and :func:`trainer.training.loop.train`.
    """
    training, everything, training_seconds = assemble(worker)
    summaries = training.summaries
    try:
        last = train(training, training_seconds)
        worker.phases.begin(RESULTS)
        ending = _ending(training, everything) if training.peers.workers > 1 else None
        scores = settle(training, last, worker.source.splits[worker.dataset.judge])
        if summaries is not None:
            summaries.final(scores)
        if summaries is not None and training.config.export:
            with beating(worker.heartbeat):
                _leave_results(worker, training)
    except (Stopped, TrainingFailed) as ending:
        if summaries is not None:
            with contextlib.suppress(OSError, tf.errors.OpError):  # of a full disk, which may have been the cause
                summaries.end("stopped" if isinstance(ending, Stopped) else "failed")
        raise
    finally:
        worker.phases.close()
        if training.profiler is not None:
            training.profiler.stop()
    if summaries is not None:
        summaries.end("done")
        print(_table(scores), flush=True)
    wait_for_all(training.strategy)
    if ending is not None:
        report_line(ending)


def assemble(worker: Worker) -> tuple[Training, tf.train.Checkpoint, float]:
    """All that the loop works on, the same state on every worker.

    Returns:
        The training, its whole state under the names that a checkpoint has, and the seconds that were spent in training
        steps before.

    Raises:
        BadSettings: the settings do not go with the data, the number of replicas, or the run's checkpoint.
        BadData: the workers' data differ, or are not those that the run began with.
    """
    run, peers, strategy, dataset = worker.run, worker.peers, worker.strategy, worker.dataset
    _check_data(worker)
    config = _with_chosen_precision(worker, _with_found_batch(worker))
    plan = _plan(config, peers, strategy.num_replicas_in_sync, len(dataset.train.names))
    # What may be refused comes before anything is written.
    if peers.is_chief:
        check_goes_on(run, config, dataset)
        check_own(config, dataset)
    loss = loss_for(config, dataset)
    with strategy.scope():
        network, optimizer = _network_and_optimizer(config, plan, len(dataset.classes))
        state = TrainingState(len(dataset.classes))
    stop = _stop_flag()

    everything = tf.train.Checkpoint(
        weights=weights_by_path(network.model), optimizer=optimizer_by_path(optimizer), state=state
    )
    checkpoints = manifest = summaries = profiler = None
    worker.phases.begin_start(STARTUP)
    if peers.is_chief:
        checkpoints = CheckpointStore(run, everything, config.keep)
        checkpoints.delete_incomplete()
        manifest = checkpoints.restore()
        if manifest is None:
            check_own_network(config, network, len(dataset.classes))
        if manifest is None and config.start_from is not None:
            place = start_place(config.start_from, run)
            report_line(start_from(place, config, network, dataset.classes))
    variables = [variable.value for variable in (*network.model.variables, *optimizer.variables)]
    broadcast_from_chief(strategy, [*variables, *state.variables], is_chief=peers.is_chief)
    worker.phases.begin_start(STARTUP, step=int(state.step.numpy()))
    if peers.is_chief:
        predict = functools.partial(_predict, network, optimizer)
        first_step, validated = int(state.step.numpy()), int(state.validated.numpy())
        tracking = config.tracker and Tracking(config.tracker, run.path, config.model_dump(mode="json"))
        summaries = Summaries(run, plan, dataset, predict, first_step, validated, tracking or None, worker.phases)
        _record_start(worker, config, plan, network, summaries, manifest)
        if config.profiled is not None:
            profiler = Profiler(run.tensorboard / "train", *config.profiled)

    started = time.monotonic()
    local_batch = plan.local_batch(peers.rank)
    features = cached_features(config, network, dataset, local_batch, report_line, worker.heartbeat)
    training_seconds = (manifest.training_seconds if manifest else 0.0) + time.monotonic() - started
    training = Training(
        config, peers, strategy, dataset, features, network, optimizer, loss, plan, state, stop, worker.heartbeat,
        checkpoints, summaries, profiler, worker.phases, PaceMeter(local_batch * peers.workers / plan.global_batch),
    )  # fmt: skip
    return training, everything, training_seconds


def loss_for(config: TrainConfig, dataset: Dataset) -> Loss:
    """What is trained for on ``dataset``.

    Raises:
        BadSettings: the loss's settings do not go with each other or with the classes.
    """
    frequencies = None if dataset.packed is None else dataset.packed.manifest.splits["train"].class_frequencies
    return build_loss(config, len(dataset.classes), dataset.train.masks, frequencies)


def _network_and_optimizer(config: TrainConfig, plan: Plan, classes: int) -> tuple[Network, keras.Optimizer]:
    network = build_network(config, classes)
    schedule = learning_rate(
        config,
        steps_per_epoch=plan.examples / plan.global_batch,
        total_steps=plan.steps,
        scale=config.scaled_learning_rate(plan.global_batch) / config.learning_rate,
    )
    optimizer = build_optimizer(config, schedule, network.encoder)
    optimizer.build(network.model.trainable_variables)
    return network, optimizer


def _stop_flag() -> StopFlag:
    """Set by SIGTERM. TensorFlow's own handler swallows it; ours has to come after the strategy that installs that."""
    stop = StopFlag()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor passes it on
    return stop


def _record_start(
    worker: Worker,
    config: TrainConfig,
    plan: Plan,
    network: Network,
    summaries: Summaries,
    manifest: CheckpointManifest | None,
) -> None:
    """Into config.json, and into TensorBoard if the run is new."""
    trainable = sum(math.prod(variable.shape) for variable in network.model.trainable_variables)
    replicas = worker.strategy.num_replicas_in_sync
    run_id = None if manifest is None else manifest.run_id
    facts = record_start(worker.run, config, worker.peers, plan, worker.dataset, replicas, trainable, run_id)
    if manifest is None:
        roles = split_roles(config, worker.dataset)
        summaries.settings({**config.model_dump(mode="json"), **facts}, roles)
    else:
        report_line(f"goes on from step {manifest.step} of {plan.steps}")


def _check_data(worker: Worker) -> None:
    """Every worker takes its examples from its own disk: they must be the same everywhere.

    Raises:
        BadData: they are not.
    """
    own = worker.dataset.fingerprint[:15]
    found = f"{value_of_chief(int(own, 16), worker.peers, worker.strategy):015x}"
    if found != own:
        raise BadData(
            f"worker {worker.peers.worker}: --data: expected the data of worker 0, with the fingerprint {found}, "
            f"found {own}; give all workers the same copy"
        )


def _with_found_batch(worker: Worker) -> TrainConfig:
    """With a number in the place of an automatic batch per replica, the same on all workers.

    As a setting it is kept in config.json, so that the learning rate stays what it was when the run goes on. What fits
    the chief's device counts; where the global batch is fixed it follows from that.
    """
    config = worker.config
    if config.batch_per_replica != "auto":
        return config
    if worker.fitting is None:
        replicas = worker.strategy.num_replicas_in_sync
        found = max(1, config.effective_global_batch(1) // (replicas * config.accumulate))
    else:
        found = value_of_chief(worker.fitting, worker.peers, worker.strategy)
    return config.model_copy(update={"batch_per_replica": found})


def _with_chosen_precision(worker: Worker, config: TrainConfig) -> TrainConfig:
    """With a precision in the place of an automatic one: the chief's, on all workers, and kept in config.json."""
    if config.precision != "auto":
        return config
    unit = bfloat16_unit()
    halved = value_of_chief(int(unit is not None), worker.peers, worker.strategy)
    if worker.peers.is_chief:
        found = f"bfloat16, which {unit} multiplies" if halved else "float32, as nothing here multiplies bfloat16"
        report_line(f"--precision auto: {found}")
    return config.model_copy(update={"precision": "bfloat16" if halved else "float32"})


def _plan(config: TrainConfig, peers: Peers, replicas: int, examples: int) -> Plan:
    global_batch = config.effective_global_batch(replicas)
    return Plan(examples, global_batch, config.epochs, tuple(worker_slices(global_batch, peers.workers)))


def _leave_results(worker: Worker, training: Training) -> None:
    """The exported network and the report."""
    # Matplotlib, Keras's exporters and what they import are needed at the end alone.
    from trainer.results.exporting import export
    from trainer.results.legend import Legend
    from trainer.results.report import collect
    from trainer.results.report_page import page
    from trainer.results.trained import Trained

    run = worker.run
    with averaged_weights(training.network.model, training.optimizer):
        config = training.config
        legend = dataclasses.replace(Legend.of(training.dataset), fit=config.fit)
        trained = Trained(training.network.model, legend, config)
        export(trained.model, run.export, legend)
        judges = worker.source.splits[training.dataset.judge]
        report = page([collect(run, run.path.resolve().name, trained, judges)])
        write_atomically(run.report, report.encode())


def _predict(network: Network, optimizer: keras.Optimizer, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 images [b, H, W, 3] -> class indices uint8 [b, H, W]."""
    with averaged_weights(network.model, optimizer):
        return np.asarray(most_likely(network.logits(tf.constant(images))), np.uint8)


def _ending(training: Training, everything: tf.train.Checkpoint) -> str:
    step, digest = int(training.state.step.numpy()), state_digest(values_by_name(everything))
    return f"worker {training.peers.worker} ends with step {step} and the state sha256 {digest}"


def _table(scores: FinalScores) -> str:
    """The closing table: IoU of each class and what follows from all of them, by each size that was counted at."""
    sizes: dict[str, SplitScores] = {scores.size: scores}
    if scores.at_network_size is not None:
        sizes["network"] = scores.at_network_size
    columns = [
        {
            **each.iou,
            "mIoU": each.miou,
            "mIoU without background": each.miou_without_background,
            "pixel accuracy": each.pixel_accuracy,
        }
        for each in sizes.values()
    ]
    width = max(map(len, columns[0]))
    lines = ["", f"IoU {scores.title}", f"  {'size':{width}}" + "".join(f"  {size:>7}" for size in sizes)]
    for name in columns[0]:
        values = (column.get(name) for column in columns)
        lines.append(f"  {name:{width}}" + "".join(f"  {math.nan if v is None else v:7.4f}" for v in values))
    return "\n".join(lines)
