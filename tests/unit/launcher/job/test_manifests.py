"""What submit sends: golden files, the schemas, and how it differs from k8s/base."""

from __future__ import annotations

import json
import os
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from launcher.job.manifests import base_folder, manifests, tensorboard_pod, with_owner, with_token
from launcher.job.rendering import render, render_json
from launcher.job.training_job import TrainingJob
from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.settings import Layer

GOLDEN = Path(__file__).parent / "golden"
CASES: dict[str, tuple[list[str], list[str]]] = {
    "defaults": ([], []),
    "persistent-volumes": (["--workers", "4", "--data", "pvc:pets/v1", "--output", "pvc:runs/team"], ["--seed", "1"]),
    "buckets": (
        ["--workers", "2", "--data", "gs://data/pets", "--output", "s3://runs", "--keep-checkpoints", "3",
         "--scratch", "60Gi"],
        [],
    ),
    "cache-volume": (["--workers", "2", "--data", "gs://data/pets", "--cache-volume", "pvc:fast/team/caches"], []),
    "gpu-spot": (["--workers", "8", "--gpus-per-worker", "2", "--spot", "--cpu", "8", "--memory", "32Gi"], []),
    "range": (["--workers", "2..8", "--shrink-after", "5m"], ["--batch-per-replica", "4"]),
    "queue": (["--queue", "team", "--priority", "high", "--deadline", "12h", "--ttl", "1h", "--max-restarts", "0"], []),
    "secrets-and-places": (
        ["--env", "A=1", "--env-from-secret", "store", "--env-from-secret", "KEY=store/key", "--mount",
         "secret:gcs=/secrets", "--mount", "pvc:weights=/weights:rw", "--service-account", "trainer",
         "--image", "registry.example/trainer:2", "--image-pull-secret", "registry", "--node-selector", "pool=train",
         "--toleration", "team=vision:NoSchedule"],
        ["--encoder-weights", "/weights/mobilenet.h5"],
    ),
}  # fmt: skip


def job(case: str) -> TrainingJob:
    arguments, training = CASES[case]
    return TrainingJob.from_sources(None, TrainingJob.parse_flags(["--name", "pets", *arguments]), training)


def without_defaults(text: str, training: list[str]) -> str:
    """Rendered objects without the version, and of the trainer's settings only ``data`` and those that were given."""
    given = {"data", *TrainConfig.parse_flags(training).values}

    def changed(settings: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in settings.items() if key in given}

    documents = list(yaml.safe_load_all(text))
    for document in documents:
        if document["kind"] == "Job":
            asked = json.loads(document["metadata"]["annotations"]["maskfleet/job"])
            asked["training"] = changed(asked["training"])
            document["metadata"]["annotations"]["maskfleet/job"] = asked
        if document["kind"] == "ConfigMap":
            document["data"]["config.json"] = changed(json.loads(document["data"]["config.json"])["settings"])
    comments = [line for line in text.splitlines() if line.startswith("#")]
    reduced = "\n".join([yaml.safe_dump_all(documents, sort_keys=False), *comments, ""])
    return reduced.replace(f"maskfleet/trainer:{version('maskfleet')}", "maskfleet/trainer:VERSION")


@pytest.mark.parametrize("case", CASES)
def test_render_is_what_the_golden_file_says(case: str) -> None:
    file = GOLDEN / f"{case}.yaml"
    rendered = without_defaults(render(job(case)), CASES[case][1])
    if os.environ.get("MASKFLEET_UPDATE_GOLDEN"):
        file.write_text(rendered)
    assert rendered == file.read_text(), "MASKFLEET_UPDATE_GOLDEN=1 writes it anew"


def test_the_trainer_gets_every_setting_resolved() -> None:
    configmap = next(m for m in manifests(job("persistent-volumes")) if m["kind"] == "ConfigMap")
    settings = json.loads(configmap["data"]["config.json"])["settings"]
    assert TrainConfig.resolve([Layer("{}", settings)]) == job("persistent-volumes").training


def test_what_an_automatic_preset_chooses_by_the_data_is_left_to_the_pods() -> None:
    asked = TrainingJob.from_sources(None, TrainingJob.parse_flags(["--name", "pets"]), ["--preset", "auto"])
    configmap = next(m for m in manifests(asked) if m["kind"] == "ConfigMap")
    settings = json.loads(configmap["data"]["config.json"])["settings"]
    assert TrainConfig.resolve([Layer("{}", settings)]).unplanned == asked.training.unplanned != ()
    assert TrainingJob(**asked.dump()).training.unplanned == asked.training.unplanned


@pytest.mark.parametrize("case", CASES)
def test_every_object_follows_the_schema(case: str) -> None:
    for manifest in manifests(job(case)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kubernetes_validate.validate(manifest, "1.36", strict=True)


def test_the_base_by_hand_is_what_the_launcher_sends() -> None:
    training = TrainConfig(data="synthetic", encoder_weights="none", epochs=2)
    sent = {m["kind"]: m for m in manifests(TrainingJob(name="maskfleet", training=training))}
    kustomization = yaml.safe_load((base_folder() / "kustomization.yaml").read_text())
    files = [(base_folder() / file).read_text() for file in kustomization["resources"]]
    by_hand = {m["kind"]: m for m in map(yaml.safe_load, files)}
    set_tags(by_hand["Job"], kustomization["images"])
    assert sent.keys() == by_hand.keys()
    settings = json.loads(by_hand["ConfigMap"]["data"].pop("config.json"))["settings"]
    assert json.loads(sent["ConfigMap"]["data"].pop("config.json"))["settings"].items() >= settings.items()
    del sent["Job"]["spec"]["suspend"]  # the launcher releases it when all exist
    del sent["Job"]["metadata"]["annotations"]
    assert sent == {**by_hand, "Job": with_required_token(by_hand["Job"])}


def test_no_object_grows_with_the_number_of_workers() -> None:
    small, large = (len(render(TrainingJob(name="pets", workers=count))) for count in (1, 1000))
    assert large - small <= 5 * len("1000")


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


@pytest.mark.parametrize(("place", "folder", "mounted"), [
    ("pvc:fast", "/cache", {"persistentVolumeClaim": {"claimName": "fast", "readOnly": False}}),
    ("pvc:fast/a/b/", "/cache/a/b", {"persistentVolumeClaim": {"claimName": "fast", "readOnly": False}}),
    ("host:/mnt/caches", "/cache", {"hostPath": {"path": "/mnt/caches", "type": "Directory"}}),
])  # fmt: skip
def test_the_trainer_alone_has_the_cache_s_volume_and_may_write(
    place: str, folder: str, mounted: dict[str, Any]
) -> None:
    pod = manifests(TrainingJob(name="pets", cache_volume=place, output="gs://bucket"))[0]["spec"]["template"]["spec"]
    assert {"name": "cache", **mounted} in pod["volumes"]
    (trainer,) = pod["containers"]
    assert {"name": "cache", "mountPath": "/cache"} in trainer["volumeMounts"]
    assert environment(trainer)["MASKFLEET_CACHE"] == folder
    assert environment(trainer)["TFDS_DATA_DIR"] == f"{folder}/tensorflow_datasets"
    for container in pod["initContainers"]:
        assert "cache" not in [mount["name"] for mount in container["volumeMounts"]]
        assert "MASKFLEET_CACHE" not in environment(container)


@pytest.mark.parametrize(
    "place", ["gs://bucket/caches", "secret:caches", "/mnt/caches", "pvc:", "host:caches", "pvc:a/../b"]
)
def test_a_cache_is_a_claim_or_a_folder_of_the_node(place: str) -> None:
    with pytest.raises(BadSettings, match=r"^--cache-volume: expected ") as error:
        TrainingJob.resolve([Layer("--{}", {"cache_volume": place})])
    assert str(error.value).endswith(f"found {place!r}")


def test_only_the_streamer_has_an_api_token() -> None:
    pod = manifests(job("buckets"))[0]["spec"]["template"]["spec"]
    mounted = [
        container["name"]
        for container in (*pod["initContainers"], *pod["containers"])
        if any(mount["name"] == "api-token" for mount in container["volumeMounts"])
    ]
    assert mounted == ["streamer"]
    assert pod["automountServiceAccountToken"] is False


def test_only_the_trainer_has_the_run_s_token_and_no_manifest_tells_it() -> None:
    objects = {each["kind"]: each for each in manifests(job("buckets"))}
    pod = objects["Job"]["spec"]["template"]["spec"]
    mounted = [
        container["name"]
        for container in (*pod["initContainers"], *pod["containers"])
        if any(mount["name"] == "token" for mount in container["volumeMounts"])
    ]
    assert mounted == ["trainer"]
    assert objects["Secret"].keys() == {"apiVersion", "kind", "metadata"}
    first, second = (with_token(objects["Secret"])["stringData"]["token"] for _ in range(2))
    assert len(first) == len(second) == 64
    assert first != second
    assert with_token(objects["ConfigMap"]) is objects["ConfigMap"]
    assert "token" not in json.dumps(tensorboard_pod(job("buckets"))).replace("automountServiceAccountToken", "")


def test_all_objects_but_the_job_go_when_the_job_goes() -> None:
    first, *others = manifests(job("defaults"))
    made: dict[str, Any] = {"metadata": {"name": "pets", "uid": "0-1"}}
    assert first["kind"] == "Job"
    assert all(with_owner(other, made)["metadata"]["ownerReferences"][0]["uid"] == "0-1" for other in others)


def test_the_gke_overlay_streams_and_restores_as_the_launcher_does() -> None:
    training = TrainConfig(data="synthetic", encoder_weights="none", epochs=2)
    asked = TrainingJob(
        name="maskfleet", output="gs://bucket/runs", training=training,
        node_selector=("iam.gke.io/gke-metadata-server-enabled=true",),
    )  # fmt: skip
    sent = manifests(asked)[0]
    by_hand = yaml.safe_load((base_folder() / "job.yaml").read_text())
    set_tags(by_hand, yaml.safe_load((base_folder() / "kustomization.yaml").read_text())["images"])
    overlay = yaml.safe_load((base_folder().parent / "overlays" / "gke" / "kustomization.yaml").read_text())
    (patch,) = [each["patch"] for each in overlay["patches"] if each["target"]["kind"] == "Job"]
    for step in yaml.safe_load(patch.replace("BUCKET", "bucket")):
        lay_over(by_hand, step)
    del sent["spec"]["suspend"]
    del sent["metadata"]["annotations"]
    assert sent == with_required_token(by_hand)


def with_required_token(job: dict[str, Any]) -> dict[str, Any]:
    """The launcher always makes one, and pods that Kueue releases at once have to wait for it."""
    (token,) = [each for each in job["spec"]["template"]["spec"]["volumes"] if each["name"] == "token"]
    assert token["secret"].pop("optional") is True
    return job


def set_tags(job: dict[str, Any], images: list[dict[str, str]]) -> None:
    """What kustomize's ``images`` does."""
    tags = {image["name"]: image["newTag"] for image in images}
    pod = job["spec"]["template"]["spec"]
    for container in (*pod["initContainers"], *pod["containers"]):
        container["image"] += f":{tags[container['image']]}"


def lay_over(document: Any, step: dict[str, Any]) -> None:
    """One ``add``, ``replace`` or ``copy`` of a JSON patch (RFC 6902)."""

    def at(path: list[str]) -> Any:
        found = document
        for part in path:
            found = found[int(part)] if isinstance(found, list) else found[part]
        return found

    *path, last = step["path"].strip("/").split("/")
    target, value = at(path), at(step["from"].strip("/").split("/")) if step["op"] == "copy" else step["value"]
    if isinstance(target, list):
        target.insert(len(target) if last == "-" else int(last), value)
    else:
        target[last] = value


def test_the_gpu_overlay_tells_the_trainer_of_its_gpus_as_the_launcher_does() -> None:
    overlay = yaml.safe_load((base_folder().parent / "overlays" / "gpu" / "kustomization.yaml").read_text())
    by_hand = yaml.safe_load(overlay["patches"][0]["patch"])
    sent = manifests(TrainingJob(name="maskfleet", gpus_per_worker=2))[0]
    for manifest in (by_hand, sent):
        (trainer,) = manifest["spec"]["template"]["spec"]["containers"]
        assert trainer["resources"]["limits"]["nvidia.com/gpu"] == "2"
        assert {"name": "MASKFLEET_GPUS", "value": "2"} in trainer["env"]


def test_rendered_json_is_a_list_of_the_same_objects() -> None:
    asked = job("buckets")
    assert json.loads(render_json(asked)) == {"apiVersion": "v1", "kind": "List", "items": manifests(asked)}


def test_the_streamer_alone_is_told_how_many_checkpoints_to_keep() -> None:
    pod = manifests(job("buckets"))[0]["spec"]["template"]["spec"]
    containers = (*pod["initContainers"], *pod["containers"])
    told = [c["name"] for c in containers if c.get("args", [])[-2:] == ["--keep-checkpoints", "3"]]
    assert told == ["streamer"]


def test_overlays_are_built_on_the_base() -> None:
    overlays = base_folder().parent / "overlays"
    for overlay in ("gpu", "gke", "kueue", "local"):
        kustomization = yaml.safe_load((overlays / overlay / "kustomization.yaml").read_text())
        assert kustomization["resources"] == ["../../base"]
