"""What config.json keeps of a run beside its settings, so that it can be explained and repeated."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from maskfleet.child_processes import report_line
from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.files import write_atomically
from maskfleet.own_code import pack, read_sources
from maskfleet.peers import Peers
from maskfleet.records import Examples, Resolved, RunRecord
from maskfleet.run_directory import RunDirectory
from trainer.checkpoints.reading import best_checkpoint
from trainer.data.cache import Dataset, counted
from trainer.own_code import loaded_fingerprint
from trainer.results.legend import Legend
from trainer.results.trained_on import record_examples
from trainer.training.plan import Plan
from trainer.training.strategy import threads_of


def check_goes_on(run: RunDirectory, config: TrainConfig, dataset: Dataset) -> None:
    """Whether what the run has so far can be gone on with.

    Raises:
        BadSettings: the data or its size is not what the run began with, or its scores are of another kind.
    """
    before = RunRecord.read(run)
    if before.resolved is not None and before.resolved.fit != config.fit:
        raise BadSettings(
            f"--fit {config.fit}: the run began with {before.resolved.fit}, and its images are kept for that; leave it "
            "out or start a new run"
        )
    size = 0 if before.resolved is None else before.resolved.image_size
    if size not in (0, config.image_size.written):
        raise BadSettings(
            f"--image-size {config.image_size}: the run began with {size}, and its images are kept at that size; "
            "leave it out or start a new run"
        )
    known, place = before.data_fingerprint, run.config
    examples = Examples.read(run)
    if known is None and examples is not None:
        # A pod's settings come from its Job, and what the run was trained on from the destination.
        known, place = examples.fingerprint, run.examples
    if known not in (None, dataset.fingerprint):
        raise BadSettings(
            f"{place}: the data has changed since the run began, or how it is divided: expected fingerprint "
            f"{known}, found {dataset.fingerprint} of {counted(dataset.pictures)} images; restore the data and the "
            "settings that divide it (--validation-share, --group-by, --folds, --fold), or start a new run"
        )
    known_code = before.code_fingerprint or (None if examples is None else examples.code_fingerprint)
    if config.own_functions and known_code not in (None, now := loaded_fingerprint()):
        report_line(
            f"warning: your own code is not what the run began with: fingerprint {known_code}, now {now}; "
            f"{run.code} is what it was"
        )
    best_by = before.best_by
    if best_by not in (None, config.best_by) and best_checkpoint(run) is not None:
        raise BadSettings(
            f"--best-by {config.best_by}: the run's checkpoints have scores by {best_by}, which can't be compared "
            "with others; leave it out or start a new run"
        )


def record_start(
    run: RunDirectory,
    config: TrainConfig,
    peers: Peers,
    plan: Plan,
    dataset: Dataset,
    replicas: int,
    trainable_parameters: int,
    run_id: str | None,
) -> dict[str, Any]:
    """Prints how the run is scaled and what has changed since it was last started; completes config.json.

    The global batch becomes a setting, so that the run goes on, or is repeated, with the same batches on any
    number of workers.

    Args:
        run_id: of the checkpoint that the run goes on from: a pod's settings come from its Job, which does not know it.
    """
    before = RunRecord.read(run)
    resolved = Resolved(
        workers=peers.workers,
        replicas=replicas,
        global_batch=plan.global_batch,
        scaled_learning_rate=config.scaled_learning_rate(plan.global_batch),
        steps=plan.steps,
        trainable_parameters=trainable_parameters,
        threads=threads_of(config, peers),
        image_size=config.image_size.written,
        fit=config.fit,
        **Legend.of(dataset).to_json(),
        training_examples=plan.examples,
        test_examples=len(dataset.test.pictures),
        validation_examples=0 if dataset.validation is None else len(dataset.validation.pictures),
        record_bytes=0 if dataset.packed is None else round(dataset.packed.manifest.record_size),
    )
    report_line(_scaling(config, peers, plan, dataset, replicas))
    if dataset.validation is not None or config.patience:
        report_line(split_roles(config, dataset))
    facts, old = asdict(resolved), asdict(before.resolved or resolved)
    changes = [f"{key} {old[key]} -> {value}" for key, value in facts.items() if old[key] != value]
    if changes:
        report_line(f"changed since the run was last started: {', '.join(changes)}")
    code = loaded_fingerprint() if config.own_functions else None
    versions = {name: _version(name) for name in ("maskfleet", "tensorflow", "keras", "numpy")}
    RunRecord(
        settings={**config.model_dump(mode="json"), "global_batch": plan.global_batch},
        resolved=resolved,
        data_fingerprint=dataset.fingerprint,
        code_fingerprint=code,
        best_by=config.best_by,
        versions={"python": platform.python_version(), **versions},
        git_commit=_git_commit(),
        started=before.started or time.time(),
        run_id=before.run_id or run_id or uuid.uuid4().hex,
    ).write(run)
    if code is not None and config.code is not None:
        write_atomically(run.code, pack(read_sources(config.code)))
    record_examples(run, dataset, code)
    return facts


def split_roles(config: TrainConfig, dataset: Dataset) -> str:
    """What is chosen on which split, in one line."""
    if dataset.validation is not None:
        roles = f"epochs are validated on the validation split, and the best of them by {config.best_by} counts; "
        if dataset.test:
            return f"{roles}the test split is scored once, at the end"
        return f"{roles}the data has no test split, so what is chosen has no score of its own"
    if config.patience:
        return (
            f"warning: --patience {config.patience} chooses the end of training on the test split, as the data has no "
            "validation split: the scores are too good; --validation-share .1 holds out a tenth of the training images"
        )
    return "epochs are validated on the test split, as the data has no validation split; the last one counts"


def _scaling(config: TrainConfig, peers: Peers, plan: Plan, dataset: Dataset, replicas: int) -> str:
    shares = [plan.local_batch(worker) for worker in range(peers.workers)]
    split = "" if peers.workers == 1 else f" ({' + '.join(map(str, shares[:8]))}{' + …' if shares[8:] else ''})"
    return (
        f"{dataset.name}: {counted(dataset.pictures)} examples; "
        f"{peers.workers} worker(s), {replicas} replica(s); global batch {plan.global_batch}{split}; learning rate "
        f"{config.scaled_learning_rate(plan.global_batch):g} ({config.learning_rate_scaling} scaling of "
        f"{config.learning_rate:g}); {plan.steps} steps"
    )


def _version(package: str) -> str | None:
    for name in (package, f"{package}-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _git_commit() -> str | None:
    """The commit of the code that trains, None outside a checkout."""
    here = Path(__file__).parent
    try:
        command = ["git", "-C", str(here), "rev-parse", "HEAD"]
        # Of thousands of workers TF_CONFIG is more than the kernel passes on.
        environment = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=5)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
