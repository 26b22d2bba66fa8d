"""``--precision auto``: bfloat16 where the hardware multiplies it, else float32."""

from __future__ import annotations

from pathlib import Path

from maskfleet.config import TrainConfig

_CPU = Path("/proc/cpuinfo")
_CPU_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512_BF16"}
_FIRST_GPU = (8, 0)
"""Compute capability from which on an NVIDIA GPU multiplies bfloat16: Ampere's."""


def bfloat16_unit(cpu: Path = _CPU) -> str | None:
    """What multiplies bfloat16 on this machine: by name, or None if it would be emulated."""
    import tensorflow as tf

    gpus = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    if gpus:
        able = all(details.get("compute_capability", (0, 0)) >= _FIRST_GPU for details in gpus)
        return gpus[0].get("device_name", "GPU") if able else None
    try:
        flags = set(cpu.read_text().split())
    except OSError:  # not Linux
        return None
    return next((unit for flag, unit in _CPU_UNITS.items() if flag in flags), None)


def chosen_precision(config: TrainConfig) -> TrainConfig:
    """With the precision for this machine in the place of an automatic one."""
    if config.precision != "auto":
        return config
    return config.model_copy(update={"precision": "float32" if bfloat16_unit() is None else "bfloat16"})
