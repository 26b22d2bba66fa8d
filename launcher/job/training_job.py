"""TrainingJob: what the user asked for, validated. Each field is at once flag, file key and documentation."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

import click
import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from launcher.job.labels import SPOT_LABELS
from launcher.job.places import BUCKETS, Mount, Place, parse_mount, parse_place
from launcher.job.pod_settings import (
    check_free,
    image_name,
    object_name,
    parse_annotation,
    parse_label,
    parse_secret_variable,
    parse_toleration,
    parse_variable,
)
from launcher.job.quantities import Duration, Quantity
from maskfleet.config import TrainConfig, absolute_path, is_address
from maskfleet.data_places import PACKED, data_path, packed_place
from maskfleet.data_setting import check_kind
from maskfleet.errors import BadSettings
from maskfleet.peers import SHRINK_AFTER
from maskfleet.settings import Layer, Settings, read_settings_file
from maskfleet.start_setting import check_start
from maskfleet.text import format_duration
from maskfleet.worker_count import WorkerCount

IMAGE = f"maskfleet/trainer:{version('maskfleet')}"
GPU_IMAGE = f"{IMAGE}-gpu"
DATA_PATH = "/data"
OUTPUT_PATH = "/output"
CACHE_PATH = "/cache"
SCRATCH = "20Gi"
"""Of a worker's local disk for each of its folders, where nothing is asked for: many clusters count no local disk."""

STOP_SECONDS = 35
"""Of a stopped worker's grace, what its trainer may take to save and leave; its supervisor ends it after 26 s."""
GRACE_SECONDS = 60
STREAMING_GRACE_SECONDS = 600
"""A worker's grace with an output. The streamer ends once all is sent, so this is for an outage or a slow link.

At a run's own end it is all the time there is for the last checkpoint and the export. After a deletion or an eviction
the replacement waits for it too (``podReplacementPolicy: Failed``), and loses nothing by that: it goes on from what is
in the output, so without the rest it would repeat steps, and in an outage it could not start at all. Ten minutes are
what the cluster autoscaler waits for unless told otherwise. A node that goes at once, as spot nodes do, waits for
nobody.
"""


def _job_name(text: str) -> str:
    # The pods of the last worker are called NAME-999999 at most, and a host name has 63 characters.
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?", text):
        raise ValueError("expected at most 52 lower-case letters, digits and '-', starting with a letter")
    return text


def _form(parse: Callable[[str], object]) -> AfterValidator:
    """A text that can be parsed, as it is. Each of a flag's values is looked at alone: a message names no other one."""

    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


Variable = Annotated[str, _form(parse_variable)]
SecretVariable = Annotated[str, _form(parse_secret_variable)]
Label = Annotated[str, _form(parse_label)]
Annotation = Annotated[str, _form(parse_annotation)]
Toleration = Annotated[str, _form(parse_toleration)]
ImageName = Annotated[str, AfterValidator(image_name)]
ObjectName = Annotated[str, AfterValidator(object_name)]
QueueName = Annotated[str, Field(max_length=63), AfterValidator(object_name)]  # it is the value of a label
Workers = Annotated[
    int | str,
    BeforeValidator(lambda text: WorkerCount.parse(text).written),
    WithJsonSchema({"type": "string", "format": "workers"}),
]
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


class TrainingJob(Settings):
    """A training run on Kubernetes.

    ``training`` holds the trainer's own settings: on the command line what follows ``--``, in a job file
    the key ``training``.
    """

    name: Annotated[str, AfterValidator(_job_name)] = Field(
        default_factory=lambda: f"train-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
        description="of the job and its objects; the same name again finishes an interrupted submit",
    )
    workers: Workers = Field(
        default=1,
        description="pods that train together; 2..8: up to 8, and fewer, but at least 2, for as long as the others "
        "find no room",
    )
    shrink_after: Duration | None = Field(
        default=None,
        description="how long the others of a range of --workers are waited for before fewer go on; default: "
        f"{format_duration(SHRINK_AFTER)}",
    )
    image: ImageName = Field(
        default=IMAGE, description=f"container image of the trainer; default with GPUs: {GPU_IMAGE}"
    )
    sidecar_image: ImageName | None = Field(
        default=None,
        description="image of the streamer and reporter (target 'launcher'); default: the trainer's",
    )
    image_pull_secret: ObjectName | None = Field(default=None, description="Secret for the image's registry")
    image_pull_policy: str = Field(default="IfNotPresent", description="IfNotPresent, Always or Never")

    # What each worker gets
    cpu: Quantity = Field(
        default="2", description="CPUs of a worker, requested and limit; the trainer's threads follow it"
    )
    memory: Quantity = Field(default="4Gi", description="memory of a worker, requested and limit")
    gpus_per_worker: NotNegative = Field(default=0, description="nvidia.com/gpu of a worker")
    streamer_cpu: Quantity | None = Field(
        default=None,
        description="CPUs of the streamer beside each trainer, requested and limit; default: 50m requested, 1 at most",
    )
    streamer_memory: Quantity | None = Field(
        default=None, description="memory of the streamer, requested and limit; default: 128Mi requested, 1Gi at most"
    )
    scratch: Quantity | None = Field(
        default=None,
        description="local disk of a worker for data, cache and run directory together, requested and limit; "
        f"default: none requested, and at most {SCRATCH} for each of the three",
    )

    # What goes in and out
    data: str | None = Field(
        default=None,
        description="a TFDS name, pvc:CLAIM/PATH, gs:// or s3://BUCKET/PATH (fetched once a pod), host:/PATH, or "
        "packed: before one of these places, which is read while training goes on; unless given after --, the "
        "trainer's --data becomes folder:/data",
    )
    code: Path | None = Field(
        default=None,
        description="folder of Python files with your own network, loss, data, augmentation or tracker, which the pods "
        "get (from the job's ConfigMap, or, if it is large, from --output); no image has to be built",
    )
    output: str | None = Field(
        default=None,
        description="where runs go and come back from: gs://, s3://BUCKET/PATH, pvc:CLAIM/PATH or host:/PATH",
    )
    cache_volume: str | None = Field(
        default=None,
        description="pvc:CLAIM/PATH or host:/PATH that keeps decoded data and cached features for every pod that comes "
        "after, of any job; default: each pod makes its own",
    )
    keep_checkpoints: Positive | None = Field(
        default=None, description="newest checkpoints that --output keeps, beside the best; default: all"
    )
    env: tuple[Variable, ...] = Field(default=(), description="VARIABLE=VALUE for every container; repeatable")
    env_from_secret: tuple[SecretVariable, ...] = Field(
        default=(), description="SECRET (all its keys) or VARIABLE=SECRET/KEY, for every container; repeatable"
    )
    mount: tuple[str, ...] = Field(
        default=(),
        description="pvc:CLAIM/PATH=/AT, host:/PATH=/AT, secret:NAME=/AT, configmap:NAME=/AT[:rw]; repeatable",
    )
    service_account: ObjectName | None = Field(
        default=None,
        description="existing ServiceAccount of the pods (workload identity); default: one made for the job",
    )

    # Where and when
    node_selector: tuple[Label, ...] = Field(default=(), description="LABEL=VALUE that nodes must have; repeatable")
    toleration: tuple[Toleration, ...] = Field(
        default=(), description="taint to tolerate: KEY, KEY=VALUE, with :EFFECT to name one; repeatable"
    )
    spot: bool = Field(default=False, description="only nodes that the cloud may take back (GKE, EKS, AKS, Karpenter)")
    priority: ObjectName | None = Field(default=None, description="PriorityClass")
    scheduler_name: ObjectName | None = Field(
        default=None, description="scheduler of the pods, such as volcano; default: the cluster's"
    )
    pod_label: tuple[Label, ...] = Field(
        default=(), description="LABEL=VALUE for the pods, as schedulers and policies ask for; repeatable"
    )
    pod_annotation: tuple[Annotation, ...] = Field(default=(), description="KEY=VALUE for the pods; repeatable")
    queue: QueueName | None = Field(default=None, description="Kueue LocalQueue that admits the job")

    # Failing and ending
    max_restarts: NotNegative = Field(
        default=6, description="pods that may fail by themselves before the job does; disruptions are not counted"
    )
    deadline: Duration | None = Field(default=None, description="fail the job after this long: 90s, 30m, 12h, 2d")
    ttl: Duration | None = Field(
        default="7d", validate_default=True, description="delete the ended job and its objects after this long: 12h, 7d"
    )
    grace: Duration | None = Field(
        default=None,
        description="for a worker that is stopped to save, and for one that has ended to stream the rest, at most; "
        "default: 10m with --output, else 60s",
    )

    training: TrainConfig = Field(default_factory=lambda: TrainConfig.resolve([]), description="the trainer's settings")

    @classmethod
    def flags(cls) -> list[click.Parameter]:
        return [flag for flag in super().flags() if flag.name != "training"]

    @classmethod
    def from_sources(cls, file: Path | None, flags: Layer, training: Sequence[str] = ()) -> Self:
        """The job of a file (``-f``) under the command line's flags and the trainer's ``training`` arguments.

        Raises:
            BadSettings: in one line, before anything is sent.
        """
        layers = [read_settings_file(file)] if file else []
        training_layers = []
        if layers and "training" in layers[0].values:
            values = dict(layers[0].values)
            section = values.pop("training")
            if not isinstance(section, dict):
                raise BadSettings(f"{file}: training: expected the trainer's keys and values, found {section!r}")
            layers = [Layer(layers[0].origin, values)]
            training_layers = [Layer(f"{file}: training.{{}}", section)]
        given = TrainConfig.parse_flags(training)
        job = cls.resolve([*layers, flags])
        if job.code is not None:
            job = job.model_copy(update={"code": absolute_path(job.code, "--code")})
        implied = Layer("--{}", job._implied_training())
        # A resolved job's file names the implied values too; what the flags imply anew goes over them.
        over = implied if "data" in flags.values else Layer("--{}", {})
        return job.with_training(TrainConfig.resolve([implied, *training_layers, over, given]))

    def with_training(self, config: TrainConfig) -> Self:
        """The same job with other settings of the trainer.

        Raises:
            BadSettings: they do not suit its number of replicas, or name no kind of data.
        """
        check_kind(config.data)
        if self.count.is_range and config.batch_per_replica == "auto" and config.global_batch is None:
            raise BadSettings(
                f"--workers {self.workers}: by --batch-per-replica auto the workers find how many examples a step has, "
                "and others of them would find others: expected --global-batch, or a number"
            )
        config.effective_global_batch(self._most_replicas)
        self._check_start(config.start_from)
        if config.code is not None and (self.code is not None or not config.code.is_absolute() or config.code.exists()):
            raise BadSettings(
                f"--code {config.code}: after -- it would be a folder of the image; write it before --, and the pods "
                "get it"
            )
        return self.model_copy(update={"training": config})

    @property
    def count(self) -> WorkerCount:
        """How many workers there are at least and at most."""
        return WorkerCount.parse(self.workers)

    @property
    def _most_replicas(self) -> int:
        return self.count.most * max(1, self.gpus_per_worker)

    @property
    def global_batch(self) -> int:
        """Examples of a step, where all workers are there; of a range with fewer too.

        Raises:
            BadSettings: there are fewer than replicas.
        """
        return self.training.effective_global_batch(self._most_replicas)

    def with_workers(self, workers: WorkerCount) -> Self:
        """The same job with another number of workers; the examples of a step, and so the learning rate, stay.

        Raises:
            BadSettings: a step has fewer examples than there would be replicas, or how many it has was found by the
                workers alone, or a queue admits the job, which may have no range.
        """
        if self.queue and workers.is_range:
            raise BadSettings(_number_for_queue(workers))
        if self.training.batch_per_replica == "auto" and self.training.global_batch is None:
            raise BadSettings(
                f"--workers {workers}: by --batch-per-replica auto the workers have found how many examples a step "
                "has, which others would find anew; submit it again with the --global-batch that their log names"
            )
        training = self.training.model_copy(update={"global_batch": self.global_batch})
        patience = self.shrink_after if workers.is_range else None
        return self.model_copy(update={"workers": workers.written, "shrink_after": patience}).with_training(training)

    def _check_start(self, start: str | None) -> None:
        """Raises BadSettings if a run would start from what no pod has."""
        if start is None:
            return
        if is_address(start):
            check_start(start)
        elif not self._is_mounted(start):
            raise BadSettings(
                f"--start-from {start}: a path of this machine is not in the pod: use gs://… or s3://…, or a path "
                "below a --mount"
            )

    def _is_mounted(self, path: str) -> bool:
        """Whether a path in the trainer's container is, or is below, a folder that holds what the job has asked for."""
        mounted = [*(mount.path for mount in self.mounts), *([DATA_PATH] if self.data_place else [])]
        return any(PurePosixPath(path).is_relative_to(folder) for folder in mounted)

    def _implied_training(self) -> Mapping[str, Any]:
        """What ``--data`` of the job says to the trainer."""
        if self.data is None:
            return {}
        kind = PACKED if self.data.startswith(PACKED) else "folder:"
        return {"data": self.data if self.data_place is None else f"{kind}{DATA_PATH}"}

    @cached_property
    def data_place(self) -> Place | None:
        """Where ``--data`` is mounted or fetched from; None for a data set that the trainer itself fetches."""
        return _data_place(self.data) if self.data else None

    def unmounted_data(self) -> str | None:
        """The path that the trainer's ``data`` names, if none of the job's mounts is there."""
        found = data_path(self.training.data)
        return None if found is None or self._is_mounted(found[1]) else found[1]

    @cached_property
    def output_place(self) -> Place | None:
        """Where ``--output`` is."""
        return parse_place(self.output, ("gs", "s3", "pvc", "host")) if self.output else None

    @cached_property
    def cache_place(self) -> Place | None:
        """Where ``--cache-volume`` is."""
        return parse_place(self.cache_volume, ("pvc", "host")) if self.cache_volume else None

    @cached_property
    def mounts(self) -> tuple[Mount, ...]:
        return tuple(map(parse_mount, self.mount))

    @cached_property
    def variables(self) -> tuple[tuple[str, str], ...]:
        """Names and values of ``--env``."""
        return tuple(map(parse_variable, self.env))

    @cached_property
    def secret_variables(self) -> tuple[tuple[str | None, str, str | None], ...]:
        """Variable, Secret and key of ``--env-from-secret``; without a variable and key it is all of the Secret."""
        return tuple(map(parse_secret_variable, self.env_from_secret))

    @cached_property
    def node_labels(self) -> tuple[tuple[str, str], ...]:
        return tuple(map(parse_label, self.node_selector))

    @cached_property
    def pod_labels(self) -> tuple[tuple[str, str], ...]:
        return tuple(map(parse_label, self.pod_label))

    @cached_property
    def pod_annotations(self) -> tuple[tuple[str, str], ...]:
        return tuple(map(parse_annotation, self.pod_annotation))

    @cached_property
    def tolerations(self) -> tuple[dict[str, str], ...]:
        return tuple(map(parse_toleration, self.toleration))

    @property
    def grace_seconds(self) -> int:
        """From a worker's end, or from the word to stop, until its pod is killed."""
        return self.grace or (STREAMING_GRACE_SECONDS if self.output else GRACE_SECONDS)

    @property
    def places(self) -> list[Place]:
        """All that the job names outside its pods."""
        named = [self.data_place, self.output_place, self.cache_place, *(mount.place for mount in self.mounts)]
        return [place for place in named if place is not None]

    @property
    def uses_host_paths(self) -> bool:
        """Whether a folder of the node is mounted, which Pod Security may forbid."""
        return any(place.kind == "host" for place in self.places)

    @property
    def destination(self) -> str | None:
        """Where this run's directory goes, as the streamer in the pod sees it: a URL or a folder."""
        place = self.output_place
        if place is None:
            return None
        if place.kind in BUCKETS:
            return f"{place.url}/{self.name}"
        # The streamer makes the folders itself: those that the kubelet makes for a subPath may be root's.
        return "/".join(part for part in (OUTPUT_PATH, place.path if place.kind == "pvc" else "", self.name) if part)

    def dump(self) -> dict[str, Any]:
        """What a job file holds: every key that is set; reads back as the same job."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_yaml(self) -> str:
        """A job file for ``-f``."""
        return yaml.safe_dump(self.dump(), sort_keys=False)

    def to_json(self) -> str:
        """The job on one line, the same for the same job: kept on the Kubernetes Job."""
        return json.dumps(self.dump(), sort_keys=True)

    @field_validator("data")
    @classmethod
    def _check_data(cls, text: str | None) -> str | None:
        if text:
            _data_place(text)
        return text

    @field_validator("output")
    @classmethod
    def _check_output(cls, text: str | None) -> str | None:
        if text is not None:
            parse_place(text, ("gs", "s3", "pvc", "host"))
        return text

    @field_validator("cache_volume")
    @classmethod
    def _check_cache_volume(cls, text: str | None) -> str | None:
        if text is not None:
            parse_place(text, ("pvc", "host"))
        return text

    @field_validator("mount")
    @classmethod
    def _check_mounts(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        paths = [parse_mount(value).path for value in values]
        if twice := next((path for path in paths if paths.count(path) > 1), None):
            raise ValueError(f"{twice} is mounted twice")
        return values

    @field_validator("image_pull_policy")
    @classmethod
    def _check_policy(cls, value: str) -> str:
        if value not in ("IfNotPresent", "Always", "Never"):
            raise ValueError("expected IfNotPresent, Always or Never")
        return value

    @model_validator(mode="before")
    @classmethod
    def _choose_image(cls, values: Any) -> Any:
        """Without --image, workers with GPUs get the image that has CUDA's libraries."""
        if isinstance(values, dict) and "image" not in values and str(values.get("gpus_per_worker", 0)) != "0":
            return {**values, "image": GPU_IMAGE}
        return values

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.spot and (twice := next((key for key, _ in self.node_labels if key in SPOT_LABELS), None)):
            raise ValueError(f"--spot already selects {twice}: leave out that --node-selector")
        check_free("--pod-label", self.pod_labels)
        check_free("--pod-annotation", self.pod_annotations)
        if self.shrink_after and not self.count.is_range:
            raise ValueError("--shrink-after is about a range of workers: expected --workers such as 2..8 too")
        if self.queue and self.count.is_range:
            raise ValueError(_number_for_queue(self.count))
        if self.keep_checkpoints and not self.output:
            raise ValueError("--keep-checkpoints is about the checkpoints in --output: expected --output too")
        return self


def _number_for_queue(workers: WorkerCount) -> str:
    return f"--workers {workers}: a queue admits all workers of a job or none: expected a number with --queue"


def _data_place(text: str) -> Place | None:
    """What is mounted or fetched. Packed data of a bucket is neither: the trainer reads of it what it needs."""
    if (packed := packed_place(text)) is not None:
        place = parse_place(packed, ("pvc", "host", "gs", "s3"))
        return None if place.kind in BUCKETS else place
    scheme = text.partition(":")[0]
    if scheme in ("pvc", "host", *BUCKETS):
        return parse_place(text, ("pvc", "host", "gs", "s3"))
    if data_path(text) is not None:
        raise ValueError("a folder of this machine is not in the pod: use pvc:CLAIM/PATH, gs://…, s3://… or host:/PATH")
    return None
