"""What a TrainingJob accepts, and what it says of what it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from launcher.image import default_tag
from launcher.job.labels import SPOT_LABELS
from launcher.job.manifests import manifests, tensorboard_pod, worker_pod
from launcher.job.places import parse_mount, parse_place
from launcher.job.pod_settings import parse_toleration
from launcher.job.quantities import parse_duration, parse_quantity
from launcher.job.training_job import TrainingJob
from launcher.pod.job_reporter import kubernetes_event
from maskfleet.errors import BadSettings
from maskfleet.records import Event
from maskfleet.text import format_duration


def job(*arguments: str, training: tuple[str, ...] = ()) -> TrainingJob:
    return TrainingJob.from_sources(None, TrainingJob.parse_flags(arguments), training)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "Pets"], "--name: expected at most 52 lower-case letters"),
        (["--workers", "0"], "--workers: expected a number from 1 to 2147483647, found '0'"),
        (["--workers", "8..2"], "--workers: expected numbers from 1 to 2147483647, the smaller first, as in 2..8"),
        (["--workers", "2-8"], "--workers: expected a number such as 8, or a range such as 2..8, found '2-8'"),
        (["--workers", "2..8", "--queue", "team"], "--workers 2..8: a queue admits all workers of a job or none"),
        (["--shrink-after", "1m"], "--shrink-after is about a range of workers: expected --workers such as 2..8 too"),
        (["--workers", "2..8", "--shrink-after", "soon"], "--shrink-after: expected a time such as 90s"),
        (["--cpu", "two"], "--cpu: expected a Kubernetes quantity such as 2, 500m or 4Gi, found 'two'"),
        (["--memory", "0"], "--memory: expected more than nothing"),
        (["--memory", "1e999"], "--memory: expected less than 8Ei"),
        (["--cpu", "8Ei"], "--cpu: expected less than 8Ei"),
        (["--scratch", "9" * 400], "--scratch: expected less than 8Ei"),
        (["--deadline", "soon"], "--deadline: expected a time such as 90s, 30m, 12h or 2d, found 'soon'"),
        (["--data", "pvc:"], "--data: expected pvc:CLAIM[/PATH]"),
        (["--data", "host:relative"], "--data: expected an absolute path without '..' after host:"),
        (["--data", "folder:/here"], "--data: a folder of this machine is not in the pod"),
        (["--data", "coco:/here"], "--data: a folder of this machine is not in the pod"),
        (["--data", "packed:/here"], "--data: expected pvc:CLAIM[/PATH] or host:/PATH or gs://BUCKET[/PATH]"),
        (["--data", "./here/data.yaml"], "--data: a folder of this machine is not in the pod"),
        (["--output", "/here"], "--output: expected gs://BUCKET[/PATH] or s3://BUCKET[/PATH] or pvc:CLAIM[/PATH]"),
        (["--output", "gs:bucket"], "--output: expected gs://BUCKET[/PATH]"),
        (["--output", "s3://My_Bucket"], "--output: expected s3://BUCKET[/PATH], BUCKET of lower-case letters, digits"),
        (["--env", "NAME"], "--env: expected VARIABLE=VALUE, not 'NAME'"),
        (["--env-from-secret", "KEY=secret"], "--env-from-secret: expected SECRET or VARIABLE=SECRET/KEY"),
        (["--mount", "pvc:claim"], "--mount: expected SOURCE=/PATH"),
        (["--mount", "pvc:a=/x", "--mount", "pvc:b=/x"], "--mount: /x is mounted twice"),
        (["--toleration", "a=b:Never"], "--toleration: expected KEY, KEY=VALUE or KEY=VALUE:EFFECT"),
        (["--node-selector", "gpu"], "--node-selector: expected LABEL=VALUE, not 'gpu'"),
        (["--pod-annotation", "group"], "--pod-annotation: expected KEY=VALUE, not 'group'"),
        (["--pod-label", "job-name=x"], "--pod-label job-name: is set by the job itself"),
        (["--pod-annotation", "maskfleet/workers=9"], "--pod-annotation maskfleet/workers: is set by the job itself"),
        (["--scheduler-name", "Volcano!"], "--scheduler-name: expected an object's name"),
        (["--image", "bad image:::"], "--image: expected an image as registry.example.com/team/trainer:1.0"),
        (["--image", "UPPER:1"], "--image: expected an image"),
        (["--image", "https://host/team/trainer:1"], "--image: expected an image"),
        (["--image", ""], "--image: expected an image"),
        (["--sidecar-image", "launcher:"], "--sidecar-image: expected an image"),
        (["--image-pull-policy", "Maybe"], "--image-pull-policy: expected IfNotPresent, Always or Never"),
        (["--worker", "2"], "--worker: there is no such setting; did you mean --workers?"),
    ],
)
def test_a_wrong_flag_is_named_with_what_was_expected(arguments: list[str], message: str) -> None:
    with pytest.raises(BadSettings) as error:
        job(*arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_secret_in_the_environment_is_refused_without_repeating_it() -> None:
    with pytest.raises(BadSettings) as error:
        job("--env", "AWS_SECRET_ACCESS_KEY=hunter2")
    assert "--env-from-secret AWS_SECRET_ACCESS_KEY=SECRET/KEY" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_wrong_trainer_setting_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(BadSettings, match="did you mean --epochs"):
        job(training=("--epoch", "3"))
    with pytest.raises(BadSettings, match="--global-batch 3: expected at least one example for each of 4 replicas"):
        job("--workers", "4", training=("--global-batch", "3"))


def test_a_range_of_workers_has_the_batch_of_all_of_them() -> None:
    asked = job("--workers", "2..8", "--gpus-per-worker", "2", training=("--batch-per-replica", "4"))
    assert asked.global_batch == 64
    config = next(each for each in manifests(asked) if each["kind"] == "ConfigMap")["data"]["config.json"]
    assert json.loads(config)["settings"]["global_batch"] == 64
    with pytest.raises(BadSettings, match="by --batch-per-replica auto the workers find how many"):
        job("--workers", "2..8", training=("--batch-per-replica", "auto"))
    assert job("--workers", "2..8", training=("--batch-per-replica", "auto", "--global-batch", "16")).global_batch == 16


@pytest.mark.parametrize("workers", ["2..8", 4, "4"])
def test_a_range_survives_a_job_file_and_the_job_s_annotation(workers: object, tmp_path: Path) -> None:
    asked = TrainingJob(name="pets", workers=workers)  # type: ignore[arg-type]
    file = tmp_path / "job.yaml"
    file.write_text(asked.to_yaml())
    assert TrainingJob.from_sources(file, TrainingJob.parse_flags([])).workers == asked.workers
    assert TrainingJob.model_validate_json(asked.to_json()) == asked
    assert f'"workers": {json.dumps("2..8" if workers == "2..8" else 4)}' in asked.to_json()


def test_a_pod_fetches_what_to_start_from_and_has_no_path_of_this_machine() -> None:
    asked = job("--name", "a", training=("--start-from", "gs://bucket/runs/cats"))
    pod = manifests(asked)[0]["spec"]["template"]["spec"]
    assert pod["initContainers"][0]["args"] == [
        "launcher", "prepare", "/run/maskfleet/a", "--start-from", "gs://bucket/runs/cats",
    ]  # fmt: skip
    mounted = ("--mount", "pvc:claim=/runs")
    assert job(*mounted, training=("--start-from", "/runs/cats")).training.start_from == "/runs/cats"
    with pytest.raises(BadSettings, match="--start-from /here/cats: a path of this machine is not in the pod"):
        job(*mounted, training=("--start-from", "/here/cats"))
    with pytest.raises(BadSettings, match="--start-from ftp://x/y: expected gs://BUCKET/PATH or s3://BUCKET/PATH"):
        job(training=("--start-from", "ftp://x/y"))


@pytest.mark.parametrize(
    ("arguments", "training", "data"),
    [
        ((), (), "synthetic"),
        (("--data", "oxford_iiit_pet"), (), "oxford_iiit_pet"),
        (("--data", "pvc:pets/v1"), (), "folder:/data"),
        (("--data", "packed:gs://bucket/pets"), (), "packed:gs://bucket/pets"),
        (("--data", "packed:pvc:pets/v1"), (), "packed:/data"),
        ((), ("--data", "packed:s3://bucket/pets"), "packed:s3://bucket/pets"),
        (("--data", "pvc:pets/v1"), ("--data", "voc:/data"), "voc:/data"),
    ],
)
def test_where_the_trainer_finds_the_data(arguments: tuple[str, ...], training: tuple[str, ...], data: str) -> None:
    assert job(*arguments, training=training).training.data == data


@pytest.mark.parametrize(
    ("arguments", "training", "cache"),
    [
        (("--data", "packed:gs://b/p"), (), 10 << 30),
        (("--data", "packed:gs://b/p", "--scratch", "1Gi"), (), 1 << 29),
        (("--data", "packed:gs://b/p", "--scratch", "1Gi"), ("--cache", "300MB"), 300_000_000),
        (("--data", "gs://b/p"), (), None),
    ],
)
def test_packed_data_is_read_by_the_trainer_within_its_scratch(
    arguments: tuple[str, ...], training: tuple[str, ...], cache: int | None
) -> None:
    made = {each["kind"]: each for each in manifests(job(*arguments, training=training))}
    settings = json.loads(made["ConfigMap"]["data"]["config.json"])["settings"]
    assert settings.get("cache") == cache
    pod = made["Job"]["spec"]["template"]["spec"]
    fetched = any(container["name"] == "prepare" for container in pod["initContainers"])
    assert fetched == any(volume["name"] == "data" for volume in pod["volumes"]) == (cache is None)


def test_a_job_file_reads_back_as_the_same_job(tmp_path: Path) -> None:
    asked = job(
        "--name", "pets", "--workers", "4", "--data", "pvc:pets/v1", "--output", "s3://bucket/runs", "--env", "A=b=c",
        "--deadline", "1h30m", "--spot", training=("--epochs", "3", "--data", "voc:/data"),
    )  # fmt: skip
    file = tmp_path / "job.yaml"
    file.write_text(asked.to_yaml())
    again = TrainingJob.from_sources(file, TrainingJob.parse_flags([]))
    assert again == asked
    assert again.to_json() == asked.to_json()


def test_flags_go_over_the_job_file(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"name": "pets", "workers": 4, "training": {"epochs": 3, "seed": 7}}))
    changed = TrainingJob.from_sources(file, TrainingJob.parse_flags(["--workers", "2"]), ["--epochs", "5"])
    assert (changed.count.most, changed.training.epochs, changed.training.seed) == (2, 5, 7)


def test_a_wrong_key_in_the_training_section_is_named_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("training: {epochz: 3}\n")
    with pytest.raises(BadSettings, match=r"job.yaml: training.epochz: there is no such setting; did you mean epochs"):
        TrainingJob.from_sources(file, TrainingJob.parse_flags([]))


@pytest.mark.parametrize(
    ("output", "destination"),
    [
        ("gs://bucket/runs", "gs://bucket/runs/pets"),
        ("s3://bucket", "s3://bucket/pets"),
        ("pvc:claim", "/output/pets"),
        ("pvc:claim/a/b", "/output/a/b/pets"),
        ("host:/srv/runs", "/output/pets"),
    ],
)
def test_each_run_has_a_folder_of_its_own_below_the_output(output: str, destination: str) -> None:
    assert job("--name", "pets", "--output", output).destination == destination


@pytest.mark.parametrize(
    ("text", "amount"),
    [("2", 2), ("500m", 0.5), ("1.5", 1.5), ("4Gi", 4 * 2**30), ("1k", 1000), ("1e9", 1e9), ("1.5E-3", 0.0015),
     ("1E", 1e18), ("2Ei", 2 * 2**60), ("100n", 1e-7), ("5u", 5e-6), ("5.", 5)],
)  # fmt: skip
def test_quantities(text: str, amount: float) -> None:
    assert parse_quantity(text) == pytest.approx(amount)


@pytest.mark.parametrize("text", ["", "Gi", "1e3Ki", "1e", "1K", "1mi", "-1", "1,5"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="expected a Kubernetes quantity"):
        parse_quantity(text)


@given(st.integers(1, 10**7))
def test_a_duration_that_was_written_whole_reads_back(seconds: int) -> None:
    assert parse_duration(str(seconds)) == parse_duration(f"{seconds}s") == seconds
    whole = seconds * 3600
    assert parse_duration(format_duration(whole)) == whole


@pytest.mark.parametrize("image", [
    "trainer", "team/trainer:1.0", "host/trainer", "Host.example:5000/a/b_c/d__e/f-g:T_1.x", "[::1]:5000/x",
    "gcr.io/p/i@sha256:" + "0a" * 32, "localhost:5000/i:1@sha256:" + "0a" * 32,
])  # fmt: skip
def test_the_names_of_images(image: str) -> None:
    assert TrainingJob(name="pets", image=image).image == image


def test_pods_have_what_another_scheduler_asks_for() -> None:
    job = TrainingJob(
        name="pets", scheduler_name="volcano", pod_label=("queue=team",),
        pod_annotation=("scheduling.volcano.sh/group-name=pets, all of them",),
    )  # fmt: skip
    template = manifests(job)[0]["spec"]["template"]
    assert template["spec"]["schedulerName"] == "volcano"
    assert template["metadata"]["labels"]["queue"] == "team"
    assert template["metadata"]["annotations"] == {
        "scheduling.volcano.sh/group-name": "pets, all of them", "maskfleet/workers": "1",
    }  # fmt: skip


def test_tolerations_and_mounts() -> None:
    assert parse_toleration("gpu") == {"key": "gpu", "operator": "Exists"}
    assert parse_toleration("a.b/c=d:NoExecute") == {
        "key": "a.b/c", "operator": "Equal", "value": "d", "effect": "NoExecute",
    }  # fmt: skip
    mount = parse_mount("pvc:claim/sub/dir=/weights:rw")
    assert (mount.place, mount.path, mount.read_only) == (
        parse_place("pvc:claim/sub/dir", ("pvc",)),
        "/weights",
        False,
    )


@pytest.mark.parametrize(
    "variable",
    [
        "GOOGLE_APPLICATION_CREDENTIALS=/secrets/key.json", "AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/aws/token",
        "AWS_SHARED_CREDENTIALS_FILE=~/.aws/credentials", "TLS_PRIVATE_KEY=/secrets/tls.key",
        "TOKENIZERS_PARALLELISM=false",
    ],
)  # fmt: skip
def test_the_path_of_a_mounted_secret_is_none(variable: str) -> None:
    assert job("--env", variable).env == (variable,)


@pytest.mark.parametrize(
    "variable",
    ["HF_TOKEN=hunter2", 'GOOGLE_APPLICATION_CREDENTIALS={"hunter2"}', "AWS_SECRET_ACCESS_KEY=/looks/like/hunter2"],
)
def test_a_secret_that_is_no_path_is_refused(variable: str) -> None:
    with pytest.raises(BadSettings, match=r"looks like a secret.*or --mount secret:SECRET=/PATH") as error:
        job("--env", variable)
    assert "hunter2" not in str(error.value)


def test_workers_with_gpus_get_the_image_for_them_unless_one_is_given() -> None:
    assert job("--gpus-per-worker", "2").image == default_tag("gpu")
    assert job("--gpus-per-worker", "0").image == job().image == default_tag("cpu")
    assert job("--gpus-per-worker", "2", "--image", "own:1").image == "own:1"
    assert TrainingJob(name="pets", gpus_per_worker=1).image == default_tag("gpu")


def test_a_streamer_has_ten_minutes_for_the_rest() -> None:
    assert job().grace_seconds == 60
    assert job("--output", "gs://bucket").grace_seconds == 600
    assert job("--output", "gs://bucket", "--grace", "20s").grace_seconds == 20


def test_retention_is_about_an_output() -> None:
    assert job("--output", "gs://bucket", "--keep-checkpoints", "3").keep_checkpoints == 3
    with pytest.raises(BadSettings, match="--keep-checkpoints is about the checkpoints in --output"):
        job("--keep-checkpoints", "3")


def test_a_wrong_value_of_a_repeatable_flag_is_named_without_the_others() -> None:
    with pytest.raises(BadSettings) as error:
        job("--env", "KEY_FILE=/x", "--env", "1A=b", "--env", "PLAIN=hush")
    assert str(error.value) == "--env: expected VARIABLE=VALUE, not '1A=b', found '1A=b'"


def test_an_empty_output_is_refused() -> None:
    with pytest.raises(BadSettings, match=r"--output: expected gs://BUCKET\[/PATH\] or "):
        job("--output", "")


@pytest.mark.parametrize("label", SPOT_LABELS)
def test_what_spot_selects_is_not_selected_again(label: str) -> None:
    with pytest.raises(BadSettings, match=f"--spot already selects {label}: leave out that --node-selector"):
        TrainingJob.from_sources(None, TrainingJob.parse_flags(["--spot", "--node-selector", f"{label}=x"]))


def test_jobs_of_equal_settings_never_have_one_name() -> None:
    names = {TrainingJob.from_sources(None, TrainingJob.parse_flags([])).name for _ in range(300)}
    assert len(names) == 300


def test_the_longest_name_makes_names_that_kubernetes_takes() -> None:
    name = "a" * 52
    job = TrainingJob(name=name, workers=5000, output="pvc:c", queue="q" * 63)
    first, *others = manifests(job)
    pod = first["spec"]["template"]["spec"]
    host = f"{name}-{job.count.most - 1}"
    assert len(host) <= 63
    assert len(pod["subdomain"]) <= 63
    assert all(len(each["metadata"]["name"]) <= 63 for each in [first, *others])
    made = [worker_pod(first, "default"), tensorboard_pod(job)]
    assert all(len(each["metadata"]["name"]) <= 253 for each in made)
    labels = [each["metadata"].get("labels", {}) for each in [first, *others, *made, first["spec"]["template"]]]
    assert max(len(value) for each in labels for value in each.values()) <= 63
    event = kubernetes_event(Event(0.0, "start", ""), "n" * 63, name, "uid")
    assert len(event["metadata"]["name"]) <= 253
    with pytest.raises(BadSettings, match="--queue: string should have at most 63 characters"):
        TrainingJob.from_sources(None, TrainingJob.parse_flags(["--queue", "q" * 64]))
