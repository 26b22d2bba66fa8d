"""What ``make gpu-check`` says of the image's variables and of a worker's pod; the rest needs the wheels."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from launcher.job.training_job import TrainingJob

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "docker/gpu_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_image_has_what_the_driver_needs(check: ModuleType) -> None:
    assert list(check.image((ROOT / "docker/Dockerfile").read_text())) == []


@pytest.mark.parametrize(
    ("variables", "finding"),
    [
        ("LD_LIBRARY_PATH=/usr/lib NVIDIA_DRIVER_CAPABILITIES=all,compute,utility", "lacks /usr/local/nvidia/lib64"),
        ("LD_LIBRARY_PATH=/usr/local/nvidia/lib64 NVIDIA_DRIVER_CAPABILITIES=utility",
         "lacks some of compute, utility"),
        ("LD_LIBRARY_PATH=/usr/local/nvidia/lib64 NVIDIA_DRIVER_CAPABILITIES=compute,utility "
         "NVIDIA_VISIBLE_DEVICES=all", "is the device plugin's to set"),
    ],
)  # fmt: skip
def test_an_image_that_hides_the_driver_is_found(check: ModuleType, variables: str, finding: str) -> None:
    (found,) = check.image(f"FROM base AS gpu\nENV {variables}\n\nFROM base AS other\nENV LD_LIBRARY_PATH=/x\n")
    assert finding in found


def test_a_worker_s_pod_is_as_the_device_plugin_has_it(check: ModuleType) -> None:
    assert list(check.pod(TrainingJob(name="pets", gpus_per_worker=4))) == []


def test_a_pod_without_gpus_is_found(check: ModuleType) -> None:
    assert any("nvidia.com/gpu" in found for found in check.pod(TrainingJob(name="pets")))


@pytest.mark.parametrize(
    ("build", "finding"),
    [
        ({"cuda_compute_capabilities": ["sm_60", "sm_70", "sm_80", "sm_89", "compute_90"]}, ""),
        ({"cuda_compute_capabilities": ["sm_70", "sm_80", "compute_120"]},
         "expected KERNELS = ((7, 0), (8, 0), (12, 0))"),
        ({}, "expected KERNELS = ()"),
    ],
)  # fmt: skip
def test_kernels_are_held_against_the_wheel(check: ModuleType, build: dict[str, Any], finding: str) -> None:
    found = list(check.kernels(build))
    assert finding in found[0] if finding else found == []
