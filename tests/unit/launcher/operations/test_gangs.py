"""What preflight says of gangs, by what the server serves."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.cluster.kubernetes_api import ApiError
from launcher.job.manifests import manifests
from launcher.job.training_job import TrainingJob
from launcher.operations.gangs import check_gang
from launcher.operations.submission import submit
from maskfleet.errors import BadInput, NotFound
from tests.fakes.cluster import FakeCluster, Object, bare

COSCHEDULED = {"scheduler_name": "mine", "pod_label": ("scheduling.x-k8s.io/pod-group=gang",)}


def group(name: str = "gang", kind: str = "PodGroup", owner: str = "", **spec: Any) -> Object:
    made = {**bare(kind, name), "spec": spec}
    made["metadata"]["ownerReferences"] = [{"kind": owner, "name": "it", "uid": "1"}] if owner else []
    return made


def said(settings: dict[str, Any], objects: list[Object], refusal: Exception | None = None) -> list[tuple[str, str]]:
    cluster = FakeCluster(*objects)

    def before(request: str) -> None:
        if refusal:
            raise refusal

    cluster.before = before
    return [(check.result, check.detail) for check in check_gang(TrainingJob(name="pets", **settings), cluster)]


MISSING, HIDDEN = NotFound("the server has none"), ApiError(403, "Forbidden", "may not")
VOLCANO = {"scheduler_name": "volcano", "workers": 2}


@pytest.mark.parametrize(
    ("settings", "objects", "refusal", "result", "detail"),
    [
        ({"workers": 2}, [], MISSING, "ok", "none: the server has no PodGroups, so workers are placed one by one"),
        ({"workers": 2}, [], HIDDEN, "unknown", "PodGroups may not be listed"),
        ({"workers": 2}, [], None, "unknown", "whether it makes one of each Job (feature gate WorkloadWithJob)"),
        ({"workers": 2}, [group(owner="Other")], None, "unknown", "shows with the first job of several workers"),
        ({"workers": 2}, [group(owner="Job")], None, "ok", "all 2 workers are placed at once or none"),
        ({"workers": "2..4"}, [group(owner="Job")], None, "no",
         "--workers 2..4: Kubernetes makes PodGroups of Jobs here, so that all 4 are placed at once or none"),
        (VOLCANO, [], MISSING, "no", "no PodGroups of scheduling.volcano.sh: volcano is not installed"),
        (VOLCANO, [], HIDDEN, "unknown", "nothing tells whether the scheduler runs"),
        (VOLCANO, [], None, "unknown", "places all 2 workers at once or none; nothing tells"),
        ({**VOLCANO, "workers": "2..4"}, [], None, "unknown", "places at least 2 of 4 workers at once or none"),
        ({"scheduler_name": "kai-scheduler"}, [], MISSING, "no", "scheduling.run.ai: kai-scheduler is not installed"),
        ({"scheduler_name": "kai-scheduler"}, [], None, "unknown", "nothing tells whether the scheduler runs"),
        (COSCHEDULED, [], MISSING, "no", "no PodGroups of scheduling.x-k8s.io: coscheduling is not installed"),
        (COSCHEDULED, [], None, "no", "PodGroup gang is missing; there is none in this namespace"),
        (COSCHEDULED, [group("a", "PodGroup.scheduling.x-k8s.io")], None, "no", "PodGroup gang is missing; there is a"),
        (COSCHEDULED, [group(kind="PodGroup.scheduling.x-k8s.io", minMember=3)], None, "no", "has minMember 3"),
        ({**COSCHEDULED, "workers": 3}, [group(kind="PodGroup.scheduling.x-k8s.io", minMember=3)], None, "unknown",
         "PodGroup gang is a gang of 3; nothing tells"),
        ({**COSCHEDULED, "workers": "3..5"}, [group(kind="PodGroup.scheduling.x-k8s.io", minMember=3)], None, "unknown",
         "PodGroup gang is a gang of 3; nothing tells"),
        ({"scheduler_name": "mine"}, [], MISSING, "unknown", "nothing tells whether the scheduler runs"),
    ],
)  # fmt: skip
def test_what_is_known_of_gangs(
    settings: dict[str, Any], objects: list[Object], refusal: Exception | None, result: str, detail: str
) -> None:
    ((found, words),) = said(settings, objects, refusal)
    assert found == result
    assert detail in words


def test_a_range_is_refused_before_it_is_made_where_kubernetes_makes_gangs() -> None:
    cluster = FakeCluster(group(owner="Job"))
    with pytest.raises(BadInput, match="Kubernetes makes PodGroups of Jobs here, so that all 4 are placed at once"):
        submit(TrainingJob(name="pets", workers="2..4"), cluster)
    with pytest.raises(BadInput, match="expected a number"):
        submit(TrainingJob(name="pets", workers="2..4"), cluster, dry_run=True)
    assert ("Job", "pets") not in cluster.objects
    assert submit(TrainingJob(name="pets", workers=4), cluster).new


def test_a_worker_alone_is_no_gang() -> None:
    assert said({}, [], MISSING) == []
    assert said({"scheduler_name": "default-scheduler"}, [], MISSING) == []


@pytest.mark.parametrize(
    ("settings", "annotation"),
    [
        ({"scheduler_name": "volcano", "workers": 3}, ("scheduling.volcano.sh/group-min-member", "3")),
        ({"scheduler_name": "volcano", "workers": "2..8"}, ("scheduling.volcano.sh/group-min-member", "2")),
        ({"scheduler_name": "kai-scheduler", "workers": 3}, ("kai.scheduler/batch-min-member", "3")),
        ({"scheduler_name": "volcano"}, None),
        ({"scheduler_name": "mine", "workers": 3}, None),
        ({"workers": 3}, None),
    ],
)
def test_the_job_tells_the_scheduler_of_gangs_how_many_belong_together(
    settings: dict[str, Any], annotation: tuple[str, str] | None
) -> None:
    annotations = manifests(TrainingJob(name="pets", **settings))[0]["metadata"]["annotations"].items()
    told = [(key, value) for key, value in annotations if "min-member" in key]
    assert told == ([annotation] if annotation else [])
