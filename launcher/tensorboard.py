"""TensorBoard on a run: here on a bucket's event files, or in the cluster beside the claim that holds them."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

from launcher.job import OUTPUT_PATH, TrainingJob
from launcher.kubernetes_api import ApiError, Cluster, Object
from launcher.manifests import Manifest, manifests, with_owner
from launcher.sources import BUCKETS
from trainer.exit_codes import BadInput, BadSettings, MaskfleetError, NotFound

POD_SECONDS = 300.0
"""For TensorBoard's pod to come up; pulling its image may take a while."""
_PIECE = 1 << 16


def tensorboard_command(
    destination: str, *, host: str = "127.0.0.1", port: int = 6006, reload_seconds: int = 5
) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of TensorBoard on the event files of the run in ``destination``.

    Port 0 lets it choose one, which it prints. Without TensorFlow it reads buckets through fsspec (gcsfs, s3fs),
    whose remembered listings would hide that a file has grown; its fast loader reads no buckets other than
    Google's own.

    Raises:
        BadSettings: TensorBoard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise BadSettings("TensorBoard is not installed: pip install 'maskfleet[trainer]', or pip install tensorboard")
    logdir = f"{destination.rstrip('/')}/tensorboard"
    options = {"logdir": logdir, "host": host, "port": port, "reload_interval": reload_seconds, "load_fast": "false"}
    arguments = [sys.executable, "-m", "tensorboard.main"]
    for option, value in options.items():
        arguments += [f"--{option}", str(value)]
    fresh = '{"use_listings_cache": false}'
    return arguments, {"FSSPEC_GS": fresh, "FSSPEC_S3": fresh, **os.environ}


def serve(destination: str, port: int, say: Callable[[str], None]) -> None:
    """Runs TensorBoard here on the event files in a bucket or folder, until Ctrl-C.

    Raises:
        BadSettings: TensorBoard is not installed.
        MaskfleetError: it ended.
    """
    arguments, environment = tensorboard_command(destination, port=port)
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                say(f"http://127.0.0.1:{port}")
                process.wait()
            time.sleep(0.2)
    finally:
        process.terminate()
        process.wait()
    raise MaskfleetError(f"TensorBoard ended with exit code {process.returncode}: is --port {port} in use?")


def tensorboard_pod(job: TrainingJob) -> Manifest:
    """The pod that serves the run's event files: a worker's pod with TensorBoard for a trainer and nothing else."""
    first = manifests(job)[0]
    template = copy.deepcopy(first["spec"]["template"])
    pod = template["spec"]
    (server,) = pod["containers"]
    logdir = f"{job.destination}/tensorboard"
    server.update({"name": "tensorboard", "args": ["tensorboard", "--logdir", logdir, "--port", "6006"]})
    server["resources"] = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "2Gi"}}
    for key in ("ports", "livenessProbe"):
        del server[key]
    mounts = {mount["name"]: mount for container in pod["initContainers"] for mount in container["volumeMounts"]}
    kept = [
        mount for mount in server["volumeMounts"] if mount["name"] in ("tmp",) or mount["name"].startswith("mount-")
    ]
    if "output" in mounts:
        kept.append({**mounts["output"], "readOnly": True})
    server["volumeMounts"] = kept
    names = {mount["name"] for mount in kept}
    pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] in names]
    server["env"] = [entry for entry in server["env"] if "fieldPath" not in str(entry)]
    for key in ("initContainers", "subdomain"):
        del pod[key]
    pod["restartPolicy"] = "OnFailure"
    pod["serviceAccountName"] = job.service_account or job.name
    labels = {**template["metadata"]["labels"], "app.kubernetes.io/component": "tensorboard"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{job.name}-tensorboard", "labels": labels},
            "spec": pod}  # fmt: skip


@contextlib.contextmanager
def in_cluster(job: TrainingJob, made: Object, cluster: Cluster) -> Iterator[str]:
    """Runs TensorBoard's pod while the block runs; gives its name once it answers.

    Raises:
        MaskfleetError: it does not come up.
    """
    pod = with_owner(tensorboard_pod(job), made)
    name = pod["metadata"]["name"]
    try:
        cluster.create(pod)
    except ApiError as error:
        if error.status != 409:
            raise
    try:
        _wait_for_pod(name, cluster)
        yield name
    finally:
        with contextlib.suppress(NotFound):
            cluster.delete("Pod", name)


def _wait_for_pod(name: str, cluster: Cluster) -> None:
    from launcher import reasons

    deadline = time.monotonic() + POD_SECONDS
    while True:
        pod = cluster.get("Pod", name)
        if pod["status"].get("phase") == "Running":
            with contextlib.suppress(OSError), contextlib.closing(cluster.connect_to_pod(name, 6006)) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                if connection.recv(1):
                    return
        if ended := reasons.ending(pod):
            raise MaskfleetError(f"TensorBoard's pod {name} ended: {ended.reason}")
        if time.monotonic() > deadline:
            phase, why = reasons.waiting(pod, [])
            raise MaskfleetError(f"TensorBoard's pod {name} does not come up: {phase}: {why}")
        time.sleep(0.5)


def forward(pod: str, cluster: Cluster, port: int, say: Callable[[str], None]) -> None:
    """Passes connections to ``port`` of this machine on to the pod, until Ctrl-C."""
    with socket.create_server(("127.0.0.1", port)) as server:
        say(f"http://127.0.0.1:{server.getsockname()[1]}")
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_serve, args=(connection, pod, cluster), daemon=True).start()


def _serve(connection: socket.socket, pod: str, cluster: Cluster) -> None:
    with connection, contextlib.suppress(OSError), contextlib.closing(cluster.connect_to_pod(pod, 6006)) as remote:
        threading.Thread(target=_copy, args=(connection, remote), daemon=True).start()
        _copy(remote, connection)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def is_local(job: TrainingJob) -> bool:
    """Whether the event files can be read from this machine.

    Raises:
        BadInput: they are nowhere but in the chief's pod.
    """
    if job.output_source is None or job.destination is None:
        raise BadInput(f"job {job.name} has no --output: its event files are in its chief's pod alone")
    if job.output_source.kind in BUCKETS:
        return True
    assert job.destination.startswith(OUTPUT_PATH)
    return False
