"""TrainingJob: what the user asked for, validated. Each field is at once flag, file key and documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Self

import click
import yaml
from pydantic import AfterValidator, Field, field_validator, model_validator

from launcher.quantities import Duration, Quantity
from launcher.sources import BUCKETS, Source, parse_mount, parse_source
from trainer.config import TrainConfig
from trainer.exit_codes import BadSettings
from trainer.settings import Layer, Settings, read_settings_file

IMAGE = "maskfleet/trainer:0.1.0"
DATA_PATH = "/data"
OUTPUT_PATH = "/output"

_SECRET_NAMES = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL(?!S?_FILE)|PRIVATE|ACCESS_KEY|API_?KEY", re.I)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_KEY = re.compile(r"([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def _object_name(text: str) -> str:
    if not _OBJECT.fullmatch(text):
        raise ValueError("expected an object's name: lower-case letters, digits, '-' and '.'")
    return text


def _job_name(text: str) -> str:
    # The pods of the last worker are called NAME-999999 at most, and a host name has 63 characters.
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?", text):
        raise ValueError("expected at most 52 lower-case letters, digits and '-', starting with a letter")
    return text


ObjectName = Annotated[str, AfterValidator(_object_name)]
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


class TrainingJob(Settings):
    """A training run on Kubernetes.

    ``training`` holds the trainer's own settings: on the command line what follows ``--``, in a job file
    the key ``training``.
    """

    name: Annotated[str, AfterValidator(_job_name)] = Field(
        default_factory=lambda: f"train-{datetime.now():%Y%m%d-%H%M%S}",
        description="of the job and its objects; the same name again finishes an interrupted submit",
    )
    workers: Positive = Field(1, description="pods that train together")
    image: str = Field(IMAGE, description="container image of the trainer")
    sidecar_image: str | None = Field(
        None,
        description="image of the streamer and reporter (target 'launcher'); default: the trainer's",
    )
    image_pull_secret: ObjectName | None = Field(None, description="Secret for the image's registry")
    image_pull_policy: str = Field("IfNotPresent", description="IfNotPresent, Always or Never")

    # What each worker gets
    cpu: Quantity = Field("2", description="CPUs of a worker, requested and limit; the trainer's threads follow it")
    memory: Quantity = Field("4Gi", description="memory of a worker, requested and limit")
    gpus_per_worker: NotNegative = Field(0, description="nvidia.com/gpu of a worker")
    scratch: Quantity = Field("20Gi", description="local disk of a worker for data, cache and run directory, at most")

    # What goes in and out
    data: str | None = Field(
        None,
        description="a TFDS name, pvc:CLAIM/PATH, gs:// or s3://BUCKET/PATH (fetched once a pod), host:/PATH; "
        "unless given after --, the trainer's --data becomes folder:/data",
    )
    output: str | None = Field(
        None, description="where runs go and come back from: gs://, s3://BUCKET/PATH, pvc:CLAIM/PATH or host:/PATH"
    )
    env: tuple[str, ...] = Field((), description="VARIABLE=VALUE for every container; repeatable")
    env_from_secret: tuple[str, ...] = Field(
        (), description="SECRET (all its keys) or VARIABLE=SECRET/KEY, for every container; repeatable"
    )
    mount: tuple[str, ...] = Field(
        (),
        description="pvc:CLAIM/PATH=/AT, host:/PATH=/AT, secret:NAME=/AT, configmap:NAME=/AT[:rw]; repeatable",
    )
    service_account: ObjectName | None = Field(
        None, description="existing ServiceAccount of the pods (workload identity); default: one made for the job"
    )

    # Where and when
    node_selector: tuple[str, ...] = Field((), description="LABEL=VALUE that nodes must have; repeatable")
    toleration: tuple[str, ...] = Field(
        (), description="taint to tolerate: KEY, KEY=VALUE, with :EFFECT to name one; repeatable"
    )
    spot: bool = Field(False, description="only nodes that the cloud may take back (GKE, EKS, AKS, Karpenter)")
    priority: ObjectName | None = Field(None, description="PriorityClass")
    queue: ObjectName | None = Field(None, description="Kueue LocalQueue that admits the job")

    # Failing and ending
    max_restarts: NotNegative = Field(
        6, description="pods that may fail by themselves before the job does; disruptions are not counted"
    )
    deadline: Duration | None = Field(None, description="fail the job after this long: 90s, 30m, 12h, 2d")
    ttl: Duration | None = Field(
        "7d", validate_default=True, description="delete the ended job and its objects after this long: 12h, 7d"
    )
    grace: Duration = Field("60s", validate_default=True, description="for a stopped worker to save and stream")

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
        implied = Layer("--{}", job._implied_training())
        # A resolved job's file names the implied values too; what the flags imply anew goes over them.
        over = implied if "data" in flags.values else Layer("--{}", {})
        config = TrainConfig.resolve([implied, *training_layers, over, given])
        config.effective_global_batch(job.workers * max(1, job.gpus_per_worker))
        return job.model_copy(update={"training": config})

    def _implied_training(self) -> Mapping[str, Any]:
        """What ``--data`` of the job says to the trainer."""
        if self.data is None:
            return {}
        return {"data": self.data if self.data_source is None else f"folder:{DATA_PATH}"}

    @property
    def data_source(self) -> Source | None:
        """Where ``--data`` is mounted or fetched from; None for a data set that the trainer itself fetches."""
        return _data_source(self.data) if self.data else None

    @property
    def output_source(self) -> Source | None:
        return parse_source(self.output, ("gs", "s3", "pvc", "host")) if self.output else None

    @property
    def uses_host_paths(self) -> bool:
        """Whether a folder of the node is mounted, which Pod Security may forbid."""
        sources = [self.data_source, self.output_source, *(parse_mount(item).source for item in self.mount)]
        return any(source is not None and source.kind == "host" for source in sources)

    @property
    def destination(self) -> str | None:
        """Where this run's directory goes, as the streamer in the pod sees it: a URL or a folder."""
        source = self.output_source
        if source is None:
            return None
        if source.kind in BUCKETS:
            return f"{source.url}/{self.name}"
        # The streamer makes the folders itself: those that the kubelet makes for a subPath may be root's.
        return "/".join(part for part in (OUTPUT_PATH, source.path if source.kind == "pvc" else "", self.name) if part)

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
            _data_source(text)
        return text

    @field_validator("output")
    @classmethod
    def _check_output(cls, text: str | None) -> str | None:
        if text:
            parse_source(text, ("gs", "s3", "pvc", "host"))
        return text

    @field_validator("mount")
    @classmethod
    def _check_mounts(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        paths = [parse_mount(value).path for value in values]
        if twice := next((path for path in paths if paths.count(path) > 1), None):
            raise ValueError(f"{twice} is mounted twice")
        return values

    @field_validator("env")
    @classmethod
    def _check_env(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            name, separator, _ = value.partition("=")
            if not separator or not _VARIABLE.fullmatch(name):
                raise ValueError(f"expected VARIABLE=VALUE, not {value!r}")
            if _SECRET_NAMES.search(name):
                # The value itself must not show up in a terminal or a CI log.
                raise _Secret(name)
        return values

    @field_validator("env_from_secret")
    @classmethod
    def _check_env_from_secret(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            parse_secret_variable(value)
        return values

    @field_validator("node_selector")
    @classmethod
    def _check_node_selector(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            key, separator, label = value.partition("=")
            if not separator or not _KEY.fullmatch(key) or not _LABEL.fullmatch(label):
                raise ValueError(f"expected LABEL=VALUE, not {value!r}")
        return values

    @field_validator("toleration")
    @classmethod
    def _check_tolerations(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            parse_toleration(value)
        return values

    @field_validator("image_pull_policy")
    @classmethod
    def _check_policy(cls, value: str) -> str:
        if value not in ("IfNotPresent", "Always", "Never"):
            raise ValueError("expected IfNotPresent, Always or Never")
        return value

    @model_validator(mode="after")
    def _check_gpus(self) -> Self:
        if self.spot and any(item.startswith("cloud.google.com/gke-spot=") for item in self.node_selector):
            raise ValueError("--spot already selects cloud.google.com/gke-spot: leave out that --node-selector")
        return self


class _Secret(BadSettings):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"--env {name}: looks like a secret, which anyone who may read the Job would see: put it into a Secret "
            f"and use --env-from-secret {name}=SECRET/KEY"
        )


def _data_source(text: str) -> Source | None:
    scheme = text.partition(":")[0]
    if scheme in ("pvc", "host", *BUCKETS):
        return parse_source(text, ("pvc", "host", "gs", "s3"))
    if scheme in ("folder", "voc"):
        raise ValueError("a folder of this machine is not in the pod: use pvc:CLAIM/PATH, gs://…, s3://… or host:/PATH")
    return None


def parse_secret_variable(text: str) -> tuple[str | None, str, str | None]:
    """``SECRET`` or ``VARIABLE=SECRET/KEY`` -> (variable, Secret, key).

    Raises:
        ValueError: it has another form.
    """
    variable, separator, rest = text.partition("=")
    if not separator:
        return None, _object_name(text), None
    secret, slash, key = rest.partition("/")
    if not _VARIABLE.fullmatch(variable) or not _OBJECT.fullmatch(secret) or not slash or not key:
        raise ValueError(f"expected SECRET or VARIABLE=SECRET/KEY, not {text!r}")
    return variable, secret, key


def parse_toleration(text: str) -> dict[str, str]:
    """``KEY[=VALUE][:EFFECT]`` -> a pod's toleration.

    Raises:
        ValueError: it has another form.
    """
    taint, colon, effect = text.partition(":")
    key, separator, value = taint.partition("=")
    if not _KEY.fullmatch(key) or not _LABEL.fullmatch(value) or (colon and effect not in EFFECTS):
        raise ValueError(f"expected KEY, KEY=VALUE or KEY=VALUE:EFFECT with {', '.join(EFFECTS)}, not {text!r}")
    toleration = {"key": key, "operator": "Equal" if separator else "Exists"}
    if separator:
        toleration["value"] = value
    if colon:
        toleration["effect"] = effect
    return toleration
