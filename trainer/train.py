"""The training process: sets everything up in the one order that works, trains, and leaves the results behind.

The supervisor starts it as ``python -m trainer.train RUN`` for every attempt.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainer.batch_size import choose_batch
from trainer.cluster import Cluster, check_gpus, configure_threads, make_strategy, threads_of
from trainer.config import TrainConfig
from trainer.exit_codes import DONE, BadData, MaskfleetError, PeerLost, Stopped, TrainingFailed, reason
from trainer.plan import Plan
from trainer.run_directory import RunDirectory, write_atomically
from trainer.settings import read_settings_file
from trainer.supervisor import HEARTBEAT_VARIABLE

HEARTBEAT_SECONDS = 1.0
"""Between two heartbeats from a thread."""


def main(arguments: list[str]) -> int:
    """Trains the run in the directory that ``arguments`` names; returns the exit code."""
    # Until the first step almost everything that is made stays: looking through it for garbage took .8 s. And Keras
    # imports pyplot, for half a second, for a function that nothing calls here.
    gc.set_threshold(100_000, 20, 20)
    sys.modules["matplotlib.pyplot"] = None  # type: ignore[assignment]
    run = RunDirectory(Path(arguments[0]))
    try:
        config = TrainConfig.resolve([read_settings_file(run.config)])
        train_run(run, config, Cluster.from_environment())
    except MaskfleetError as error:
        print(f"error: {error}" if not isinstance(error, Stopped) else str(error), flush=True)
        return error.exit_code
    return DONE


def train_run(run: RunDirectory, config: TrainConfig, cluster: Cluster) -> None:
    """Trains ``run`` to its end, going on from its newest checkpoint.

    Raises:
        MaskfleetError: see :func:`trainer.loop.train`; PeerLost when another worker is gone.
    """
    # Slow imports come after the settings are known to be good.
    configure_threads(threads_of(config, cluster))
    check_gpus()
    from trainer.data.cache import load_dataset

    get_on = _heartbeat()
    fitting = None
    with _getting_on(get_on):  # to download and read a large data set takes longer than a start may
        dataset = load_dataset(config.data, config.data_dir, config.image_size, tell=_say)
        if config.batch_per_replica == "auto" and config.global_batch is None:
            fitting = choose_batch(run, len(dataset.classes), len(dataset.train) // cluster.workers)
    strategy = make_strategy(cluster)

    import tensorflow as tf

    try:
        _train(run, config, cluster, strategy, dataset, fitting, get_on)
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        raise PeerLost(_lost_peer(cluster, error)) from None
    except (tf.errors.InternalError, tf.errors.DeadlineExceededError, tf.errors.UnknownError) as error:
        if cluster.workers == 1:
            raise
        raise PeerLost(_lost_peer(cluster, error)) from None
    except (OSError, tf.errors.ResourceExhaustedError) as error:
        raise TrainingFailed(_no_room(run, error)) from None


def _train(
    run: RunDirectory,
    config: TrainConfig,
    cluster: Cluster,
    strategy: Any,
    dataset: Any,
    fitting: int | None,
    get_on: Callable[[], None],
) -> None:
    """Builds what trains, restores it on the chief and hands it to all, trains, and leaves the results behind."""
    import tensorflow as tf

    from trainer.checkpoints import (
        CheckpointStore,
        broadcast_from_chief,
        optimizer_by_path,
        values_by_name,
        weights_by_path,
    )
    from trainer.features import cached_features
    from trainer.inspection import state_digest
    from trainer.loop import train
    from trainer.losses import build_loss
    from trainer.models.network import build_network
    from trainer.profiling import Profiler
    from trainer.record import check_goes_on, record_start
    from trainer.schedules import build_optimizer, learning_rate
    from trainer.steps import StopFlag, Training, TrainingState
    from trainer.summaries import Summaries

    _check_data(cluster, strategy, dataset)
    config = _with_found_batch(config, cluster, strategy, fitting)
    plan = _plan(config, cluster, strategy.num_replicas_in_sync, len(dataset.train.names))
    # What may be refused comes before anything is written.
    if cluster.is_chief:
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
    signal.signal(signal.SIGTERM, lambda *_: stop.tell())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor passes it on

    everything = tf.train.Checkpoint(
        weights=weights_by_path(network.model), optimizer=optimizer_by_path(optimizer), state=state
    )
    checkpoints = summaries = profiler = manifest = None
    if cluster.is_chief:
        checkpoints = CheckpointStore(run, everything, config.keep)
        checkpoints.delete_incomplete()
        manifest = checkpoints.restore()
    variables = [variable.value for variable in (*network.model.variables, *optimizer.variables)]
    broadcast_from_chief(strategy, [*variables, *state.variables], is_chief=cluster.is_chief)
    if cluster.is_chief:
        predict = functools.partial(_predict, network.model, optimizer)
        summaries = Summaries(run, plan, dataset, predict, int(state.step.numpy()), int(state.validated.numpy()))
        trainable = sum(math.prod(variable.shape) for variable in network.model.trainable_variables)
        facts = record_start(run, config, cluster, plan, dataset, strategy.num_replicas_in_sync, trainable)
        if manifest is None:
            summaries.settings({**config.model_dump(mode="json"), **facts})
        else:
            _say(f"goes on from step {manifest.step} of {plan.steps}")
        if config.profiled is not None:
            profiler = Profiler(run.tensorboard / "train", *config.profiled)

    started = time.monotonic()
    features = cached_features(config, network, dataset, plan.local_batch(cluster.worker), _say, get_on)
    training_seconds = (manifest.training_seconds if manifest else 0.0) + time.monotonic() - started
    training = Training(
        config, cluster, strategy, dataset, features, network, optimizer, loss, plan, state, stop, get_on,
        checkpoints, summaries, profiler,
    )  # fmt: skip
    try:
        scores = train(training, training_seconds)
        if summaries is not None and config.export:
            with _getting_on(get_on):
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
    if cluster.workers > 1:
        digest = state_digest(values_by_name(everything))
        print(
            f"worker {cluster.worker} ends with step {int(state.step.numpy())} and the state sha256 {digest}",
            flush=True,
        )


def _say(line: str) -> None:
    print(line, flush=True)


def _check_data(cluster: Cluster, strategy: Any, dataset: Any) -> None:
    """Every worker takes its examples from its own disk: they must be the same everywhere.

    Raises:
        BadData: they are not.
    """
    own = dataset.fingerprint[:15]
    found = f"{_of_chief(int(own, 16), cluster, strategy):015x}"
    if found != own:
        raise BadData(
            f"worker {cluster.worker}: --data: expected the data of worker 0, with the fingerprint {found}, "
            f"found {own}; give all workers the same copy"
        )


def _with_found_batch(config: TrainConfig, cluster: Cluster, strategy: Any, fitting: int | None) -> TrainConfig:
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
        found = _of_chief(fitting, cluster, strategy)
    return config.model_copy(update={"batch_per_replica": found})


def _of_chief(value: int, cluster: Cluster, strategy: Any) -> int:
    """The chief's ``value``, on every worker."""
    if cluster.workers == 1:
        return value
    import tensorflow as tf

    from trainer.checkpoints import broadcast_from_chief

    with strategy.scope():
        variable = tf.Variable(value, dtype=tf.int64, trainable=False)
    broadcast_from_chief(strategy, [variable], is_chief=cluster.is_chief)
    return int(variable.numpy())


def _plan(config: TrainConfig, cluster: Cluster, replicas: int, examples: int) -> Plan:
    from trainer.data.pipeline import worker_slices

    global_batch = config.effective_global_batch(replicas)
    return Plan(examples, global_batch, config.epochs, tuple(worker_slices(global_batch, cluster.workers)))


def _leave_results(run: RunDirectory, training: Any) -> None:
    """The exported network and the report."""
    from trainer.averaging import averaged_weights
    from trainer.exporting import export
    from trainer.legend import Legend
    from trainer.report import collect
    from trainer.report_page import page
    from trainer.trained import Trained

    with averaged_weights(training.network.model, training.optimizer):
        trained = Trained(training.network.model, Legend.of(training.dataset), training.config)
        export(trained.model, run.export, trained.legend)
        report = page([collect(run, run.path.resolve().name, trained, training.dataset)])
        write_atomically(run.report, report.encode())


def _predict(model: Any, optimizer: Any, images: Any) -> Any:
    """uint8 images [b, H, W, 3] -> class indices uint8 [b, H, W]."""
    import numpy as np

    from trainer.averaging import averaged_weights

    with averaged_weights(model, optimizer):
        return np.argmax(model(images, training=False), axis=-1).astype(np.uint8)


def _heartbeat() -> Callable[[], None]:
    """Tells the supervisor, if there is one, that training gets on."""
    pipe = os.environ.get(HEARTBEAT_VARIABLE)
    if pipe is None:
        return lambda: None
    descriptor = int(pipe)

    def get_on() -> None:
        os.write(descriptor, b".")

    return get_on


@contextlib.contextmanager
def _getting_on(get_on: Callable[[], None]) -> Iterator[None]:
    """Has a thread say so for as long as something is done that is long and has no steps to be told."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            get_on()

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _wait_for_all(strategy: Any) -> None:
    """No worker leaves before the chief has written everything: until then a lost worker must be replaced."""
    if strategy.num_replicas_in_sync > 1:
        import tensorflow as tf

        def in_replica() -> tf.Tensor:
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(1.0))

        tf.function(lambda: strategy.run(in_replica), autograph=False)()


def _lost_peer(cluster: Cluster, error: Exception) -> str:
    words = " ".join(str(getattr(error, "message", error)).split())
    return f"worker {cluster.worker} lost a peer ({type(error).__name__}: {words[:200]})"


def _no_room(run: RunDirectory, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or run.path}: {reason(error)}; free some space, if that is it, and resume the run"
    return (
        f"there is no room, in memory or under {run.path}: {reason(error)}; lower --batch-per-replica or --image-size, "
        "or free some space, and resume the run"
    )


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
