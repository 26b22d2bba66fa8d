"""TensorFlow's start-up lines are left out, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from maskfleet.quiet import is_startup_line

STARTUP = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795704252.222724    7475 port.cc:153] oneDNN custom operations are on.",
    "I0000 00:00:1795704252.222724    7475 gpu_device.cc:2020] Created device /job:localhost/replica:0",
    "W0000 00:00:1795704252.222724    7475 gpu_device.cc:2342] Cannot dlopen some GPU libraries. Please make sure",
    "Skipping registering GPU devices...",
    "2026-11-26 09:15:00.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This binary is",
    "To enable the following instructions: AVX2 AVX512F FMA, in other operations, rebuild TensorFlow with the",
    "2026-11-26 09:15:00.123456: I external/local_xla/xla/tsl/cuda/cudart_stub.cc:32] Could not find cuda drivers",
    "E0000 00:00:1795704252.222724    7475 cuda_fft.cc:477] Unable to register cuFFT factory: Attempting to register",
    "2026-11-26 09:15:00.1: E external/xla/cuda_dnn.cc:9] Unable to register cuDNN factory: Attempting to register",
    "E0000 00:00:1795704252.222724    7475 cuda_platform.cc:51] failed call to cuInit: INTERNAL",
]
OTHERS = [
    "E0000 00:00:1795704252.222724    7475 cuda_dnn.cc:522] Loaded runtime CuDNN library: 9.1 but source was",
    "F0000 00:00:1795704252.222724    7475 tensor.cc:852] Check failed: dtype() == expected_dtype (3 vs. 1)",
    "2026-11-26 09:15:00.123456: E tensorflow/core/framework/node_def_util.cc:676] NodeDef mentions attribute",
    "2026-11-26 09:15:00.123456: F tensorflow/core/platform/statusor.cc:33] Attempting to fetch value instead",
    "epoch 1/2  step 30/60  loss 1.2342",
    "error: --data x: expected a folder",
    "Traceback (most recent call last):",
    "I am a user's own line: 12]",
    "",
]


@pytest.mark.parametrize("line", STARTUP)
def test_a_line_of_tensorflow_s_start_is_known(line: str) -> None:
    assert is_startup_line(line.encode() + b"\n")


@pytest.mark.parametrize("line", OTHERS)
def test_errors_and_all_else_are_passed_on(line: str) -> None:
    assert not is_startup_line(line.encode() + b"\n")


def test_who_looks_for_a_fault_sees_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKFLEET_DEBUG", "1")
    assert not is_startup_line(STARTUP[0].encode())


def stderr_of(ending: str, **environment: str) -> tuple[int, str]:
    """Exit code and standard error of a process that writes to its descriptor as C++ does, and then ends by itself."""
    lines = [STARTUP[1], OTHERS[0], STARTUP[0], "last"]
    program = (
        f"import os, signal, sys; from maskfleet.quiet import quiet_stderr; quiet_stderr()\n"
        f"os.write(2, {chr(10).join(lines).encode()!r})\n{ending}"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize(("ending", "code"), [
    ("sys.exit(3)", 3), ("os._exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", -9), ("os.abort()", -6),
])  # fmt: skip
def test_however_a_process_ends_its_errors_are_read(ending: str, code: int) -> None:
    assert stderr_of(ending) == (code, f"{OTHERS[0]}\nlast")


def test_a_traceback_comes_out_whole() -> None:
    code, text = stderr_of("print(file=sys.stderr); raise RuntimeError('no')")
    assert code == 1
    assert text.endswith("RuntimeError: no\n")


def test_errors_are_read_also_when_the_child_that_passes_them_on_is_killed() -> None:
    kill = (
        "import subprocess, time; (child,) = open(f'/proc/self/task/{os.getpid()}/children').read().split()\n"
        "time.sleep(.2); os.kill(int(child), signal.SIGKILL); time.sleep(.2)\n"
        "subprocess.run(['true'], check=True); os.write(2, b' of C++'); raise RuntimeError('no')"
    )
    code, text = stderr_of(kill)
    assert code == 1
    assert text.startswith(f"{OTHERS[0]}\n of C++Traceback")
    assert text.endswith("RuntimeError: no\n")
    assert "atexit" not in text


def test_nothing_is_left_out_of_what_a_fault_finder_reads() -> None:
    assert STARTUP[1] in stderr_of("pass", MASKFLEET_DEBUG="1")[1]


@pytest.mark.parametrize(("environment", "seen"), [({}, False), ({"MASKFLEET_DEBUG": "1"}, True)])
def test_a_library_s_warning_is_for_who_looks_for_a_fault(environment: dict[str, str], seen: bool) -> None:
    program = (
        "import warnings; from maskfleet.quiet import leave_out_warnings; leave_out_warnings(); "
        "warnings.simplefilter('always'); warnings.warn('palette images'); warnings.warn('x', DeprecationWarning)"
    )
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**clean, **environment}, check=True
    )
    assert ("palette images" in done.stderr) == seen
    assert seen or done.stderr == ""


@pytest.mark.parametrize(("environment", "seen"), [({}, False), ({"MASKFLEET_DEBUG": "1"}, True)])
def test_what_a_library_warns_of_by_logging_is_left_out_too(environment: dict[str, str], seen: bool) -> None:
    program = (
        "import logging; from maskfleet.quiet import leave_out_warnings; leave_out_warnings(); "
        "[logging.getLogger(name).warning('by %s', name) for name in ('matplotlib', 'launcher.stream')]; "
        "logging.getLogger('matplotlib').error('an error')"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=True)
    assert done.stderr.splitlines() == ["by matplotlib"] * seen + ["by launcher.stream", "an error"]


@pytest.mark.parametrize("line", [
    b"WARNING:absl:You are saving your model as an HDF5 file", b"WARNING:tensorflow:5 out of the last 5 calls",
])  # fmt: skip
def test_what_keras_and_tensorflow_warn_of_is_no_news_to_a_user(line: bytes) -> None:
    assert is_startup_line(line)
