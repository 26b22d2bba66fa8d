"""Whether all that the settings of a run name is on this machine, told before anything is made or imported."""

from __future__ import annotations

from maskfleet.config import NO_WEIGHTS_FILE, TrainConfig
from maskfleet.data_setting import existing_data
from maskfleet.encoder_weights import weights_file
from maskfleet.own_code import check_functions, read_sources
from maskfleet.start_setting import check_start


def check_places(config: TrainConfig, *, begun: bool = False) -> None:
    """Looks for what ``config`` names; reads nothing of it.

    Args:
        begun: the run has a checkpoint to go on from, and needs no other start.

    Raises:
        BadSettings, BadData: something is not there.
    """
    existing_data(config.data)
    if config.encoder_weights not in NO_WEIGHTS_FILE:
        weights_file(config.encoder_weights)
    if config.code is not None:
        check_functions(config.own_functions, read_sources(config.code), config.code)
    if not begun:
        check_start(config.start_from)
