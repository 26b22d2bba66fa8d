"""TensorBoard on a run: here on a bucket's event files, or in the cluster beside the claim that holds them."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import secrets
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from launcher.cluster.kubernetes_api import Object
from launcher.cluster.namespace import Namespace
from launcher.cluster.port_forward import LOCALHOST, listen
from launcher.diagnosis.limits import fitted
from launcher.job.manifests import tensorboard_pod, with_owner
from launcher.job.places import BUCKETS
from launcher.job.training_job import OUTPUT_PATH, TrainingJob
from launcher.operations.submitted import check_not_being_deleted
from launcher.operations.surroundings import limit_ranges
from maskfleet.child_processes import end_with_parent, signal_name
from maskfleet.command_line import echo_line
from maskfleet.errors import BadInput, BadSettings, MaskfleetError, NotFound
from maskfleet.quiet import is_startup_line
from maskfleet.run_directory import RunDirectory

POD_SECONDS = 300.0
"""For TensorBoard's pod to come up; pulling its image may take a while."""
_ADDRESS = re.compile(r"TensorBoard \S+ at (http://[^/\s]+)")
_LAST_LINES = 20


def tensorboard_command(logdir: Path, *, port: int, reload_seconds: int = 2) -> list[str]:
    """Arguments of TensorBoard on the event files below ``logdir``. Port 0 lets it choose one, which it prints."""
    options = {
        "logdir": logdir,
        "host": LOCALHOST,
        "port": port,
        "reload_interval": reload_seconds,
        "load_fast": "false",
    }
    arguments = [sys.executable, "-m", "tensorboard.main"]
    for option, value in options.items():
        arguments += [f"--{option}", str(value)]
    return arguments


def serve(destination: str, port: int, report_line: Callable[[str], None]) -> None:
    """Runs TensorBoard here on the event files in a bucket or folder, until Ctrl-C.

    TensorFlow has no file system for s3://, and without TensorFlow TensorBoard needs a further package for each kind of
    store: so a bucket's event files are copied to this disk as they grow.

    Raises:
        BadSettings: TensorBoard is not installed, or the port is in use.
        StoreRefused, StoreUnavailable: the bucket can't be read.
        MaskfleetError: TensorBoard ended.
    """
    from launcher.streaming.download.event_mirror import mirrored
    from launcher.streaming.layout import TENSORBOARD
    from launcher.streaming.stores.folder import FolderStore
    from launcher.streaming.stores.opening import open_store

    if importlib.util.find_spec("tensorboard") is None:
        raise BadSettings("TensorBoard is not installed: pip install 'maskfleet[trainer]', or pip install tensorboard")
    listen(port).close()
    store = open_store(destination)
    if next(iter(store.list(TENSORBOARD)), None) is None:
        echo_line(f"note: there are no event files in {destination} yet; they are shown as they come")
    if isinstance(store, FolderStore):
        _run(tensorboard_command(RunDirectory(store.path).tensorboard, port=port), report_line)
        return
    with mirrored(store) as folder:
        _run(tensorboard_command(folder, port=port), report_line)


def _run(command: list[str], report_line: Callable[[str], None]) -> None:
    """Runs TensorBoard until it ends, which it does not by itself; ``say`` gets its address.

    Raises:
        MaskfleetError: it ended; what it said last is on standard error.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, errors="replace",
        preexec_fn=end_with_parent(signal.SIGTERM),
    )  # fmt: skip
    assert process.stderr is not None
    last: deque[str] = deque(maxlen=_LAST_LINES)
    try:
        for line in process.stderr:
            if not is_startup_line(line.encode()):
                last.append(line)
            if address := _ADDRESS.match(line):
                report_line(address[1])
        code = process.wait()
    finally:
        process.terminate()
        process.wait()
    if code < 0:
        raise MaskfleetError(f"TensorBoard was killed by {signal_name(code)}")
    sys.stderr.write("".join(last))
    raise MaskfleetError(f"TensorBoard ended with exit code {code}: {last[-1].strip() if last else 'it said nothing'}")


@contextlib.contextmanager
def in_cluster(job: TrainingJob, made: Object, cluster: Namespace) -> Iterator[str]:
    """Runs a pod with TensorBoard while the block runs; gives its name once it answers.

    Each caller has a pod of its own, so that the end of one takes nothing from another.

    Raises:
        BadInput: the job is being deleted.
        MaskfleetError: the pod does not come up.
    """
    check_not_being_deleted(made)
    pod = with_owner(tensorboard_pod(job), made)
    name = pod["metadata"]["name"] = f"{pod['metadata']['name']}-{secrets.token_hex(3)}"
    cluster.create(fitted(pod, limit_ranges(cluster)))
    try:
        _wait_for_pod(name, cluster)
        yield name
    finally:
        with contextlib.suppress(NotFound):
            cluster.delete("Pod", name)


def _wait_for_pod(name: str, cluster: Namespace) -> None:
    from launcher.diagnosis import reasons

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


def is_local(job: TrainingJob) -> bool:
    """Whether the event files can be read from this machine.

    Raises:
        BadInput: they are nowhere but in the chief's pod.
    """
    if job.output_place is None or job.destination is None:
        raise BadInput(f"job {job.name} has no --output: its event files are in its chief's pod alone")
    if job.output_place.kind in BUCKETS:
        return True
    assert job.destination.startswith(OUTPUT_PATH)
    return False
