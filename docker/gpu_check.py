"""Whether the gpu image would find what TensorFlow needs of CUDA, as far as a machine without a GPU can tell.

``make gpu-check`` runs it in an environment that has the image's packages and nothing else. It prints a line for each
finding and one of what was looked at; the exit code is 1 with findings. Whether kernels run, and rightly, only a GPU
tells.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import json
import mmap
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.diagnosis.gpus import KERNELS
from launcher.job.manifests import manifests
from launcher.job.training_job import TrainingJob
from trainer.gpu_libraries import open_those_left_out

ROOT = Path(__file__).parents[1]
DRIVERS_OWN = {"CudaDriver": "libcuda.so.1", "Nvml": "libnvidia-ml.so.1"}
"""What a node's driver brings into the container, and no wheel may."""
NOT_ASKED_FOR = ("Hip", "Roc", "Miopen", "NvInfer", "Nvshmem")
"""AMD's; TensorRT, which the wheels are built without; NVSHMEM, for kernels across nodes that nothing here asks for."""
GKE_DRIVER = "/usr/local/nvidia/lib64"
"""Where GKE's device plugin mounts the driver: https://cloud.google.com/kubernetes-engine/docs/how-to/gpus#cuda."""
CAPABILITIES = {"compute", "utility"}
"""CUDA and nvidia-ml: https://docs.nvidia.com/datacenter/cloud-native/container-toolkit (driver capabilities)."""


def folder_of(package: str) -> Path:
    """Where a package lies, which is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{package} is not installed here: run this by 'make gpu-check'")
    return Path(next(iter(found.submodule_search_locations)))


def opened_by_tensorflow(framework: Path) -> Iterator[str]:
    """Has TensorFlow's own loader open each library of NVIDIA's, by the functions that its own code calls.

    Then all at once, as it does before it registers GPUs: if one is missing, it registers none.

    ``tsl::internal::DsoLoader::Get…DsoHandle()`` returns an absl::StatusOr<void*>: a status, whose word is 1 if all is
    well, and the handle.
    """
    with framework.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        pattern = rb"_ZN3tsl8internal9DsoLoader\d+Get([A-Za-z]+)DsoHandleEv"
        names = sorted({match[1].decode() for match in re.finditer(pattern, content)})
    names = [name for name in names if not name.startswith(NOT_ASKED_FOR)]
    if len(names) < len(DRIVERS_OWN) + 7:
        yield f"TensorFlow's loader: expected functions for CUDA's libraries, found {', '.join(names) or 'none'}"
    open_those_left_out()
    loader = ctypes.CDLL(str(framework))
    for name in names:
        function = f"Get{name}DsoHandle"
        found = (ctypes.c_uint64 * 2)()
        loader[f"_ZN3tsl8internal9DsoLoader{len(function)}{function}Ev"](found)
        if found[0] == 1 and name in DRIVERS_OWN:
            print(f"note: {DRIVERS_OWN[name]} is here: this machine has a driver")
        elif found[0] != 1 and name not in DRIVERS_OWN:
            yield f"TensorFlow does not find the library of {name}, by Get{name}DsoHandle in its dso_loader.cc"
    found = (ctypes.c_uint64 * 2)()
    loader["_ZN3tsl8internal9DsoLoader22TryDlopenCUDALibrariesEv"](found)
    if found[0] != 1:
        yield "TensorFlow would register no GPU: it does not find all the libraries that it looks for first"
    told = [name for name in names if name not in DRIVERS_OWN]
    print(f"looked at: TensorFlow's loader opens {', '.join(told)}")


def libraries(nvidia: Path) -> Iterator[str]:
    """Opens each library of the wheels in a process of its own, so that none is found because another is loaded."""
    files = sorted(path for path in nvidia.rglob("*.so*") if path.is_file() and "stubs" not in path.parts)
    for path in files:
        words = [sys.executable, "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", str(path)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        said = done.stderr.strip().rpartition("\n")[2]
        if done.returncode and not any(f"{own}: cannot open" in said for own in DRIVERS_OWN.values()):
            yield f"{path.relative_to(nvidia)} can't be opened: {said}"
    print(f"looked at: {len(files)} libraries of the wheels, each opened alone")


def compiler(nvidia: Path) -> Iterator[str]:
    """What XLA compiles kernels with."""
    ptxas, device = nvidia / "cuda_nvcc/bin/ptxas", nvidia / "cuda_nvcc/nvvm/libdevice/libdevice.10.bc"
    try:
        subprocess.run([ptxas, "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        yield f"ptxas can't be run: {error}"
    if not device.is_file():
        yield f"libdevice is missing: expected {device}"
    print("looked at: ptxas, libdevice")


def versions(build: Mapping[str, Any]) -> Iterator[str]:
    """The wheels against what TensorFlow was built with: the same major version, and not older."""
    told = []
    for key, package in (("cuda_version", "nvidia-cuda-runtime-cu12"), ("cudnn_version", "nvidia-cudnn-cu12")):
        built, there = str(build.get(key)), importlib.metadata.version(package)
        told.append(f"{package} {there} for {built}")
        wanted, found = ([int(part) for part in re.findall(r"\d+", text)[:2]] for text in (built, there))
        if not wanted or found[0] != wanted[0] or found[: len(wanted)] < wanted:
            yield f"{package} {there}: TensorFlow was built with {key} {built}"
    print(f"looked at: {'; '.join(told)}")


def kernels(build: Mapping[str, Any]) -> Iterator[str]:
    """The cards that preflight and submit say something of, against what the wheel has kernels for."""
    told = [str(each) for each in build.get("cuda_compute_capabilities", ())]
    there = tuple(sorted((int(each[:-1].split("_")[1]), int(each[-1])) for each in told))
    if there != KERNELS:
        yield f"launcher/diagnosis/gpus.py: expected KERNELS = {there}, found {KERNELS}"
    print(f"looked at: kernels for {', '.join(told)}")


def image(dockerfile: str) -> Iterator[str]:
    """The variables of the gpu target, against what NVIDIA's container toolkit and GKE's device plugin go by."""
    target = dockerfile.split(" AS gpu\n")[1].split("\nFROM ")[0]
    given = dict(re.findall(r"([A-Z_]+)=(\S+)", " ".join(re.findall(r"^ENV (.*)$", target, re.MULTILINE))))
    if GKE_DRIVER not in given.get("LD_LIBRARY_PATH", "").split(":"):
        yield f"image: LD_LIBRARY_PATH lacks {GKE_DRIVER}, where GKE mounts the driver"
    if not set(given.get("NVIDIA_DRIVER_CAPABILITIES", "").split(",")) >= CAPABILITIES:
        yield f"image: NVIDIA_DRIVER_CAPABILITIES lacks some of {', '.join(sorted(CAPABILITIES))}"
    if "NVIDIA_VISIBLE_DEVICES" in given:
        yield "image: NVIDIA_VISIBLE_DEVICES is the device plugin's to set, else a pod sees GPUs of others"
    print(f"looked at: image with {', '.join(f'{key}={given[key]}' for key in given if key.startswith(('LD', 'NV')))}")


def pod(job: TrainingJob) -> Iterator[str]:
    """A worker's pod, against https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus and GKE's taint."""
    spec = manifests(job)[0]["spec"]["template"]["spec"]
    (trainer,) = spec["containers"]
    wanted = str(job.gpus_per_worker)
    for which in ("limits", "requests"):
        if trainer["resources"][which].get("nvidia.com/gpu") != wanted:
            yield f"pod: {which} lack nvidia.com/gpu: {wanted}"
    if {"key": "nvidia.com/gpu", "operator": "Exists"} not in spec.get("tolerations", []):
        yield "pod: does not tolerate the taint nvidia.com/gpu of GPU nodes"
    mounts = {mount["mountPath"]: mount["name"] for mount in trainer["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    if volumes.get(mounts.get("/dev/shm", ""), {}).get("emptyDir", {}).get("medium") != "Memory":
        yield "pod: /dev/shm is no memory, which NCCL shares between GPUs"
    if any(path.startswith("/usr/local/nvidia") for path in mounts):
        yield "pod: something is mounted where the device plugin mounts the driver"
    if any(each["name"] == "NVIDIA_VISIBLE_DEVICES" for each in trainer["env"]):
        yield "pod: NVIDIA_VISIBLE_DEVICES is the device plugin's to set"
    if "nvidia.com/gpu" in str(spec["initContainers"]):
        yield "pod: an init container asks for a GPU, which the trainer then lacks"
    print("looked at: a worker's limits, tolerations, shared memory, mounts and variables")


def main() -> int:
    tensorflow, nvidia = folder_of("tensorflow"), folder_of("nvidia")
    text = "import json, tensorflow as tf; print(json.dumps(dict(tf.sysconfig.get_build_info())))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"finding: TensorFlow can't be imported: {done.stderr.strip().rpartition(chr(10))[2]}")
        return 1
    build = json.loads(done.stdout)
    count = 0
    for finding in (
        *opened_by_tensorflow(tensorflow / "libtensorflow_framework.so.2"),
        *libraries(nvidia),
        *compiler(nvidia),
        *versions(build),
        *kernels(build),
        *image((ROOT / "docker/Dockerfile").read_text(encoding="utf-8")),
        *pod(TrainingJob(name="check", workers=2, gpus_per_worker=2)),
    ):
        print(f"finding: {finding}")
        count += 1
    print(f"{count} finding(s)" if count else "nothing is missing but the driver, which is the node's")
    return 1 if count else 0


if __name__ == "__main__":
    raise SystemExit(main())
