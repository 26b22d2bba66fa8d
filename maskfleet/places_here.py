"""Whether all that the settings of a run name is on this machine, told before anything is made or imported."""

from __future__ import annotations

from maskfleet.config import NO_WEIGHTS_FILE, TrainConfig
from maskfleet.data_setting import existing_data
from maskfleet.encoder_weights import weights_file
from maskfleet.own_code import check_functions, check_modules, read_sources
from maskfleet.start_setting import check_start
from maskfleet.tfds_names import check_name


def check_places(config: TrainConfig, *, begun: bool = False) -> None:
    """Looks for what ``config`` names; reads nothing of it but source code.

    Args:
        begun: the run has a checkpoint to go on from, and needs no other start.

    Raises:
        BadSettings, BadData: something is not there.
    """
    existing_data(config.data)
    if config.encoder_weights not in NO_WEIGHTS_FILE:
        weights_file(config.encoder_weights)
    check_name(config.data, config.data_dir)
    if config.code is not None:
        check_functions(config.own_functions, read_sources(config.code), config.code)
    else:
        check_modules(config.own_functions)
    if not begun:
        check_start(config.start_from)
