"""From a TrainingJob to a running Job: creates what it needs in an order in which nothing is left over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.cluster.kubernetes_api import ApiError, Cluster, Object, Unreachable
from launcher.cluster.namespace import Namespace
from launcher.diagnosis.gpus import cards_of, describe_cards, gpu_troubles, memory_troubles
from launcher.diagnosis.jobs import suspended_by
from launcher.job.code import Code
from launcher.job.labels import CODE_ANNOTATION, PROGRESS_ANNOTATION, annotations_of, labels_of
from launcher.job.manifests import manifests, with_owner, with_token
from launcher.job.training_job import DATA_PATH, TrainingJob
from launcher.operations.admission import RIGHTS, lacks, try_objects, try_pod
from launcher.operations.gangs import check_range
from launcher.operations.network_policy import NOT_ENFORCED, known
from launcher.operations.step_memory import may_be_too_much, step_memory
from launcher.operations.submitted import asked_job, has_ended, is_cancelled
from launcher.streaming.download.code import send_code
from maskfleet.errors import BadInput, MaskfleetError, NotFound
from maskfleet.gpu_memory import StepMemory
from maskfleet.text import one_line

_GARBAGE_SECONDS = 60.0  # for the objects of a deleted job of the same name to go


@dataclass(frozen=True)
class Submission:
    """What ``submit`` did: ``new`` is False where the same job was there already; ``notes`` are for the user."""

    name: str
    namespace: str
    new: bool
    notes: tuple[str, ...]


class LeftBehind(MaskfleetError):
    """A submit was refused in the middle, and its Job is still there; the cause's exit code."""

    def __init__(self, name: str, why: str, cause: MaskfleetError) -> None:
        super().__init__(
            f"{cause}; job {name} {why}, suspended: the same submit again finishes it, "
            f"'launcher delete {name}' removes it"
        )
        self.exit_code = cause.exit_code


def submit(
    job: TrainingJob, cluster: Namespace | None = None, *, dry_run: bool = False, code: Code | None = None
) -> Submission:
    """Creates the job's objects and releases it. The same job again finishes what was interrupted.

    With ``dry_run`` the server checks and changes nothing. ``code`` is the user's own where it is not to be read from
    the folder that the job names, which is another machine's.

    Raises:
        BadInput: a different job has this name, or the server is too old for it, or makes gangs where it has a range.
        ApiError: the server refuses an object, or the release; what was made before is deleted again.
        LeftBehind: the same, and the Job is still there.
    """
    cluster = cluster or Cluster.connect()
    code = code or Code.of(job)
    check_range(job, cluster)
    if dry_run:
        return _dry_run(job, cluster, code)
    first, *others = manifests(job, code)
    if code is not None and code.archive is not None and not code.is_small:
        send_code(str(job.destination), code.object_name, code.archive)
    new = True
    warnings: list[str] = []
    try:
        made = cluster.create(first, warnings=warnings)
    except ApiError as error:
        if error.status != 409:
            raise
        made, new = cluster.get("Job", job.name), False
        _check_same(job, made, code)
    try:
        if new and (missing := lacks(job, made)):
            raise BadInput(f"--name {job.name}: {missing}")
        untold = _create_owned_all(cluster, [with_token(with_owner(manifest, made)) for manifest in others])
        # Pod Security never refuses a Job for its pods, but warns of it in its answer, unless told not to. Only then
        # one of the pods is tried: where folders of the node are allowed, this costs no request.
        if job.uses_host_paths and (not new or any("PodSecurity" in warning for warning in warnings)):
            _check_pod_is_allowed(job, cluster, job.service_account or job.name)
        change: Object = {}
        if untold and PROGRESS_ANNOTATION not in annotations_of(made):
            change["metadata"] = {"annotations": {PROGRESS_ANNOTATION: "not told: the job's ServiceAccount may not"}}
        if made["spec"].get("suspend") and not job.queue:
            change["spec"] = {"suspend": False}
        if change:
            cluster.patch("Job", job.name, change)
    except MaskfleetError as error:
        if new:
            _take_back(job.name, cluster, error)
        elif made["spec"].get("suspend") and not isinstance(error, BadInput):
            raise LeftBehind(job.name, "was there before, and stays", error) from error
        raise
    told = (*notes(job, untold=untold), *_network_note(job, cluster), *_gpu_notes(job, cluster))
    return Submission(job.name, cluster.namespace, new, told)


def _take_back(name: str, cluster: Namespace, cause: MaskfleetError) -> None:
    """Deletes a new Job, and with it what it owns.

    Raises:
        LeftBehind: it could not.
    """
    try:
        cluster.delete("Job", name)
    except NotFound:
        pass
    except MaskfleetError as error:
        raise LeftBehind(name, f"could not be deleted again ({error})", cause) from cause


def _dry_run(job: TrainingJob, cluster: Namespace, code: Code | None) -> Submission:
    """Goes through :func:`submit` with a server that keeps nothing."""
    new, untold = True, ""
    for found in try_objects(job, cluster, code):
        if found.answer == "left out":
            untold = found.reason
        if found.answer == "refused" and found.error is not None:
            raise found.error
        if found.answer == "exists" and found.kind == "Job":
            _check_same(job, cluster.get("Job", job.name), code)
            new = False
        elif found.kind == "Job" and found.answer == "admitted" and (missing := lacks(job, found.made)):
            raise BadInput(f"--name {job.name}: {missing}")
        elif found.answer == "exists":
            _check_owned(job.name, found.kind, cluster)
    if job.uses_host_paths:
        # The job's own account may not be there yet.
        _check_pod_is_allowed(job, cluster, job.service_account or "default")
    return Submission(job.name, cluster.namespace, new, notes(job, untold=untold))


def _check_owned(name: str, kind: str, cluster: Namespace) -> None:
    """Raises BadInput if the object of this name is not the job's."""
    try:
        owners = cluster.get(kind, name)["metadata"].get("ownerReferences", [])
    except NotFound:  # gone since
        return
    if not any(owner["name"] == name for owner in owners):
        raise _taken(name, kind)


def notes(job: TrainingJob, *, untold: str = "") -> tuple[str, ...]:
    """What the user of a job that starts should know of it; ``untold`` is why its progress will not show on the Job."""
    notes = []
    if job.data_place is not None and job.training.data == f"folder:{DATA_PATH}":
        notes.append(f"the trainer reads {job.data} as --data {job.training.data}")
    elif (path := job.unmounted_data()) is not None:
        notes.append(f"--data {job.training.data}: nothing is mounted at {path}, so it has to be in the image")
    if job.output is None:
        notes.append(
            "without --output the run lives in its chief's pod: it survives a crash of any process, but a lost chief "
            "pod starts it over, and nothing remains when the job is deleted"
        )
    elif job.output_place and job.output_place.kind == "host" and job.count.most > 1:
        notes.append(
            "--output host: is a folder of whichever node the chief runs on; a chief on another node starts over"
        )
    if job.count.is_range:
        share = job.count.most / job.count.least
        notes.append(
            f"a step has {job.global_batch} examples whatever number of workers trains: with {job.count.least} each "
            f"computes {share:.3g} times as many as with {job.count.most}, which --memory {job.memory} has to hold"
        )
    if untold:
        mend = "name one that may with --service-account, or have somebody submit who may make Roles"
        if job.service_account:
            mend = f"it will if the ServiceAccount {job.service_account} may get and patch jobs and create events"
        notes.append(f"progress and events will not show on the job: {untold}; {mend}")
    return tuple(notes)


def _network_note(job: TrainingJob, cluster: Namespace) -> tuple[str, ...]:
    if job.count.most == 1 or (found := known(cluster)).enforced is not False:
        return ()
    return (f"the NetworkPolicy of namespace {cluster.namespace} {NOT_ENFORCED}, {found.why}",)


def _gpu_notes(job: TrainingJob, cluster: Namespace) -> tuple[str, ...]:
    """Which card it will be; what can't be seen is not told, since the job is there already."""
    if not job.gpus_per_worker:
        return ()
    try:
        nodes = cluster.list("Node", metadata_only=True)
    except (ApiError, NotFound, Unreachable):
        return ()
    wanted = dict(job.node_labels).items()
    cards = cards_of(node for node in nodes if wanted <= labels_of(node).items())
    if not cards:
        return ()
    told = (f"GPU: {describe_cards(cards)}", *gpu_troubles(cards))
    if not may_be_too_much(job, (card.memory for card in cards if card.memory is not None)):
        return told
    step = step_memory(job)
    return (*told, *memory_troubles(cards, step, job.training)) if isinstance(step, StepMemory) else told


def _check_same(asked: TrainingJob, made: Object, code: Code | None) -> None:
    """Raises BadInput unless ``made`` was made for the same job and may go on."""
    name = asked.name
    if made["metadata"].get("deletionTimestamp"):
        raise BadInput(f"job {name} is being deleted: wait until 'launcher status {name}' does not find it any more")
    before = asked_job(made).dump()
    now = asked.dump()
    flat_before, flat_now = ({**d, **d["training"]} for d in (before, now))
    different = [key for key in {**flat_before, **flat_now} if flat_before.get(key) != flat_now.get(key)]
    different = [key for key in different if key != "training"]
    if different:
        key = different[0]
        flag = "--" + key.replace("_", "-")
        raise BadInput(
            f"--name {name}: a job of this name exists with {flag} {flat_before.get(key)}, not {flat_now.get(key)}: "
            f"choose another name, or delete it first with 'launcher delete {name}'"
        )
    known = annotations_of(made).get(CODE_ANNOTATION)
    if code is not None and code.fingerprint != known:
        raise BadInput(
            f"--name {name}: a job of this name exists with other code than --code {asked.code} holds now (fingerprint "
            f"{known}, now {code.fingerprint}): choose another name, or delete it first with 'launcher delete {name}'"
        )
    if has_ended(made):
        raise BadInput(f"--name {name}: this job has ended: 'launcher resume {name}' goes on with it")
    if is_cancelled(made):
        raise BadInput(f"--name {name}: this job is cancelled: 'launcher resume {name}' goes on with it")
    if not asked.queue and (by := suspended_by(made)):  # that of a queue is released by whoever admits it
        raise BadInput(f"--name {name}: this job is suspended by {by}: 'launcher resume {name}' goes on with it")


def _create_owned_all(cluster: Namespace, others: Sequence[Object]) -> str:
    """Creates the objects beside the Job; returns why its pods get no right to tell their progress, if they do not.

    Raises:
        BadInput: there is another object of such a name, or we may not make a ServiceAccount.
        ApiError: the server refuses one.
    """
    refusal = ""
    for manifest in others:
        kind = manifest["kind"]
        if kind in RIGHTS and refusal:
            continue
        try:
            _create_owned(cluster, manifest)
        except ApiError as error:
            if error.is_forbidden and kind == "ServiceAccount":
                raise BadInput(f"{error}; name one that is there with --service-account") from error
            if not error.is_forbidden or kind not in RIGHTS:
                raise
            refusal = one_line(str(error))
    return refusal


def _create_owned(cluster: Namespace, manifest: Object) -> None:
    """Creates an object of the job, or finds that it is there already."""
    uid = manifest["metadata"]["ownerReferences"][0]["uid"]
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    deadline = time.monotonic() + _GARBAGE_SECONDS
    while True:
        try:
            cluster.create(manifest)
            return
        except ApiError as error:
            if error.status != 409:
                raise
        with contextlib.suppress(NotFound):  # gone since: create it
            owners = cluster.get(kind, name)["metadata"].get("ownerReferences", [])
            if any(owner["uid"] == uid for owner in owners):
                return
            # The garbage collector has not yet come to the objects of a deleted job of this name.
            if not any(owner["name"] == name for owner in owners) or time.monotonic() > deadline:
                raise _taken(name, kind)
            time.sleep(0.3)


def _taken(name: str, kind: str) -> BadInput:
    return BadInput(f"--name {name}: there is a {kind} of this name which is not the job's: choose another")


def _check_pod_is_allowed(job: TrainingJob, cluster: Namespace, account: str) -> None:
    """Raises BadInput if Pod Security would refuse the job's pods.

    A quota that is used up now may have room later; the Job waits for it.
    """
    found = try_pod(job, cluster, account)
    if found.is_of_pod_security:
        raise BadInput(
            f"--name {job.name}: {found.reason}; bring the files in by pvc:CLAIM/PATH or a bucket instead of host:"
        )
