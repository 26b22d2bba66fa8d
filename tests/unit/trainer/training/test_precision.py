"""--precision auto."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.peers import Peers
from maskfleet.run_directory import RunDirectory
from trainer.training import assembly, precision
from trainer.training.assembly import Worker, _with_chosen_precision
from trainer.training.precision import bfloat16_unit, chosen_precision


@pytest.mark.parametrize(
    ("flags", "unit"),
    [
        ("fpu avx512f avx512_bf16 amx_bf16 amx_tile", "AMX"),
        ("fpu avx512f avx512_bf16", "AVX512_BF16"),
        ("fpu avx512f avx512_vnni amx_int8", None),
    ],
)
def test_a_processor_multiplies_bfloat16_if_it_says_so(tmp_path: Path, flags: str, unit: str | None) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"model name\t: Some CPU\nflags\t\t: {flags}\n")
    assert bfloat16_unit(file) == unit


def test_a_system_that_does_not_tell_has_none(tmp_path: Path) -> None:
    assert bfloat16_unit(tmp_path / "nothing") is None


@pytest.mark.parametrize(("capability", "unit"), [((7, 5), None), ((8, 0), "A100")])
def test_a_gpu_multiplies_bfloat16_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], unit: str | None
) -> None:
    details = {"device_name": "A100", "compute_capability": capability}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [object()])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    assert bfloat16_unit() == unit


@pytest.mark.parametrize(
    ("unit", "chosen", "line"),
    [
        ("AMX", "bfloat16", "--precision auto: bfloat16, which AMX multiplies\n"),
        (None, "float32", "--precision auto: float32, as nothing here multiplies bfloat16\n"),
    ],
)
def test_the_choice_is_told_and_becomes_the_setting(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], unit: str | None, chosen: str, line: str
) -> None:
    for module in (assembly, precision):
        monkeypatch.setattr(module, "bfloat16_unit", lambda: unit)
    config = TrainConfig(precision="auto")
    strategy = tf.distribute.get_strategy()
    worker = Worker(RunDirectory(Path("run")), config, Peers(), strategy, None, None, None, lambda: None)
    assert _with_chosen_precision(worker, config).precision == chosen
    assert capfd.readouterr().out == line
    assert chosen_precision(config).precision == chosen


def test_a_precision_that_was_asked_for_stays() -> None:
    assert chosen_precision(TrainConfig(precision="float16")).precision == "float16"
