"""What a running worker may do and know, and what nobody else gets to know of its secrets."""

from __future__ import annotations

import base64
import json
import uuid

from launcher.cluster.kubernetes_api import Cluster
from launcher.job import labels
from launcher.operations import submission
from launcher.operations.description import describe, describe_lines
from launcher.operations.logs import logs
from launcher.operations.pod_log import LogRequest
from tests.cluster.conftest import Scripted, until

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
LOOK = f"""
print(os.path.exists({TOKEN!r}))
print(os.environ['PASSWORD'] == open('/secrets/key').read(), flush=True)
time.sleep(3600)
"""
KINDS = ("Job", "Pod", "ConfigMap", "Service", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "Event")


def printed(cluster: Cluster) -> list[str]:
    return [line.text for line in logs("job", cluster, LogRequest())]


def test_the_trainer_has_no_token_and_a_secret_s_value_shows_up_nowhere(cluster: Cluster, scripted: Scripted) -> None:
    value = f"hunter2-{uuid.uuid4().hex}"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store"}, "stringData": {"key": value}}
    cluster.create(secret)
    job = scripted(LOOK, env_from_secret=("PASSWORD=store/key",), mount=("secret:store=/secrets",))
    submission.submit(job, cluster)
    until("job", cluster, lambda now: now.workers[0].phase == "Running")
    until("job", cluster, lambda now: len(printed(cluster)) == 2)
    assert printed(cluster) == ["False", "True"]

    (pod,) = cluster.list("Pod", labels=labels.instance("job"))
    containers = {each["name"]: each for each in (*pod["spec"]["initContainers"], *pod["spec"]["containers"])}
    mounted = {name for name, each in containers.items() if TOKEN in [m["mountPath"] for m in each["volumeMounts"]]}
    assert mounted == {"streamer"}
    sidecar = [line.decode() for line in cluster.log(pod["metadata"]["name"], "streamer")]
    found = describe("job", cluster)
    objects = [json.dumps(cluster.list(kind)) for kind in KINDS]
    told = [*objects, *printed(cluster), *sidecar, json.dumps(found), *describe_lines(found)]
    for form in (value, base64.b64encode(value.encode()).decode()):
        assert not any(form in text for text in told)
