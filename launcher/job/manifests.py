"""TrainingJob -> Kubernetes objects: the files of ``k8s/base`` with the job's fields set. Pure but for reading them."""

from __future__ import annotations

import base64
import copy
import functools
import json
import secrets
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from launcher.job.code import FILE as CODE_FILE
from launcher.job.code import Code
from launcher.job.labels import (
    CODE_ANNOTATION,
    COMPONENT_LABEL,
    COMPONENT_LABELS,
    GANG_SCHEDULERS,
    INDEX_ANNOTATION,
    INSTANCE_LABEL,
    JOB_ANNOTATION,
    MANAGED_BY_LABEL,
    MANAGER,
    QUEUE_LABEL,
    SPOT_LABELS,
    TENSORBOARD,
    WORKERS_ANNOTATION,
)
from launcher.job.mounts import USER_VOLUME, check_mounts
from launcher.job.places import BUCKETS, Place
from launcher.job.quantities import parse_quantity
from launcher.job.training_job import CACHE_PATH, DATA_PATH, OUTPUT_PATH, SCRATCH, STOP_SECONDS, TrainingJob
from maskfleet.config import is_address
from maskfleet.data_places import packed_place
from maskfleet.environment import (
    CACHE_VARIABLE,
    GPUS_VARIABLE,
    PEERS_VARIABLE,
    SHRINK_AFTER_VARIABLE,
    TOKEN_FILE_VARIABLE,
)
from maskfleet.errors import BadSettings, MaskfleetError
from maskfleet.run_directory import RunDirectory
from maskfleet.text import format_bytes

Manifest = dict[str, Any]
CONFIG_PATH = "/etc/maskfleet"
"""Where the ConfigMap is mounted."""
MOST_KEPT = 192 << 10
"""Bytes of a job's settings in the Job's annotation; all annotations together may have 256 KiB."""
LONGEST_VARIABLE = 128 << 10
"""Bytes of a variable with its name, its = and its end, which the kernel passes on (MAX_ARG_STRLEN, execve(2))."""

_CACHED_SHARE = 0.5
"""Of a worker's scratch, for packed data that it has read: the run and temporary files need some too."""
# The Job first: it owns the others. Then what its pods need, so that none waits.
_ORDER = ("job", "secret", "serviceaccount", "role", "rolebinding", "configmap", "service", "networkpolicy")


def manifests(job: TrainingJob, code: Code | None = None) -> list[Manifest]:
    """The objects of ``job`` in the order in which they are created; the Job comes first, and suspended.

    None of them grows with the number of workers. The other objects get the Job as their owner when its uid
    is known, and the Secret its token when it is sent: :func:`with_token`.

    Args:
        code: what the job's ``code`` names.

    Raises:
        BadSettings: a ``--mount`` is in the way of another mount.
    """
    objects = {kind: copy.deepcopy(_base(kind)) for kind in _ORDER}
    for manifest in objects.values():
        manifest["metadata"]["name"] = job.name
        manifest["metadata"]["labels"][INSTANCE_LABEL] = job.name
    account = job.service_account or job.name
    objects["role"]["rules"][0]["resourceNames"] = [job.name]
    objects["rolebinding"]["roleRef"]["name"] = job.name
    objects["rolebinding"]["subjects"][0]["name"] = account
    if job.service_account:
        del objects["serviceaccount"]
    objects["configmap"]["data"] = {"config.json": _config(job, code)}
    if code is not None and code.is_small and code.archive is not None:
        objects["configmap"]["binaryData"] = {CODE_FILE: base64.b64encode(code.archive).decode()}
    selector = {**COMPONENT_LABELS, INSTANCE_LABEL: job.name}
    objects["service"]["spec"]["selector"] = selector
    policy = objects["networkpolicy"]["spec"]
    policy["podSelector"] = {"matchLabels": selector}
    policy["ingress"][0]["from"] = [{"podSelector": {"matchLabels": selector}}]
    _set_job(objects["job"], job, account, code)
    return list(objects.values())


def kinds() -> list[str]:
    """Kinds of a job's objects, in the same order."""
    return [_base(kind)["kind"] for kind in _ORDER]


def worker_pod(job: Manifest, account: str) -> Manifest:
    """A worker's pod much as the Job's controller would make it, for the server to look at: never to be kept.

    ``account`` is a ServiceAccount that exists already.
    """
    template = job["spec"]["template"]
    metadata = {
        **template["metadata"], "name": f"{job['metadata']['name']}-check",
        "annotations": {**template["metadata"]["annotations"], INDEX_ANNOTATION: "0"},
    }  # fmt: skip
    spec = {**template["spec"], "serviceAccountName": account}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def with_token(manifest: Manifest) -> Manifest:
    """``manifest`` with a new random token, if it is the Secret of the workers."""
    return {**manifest, "stringData": {"token": secrets.token_hex(32)}} if manifest["kind"] == "Secret" else manifest


def with_owner(manifest: Manifest, job: Manifest) -> Manifest:
    """``manifest`` owned by the Job that the API server has made, so that it goes when the Job goes."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [owner]}}


def base_folder() -> Path:
    """``k8s/base`` of the checkout, or where an installation keeps it.

    Raises:
        MaskfleetError: it is at neither place.
    """
    places = (
        Path(__file__).parents[2] / "k8s" / "base",
        Path(sysconfig.get_path("data")) / "share" / "maskfleet" / "k8s" / "base",
    )
    for place in places:
        if place.is_dir():
            return place
    raise MaskfleetError(f"{places[1]} is missing: the installation is incomplete; install maskfleet again")


@functools.cache
def _base(kind: str) -> Manifest:
    manifest: Manifest = yaml.load((base_folder() / f"{kind}.yaml").read_text(), Loader=_LOADER)
    return manifest


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _config(job: TrainingJob, code: Code | None) -> str:
    settings = job.training.model_dump(mode="json", exclude_none=True)
    if job.count.is_range:  # whatever number of them trains
        settings["global_batch"] = job.global_batch
    if packed_place(job.training.data) is not None and job.training.cache is None:
        # The disk that a worker sees is the node's: it would take what its volumes do not have.
        settings["cache"] = int(parse_quantity(job.scratch or SCRATCH) * _CACHED_SHARE)
    if code is not None:
        small = f"{CONFIG_PATH}/{CODE_FILE}"
        settings["code"] = small if code.is_small else str(RunDirectory(Path(run_directory(job))).fetched_code)
    return json.dumps({"settings": settings}, indent=1) + "\n"


def _kept(job: TrainingJob) -> str:
    """The job as it is kept on the Job; its settings fit a ConfigMap, which may have 1 MiB, too then.

    Raises:
        BadSettings: it is more than the API server takes.
    """
    for name, value in job.variables:
        if (size := len(f"{name}={value}".encode()) + 1) > LONGEST_VARIABLE:
            raise BadSettings(
                f"--env {name}: expected at most {format_bytes(LONGEST_VARIABLE)}, which the kernel passes to a "
                f"process, found {format_bytes(size)}; put it into a file that is mounted"
            )
    text = job.to_json()
    if (size := len(text.encode())) > MOST_KEPT:
        values = {**job.dump(), **job.dump()["training"]}
        longest = max(values.keys() - {"training"}, key=lambda key: len(json.dumps(values[key])))
        raise BadSettings(
            f"--{longest.replace('_', '-')}: expected settings of at most {format_bytes(MOST_KEPT)} together, which is "
            f"what Kubernetes keeps of a job, found {format_bytes(size)}; put long ones into a file that is mounted"
        )
    return text


def _set_job(manifest: Manifest, job: TrainingJob, account: str, code: Code | None) -> None:
    metadata, spec = manifest["metadata"], manifest["spec"]
    metadata["annotations"] = {JOB_ANNOTATION: _kept(job)}
    if code is not None:
        metadata["annotations"][CODE_ANNOTATION] = code.fingerprint
    if job.queue:
        metadata["labels"][QUEUE_LABEL] = job.queue
    if job.count.most > 1 and (gang := GANG_SCHEDULERS.get(job.scheduler_name or "")):
        metadata["annotations"][gang.annotation] = str(job.count.least)
    spec["suspend"] = True
    spec["completions"] = spec["parallelism"] = job.count.most
    if job.count.is_range:  # those that never find room are no failure
        spec["successPolicy"] = {"rules": [{"succeededIndexes": "0"}]}
    spec["backoffLimit"] = spec["backoffLimitPerIndex"] = job.max_restarts
    if job.deadline:
        spec["activeDeadlineSeconds"] = job.deadline
    del spec["ttlSecondsAfterFinished"]
    if job.ttl:
        spec["ttlSecondsAfterFinished"] = job.ttl
    # The pods' own labels are without the Job's queue: Kueue admits the Job, not each pod.
    own = {**COMPONENT_LABELS, INSTANCE_LABEL: job.name, MANAGED_BY_LABEL: MANAGER}
    spec["template"]["metadata"] = {
        "labels": {**dict(job.pod_labels), **own},
        "annotations": {**dict(job.pod_annotations), WORKERS_ANNOTATION: str(job.workers)},
    }
    pod = spec["template"]["spec"]
    _set_pod(pod, job, account, code)
    if pod["initContainers"][0]["name"] == "prepare":
        bad_settings = copy.deepcopy(spec["podFailurePolicy"]["rules"][-1])
        bad_settings["onExitCodes"]["containerName"] = "prepare"
        spec["podFailurePolicy"]["rules"].append(bad_settings)


def _set_pod(pod: Manifest, job: TrainingJob, account: str, code: Code | None) -> None:
    pod["subdomain"] = job.name
    pod["serviceAccountName"] = account
    pod["terminationGracePeriodSeconds"] = job.grace_seconds
    if job.image_pull_secret:
        pod["imagePullSecrets"] = [{"name": job.image_pull_secret}]
    if job.priority:
        pod["priorityClassName"] = job.priority
    if job.node_selector:
        pod["nodeSelector"] = dict(job.node_labels)
    if job.scheduler_name:
        pod["schedulerName"] = job.scheduler_name
    if tolerations := list(_tolerations(job)):
        pod["tolerations"] = tolerations
    if job.spot:
        terms = [{"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}
                 for key, value in SPOT_LABELS.items()]  # fmt: skip
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        pod["affinity"] = {"nodeAffinity": required}
    for volume in pod["volumes"]:
        if volume["name"] == "config":
            volume["configMap"]["name"] = job.name
        elif volume["name"] == "token":
            volume["secret"]["secretName"] = job.name
            del volume["secret"]["optional"]
        elif "emptyDir" in volume:
            volume["emptyDir"]["sizeLimit"] = job.scratch or SCRATCH
    streamer, trainer = pod["initContainers"][0], pod["containers"][0]
    _set_trainer(trainer, job)
    _set_streamer(streamer, job)
    if prepare := _prepare(streamer, job, code):
        pod["initContainers"] = [prepare, streamer]
    _add_volumes(pod, job)
    for container in (*pod["initContainers"], trainer):
        _set_environment(container, job)


def _tolerations(job: TrainingJob) -> Iterator[dict[str, str]]:
    if job.gpus_per_worker:
        yield {"key": "nvidia.com/gpu", "operator": "Exists"}
    if job.spot:
        yield from ({"key": key, "operator": "Exists"} for key in SPOT_LABELS)
    yield from job.tolerations


def _set_trainer(trainer: Manifest, job: TrainingJob) -> None:
    trainer["image"] = job.image
    trainer["imagePullPolicy"] = job.image_pull_policy
    trainer["args"] = ["trainer", "train", "--run-dir", run_directory(job), "--config", f"{CONFIG_PATH}/config.json"]
    for amounts in (trainer["resources"]["requests"], trainer["resources"]["limits"]):
        amounts.update({"cpu": job.cpu, "memory": job.memory})
        if job.gpus_per_worker:
            amounts["nvidia.com/gpu"] = str(job.gpus_per_worker)
        if job.scratch:  # the kubelet holds all of the pod to it, its volumes included
            amounts["ephemeral-storage"] = job.scratch
    if job.gpus_per_worker:
        trainer["env"] = [*trainer["env"], {"name": GPUS_VARIABLE, "value": str(job.gpus_per_worker)}]
    if job.shrink_after:
        trainer["env"] = [*trainer["env"], {"name": SHRINK_AFTER_VARIABLE, "value": str(job.shrink_after)}]
    if cache := job.cache_place:
        folder = "/".join(part for part in (CACHE_PATH, cache.path if cache.kind == "pvc" else "") if part)
        kept = {CACHE_VARIABLE: folder, "TFDS_DATA_DIR": f"{folder}/tensorflow_datasets"}
        trainer["env"] = [*trainer["env"], *({"name": name, "value": value} for name, value in kept.items())]


def _set_streamer(streamer: Manifest, job: TrainingJob) -> None:
    streamer["image"] = job.sidecar_image or job.image
    streamer["imagePullPolicy"] = job.image_pull_policy
    streamer["args"] = ["launcher", "sidecar", run_directory(job)]
    for resource, amount in (("cpu", job.streamer_cpu), ("memory", job.streamer_memory)):
        if amount:
            streamer["resources"]["requests"][resource] = streamer["resources"]["limits"][resource] = amount
    if job.destination:
        streamer["args"] += [job.destination, "--grace", str(max(5, job.grace_seconds - STOP_SECONDS))]
        if job.keep_checkpoints:
            streamer["args"] += ["--keep-checkpoints", str(job.keep_checkpoints)]


def _prepare(streamer: Manifest, job: TrainingJob, code: Code | None) -> Manifest | None:
    """The init container that brings in data and, on the chief, the newest checkpoint or what to start from, if any."""
    data = job.data_place
    args = ["launcher", "prepare", run_directory(job)]
    if data and data.kind in BUCKETS:
        args += ["--data", data.url, "--data-path", DATA_PATH]
    if code is not None and not code.is_small:
        args += ["--code", code.address(job)]
    if job.destination:
        args += ["--restore", job.destination]
    if job.training.start_from and is_address(job.training.start_from):
        args += ["--start-from", job.training.start_from]
    if len(args) == 3:
        return None
    container = copy.deepcopy(streamer)
    del container["restartPolicy"]
    container.update({"name": "prepare", "args": args})
    container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != "api-token"]
    return container


def _add_volumes(pod: Manifest, job: TrainingJob) -> None:
    def mount(name: str, place: Place, path: str, containers: Sequence[Manifest], *, read_only: bool) -> None:
        pod["volumes"].append(place.volume(name, read_only=read_only))
        for container in containers:
            container["volumeMounts"].append(place.mount(name, path, read_only=read_only))

    everyone = [*pod["initContainers"], *pod["containers"]]
    data, output = job.data_place, job.output_place
    if data and data.kind in BUCKETS:
        pod["volumes"].append({"name": "data", "emptyDir": {"sizeLimit": job.scratch or SCRATCH}})
        pod["initContainers"][0]["volumeMounts"].append({"name": "data", "mountPath": DATA_PATH})
        pod["containers"][0]["volumeMounts"].append({"name": "data", "mountPath": DATA_PATH, "readOnly": True})
    elif data:
        mount("data", data, DATA_PATH, pod["containers"], read_only=True)
    # A claim is mounted whole: the folders that the kubelet makes for a subPath may be root's.
    if output and output.kind not in BUCKETS:
        claim = replace(output, path="") if output.kind == "pvc" else output
        mount("output", claim, OUTPUT_PATH, pod["initContainers"], read_only=False)
    if cache := job.cache_place:
        claim = replace(cache, path="") if cache.kind == "pvc" else cache
        mount("cache", claim, CACHE_PATH, pod["containers"], read_only=False)
    for number, asked in enumerate(job.mounts):
        mount(f"{USER_VOLUME}{number}", asked.place, asked.path, everyone, read_only=asked.read_only)
    if job.gpus_per_worker:
        # NCCL's buffers between the GPUs of a worker need more than a container's 64 MiB.
        pod["volumes"].append({"name": "shm", "emptyDir": {"medium": "Memory"}})
        pod["containers"][0]["volumeMounts"].append({"name": "shm", "mountPath": "/dev/shm"})
    check_mounts(everyone, job.mounts, job.mount)


def _set_environment(container: Manifest, job: TrainingJob) -> None:
    peers = {"name": PEERS_VARIABLE, "value": f"{job.name}-{{}}.{job.name}:2222"}
    variables = [peers if entry["name"] == PEERS_VARIABLE else entry for entry in container["env"]]
    variables += [{"name": name, "value": value} for name, value in job.variables]
    sources = []
    for variable, secret, key in job.secret_variables:
        if variable is None:
            sources.append({"secretRef": {"name": secret}})
        else:
            variables.append({"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    container["env"] = variables
    if sources:
        container["envFrom"] = sources


def run_directory(job: TrainingJob) -> str:
    """The run directory in every container of the worker."""
    return f"/run/maskfleet/{job.name}"


def tensorboard_pod(job: TrainingJob) -> Manifest:
    """The pod that serves the run's event files: a worker's pod with TensorBoard for a trainer and nothing else."""
    first = manifests(job)[0]
    template = copy.deepcopy(first["spec"]["template"])
    pod = template["spec"]
    (server,) = pod["containers"]
    command = ["tensorboard", "--logdir", f"{job.destination}/tensorboard"]
    if job.output_place and job.output_place.kind in BUCKETS:
        command = ["launcher", "tensorboard", str(job.destination)]
    server.update({"name": "tensorboard", "args": [*command, "--port", "6006"]})
    server["resources"] = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "2Gi"}}
    for key in ("ports", "livenessProbe"):
        del server[key]
    mounts = {mount["name"]: mount for container in pod["initContainers"] for mount in container["volumeMounts"]}
    kept = [
        mount for mount in server["volumeMounts"] if mount["name"] in ("tmp",) or mount["name"].startswith(USER_VOLUME)
    ]
    if "output" in mounts:
        kept.append({**mounts["output"], "readOnly": True})
    server["volumeMounts"] = kept
    names = {mount["name"] for mount in kept}
    pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] in names]
    server["env"] = [
        entry for entry in server["env"] if "fieldPath" not in str(entry) and entry["name"] != TOKEN_FILE_VARIABLE
    ]
    for key in ("initContainers", "subdomain"):
        del pod[key]
    pod["restartPolicy"] = "OnFailure"
    pod["serviceAccountName"] = job.service_account or job.name
    labels = {**template["metadata"]["labels"], COMPONENT_LABEL: TENSORBOARD}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{job.name}-tensorboard", "labels": labels},
            "spec": pod}  # fmt: skip
