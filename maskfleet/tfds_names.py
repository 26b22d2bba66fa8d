"""Whether TensorFlow Datasets has a data set of some name, told by the text of its files: nothing of it is imported."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from pathlib import Path

from maskfleet.config import absolute_path
from maskfleet.errors import BadSettings

_CLASS = re.compile(rb"^class (\w+)\(", re.MULTILINE)


def data_root(data_dir: Path | None) -> Path:
    """Where the folders of all data sets are."""
    return data_dir or absolute_path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"), "TFDS_DATA_DIR")


def check_name(data: str, data_dir: Path | None) -> None:
    """Whether ``tfds:NAME…`` lies in ``data_dir`` or may be built; of other data nothing is said.

    Raises:
        BadSettings: neither; with a name that is near.
    """
    kind, _, place = data.partition(":")
    name = re.match(r"\w*", place)
    if kind != "tfds" or not name or not name[0]:
        return
    root = data_root(data_dir)
    if (root / name[0]).is_dir() or not (known := builders()) or name[0] in known:
        return
    near = difflib.get_close_matches(name[0], known, n=1)
    raise BadSettings(
        f"--data {data}: there is no such data set in {root}, and none in TensorFlow Datasets"
        + (f"; did you mean tfds:{near[0]}?" if near else "")
    )


def builders() -> set[str]:
    """Every name that the installed TensorFlow Datasets may build, among others that it may not; none without it.

    It names a data set by its class, ``OxfordIIITPet`` as ``oxford_iiit_pet``, or by the folder of a class ``Builder``.
    """
    found = importlib.util.find_spec("tensorflow_datasets")
    names = set()
    for root in (found and found.submodule_search_locations) or ():
        for file in Path(root).rglob("*.py"):
            if file.name.endswith("_dataset_builder.py"):
                names.add(file.parent.name)
            elif not file.name.endswith("_test.py"):
                names |= {_snake_case(each.decode()) for each in _CLASS.findall(file.read_bytes())}
    return names


def _snake_case(name: str) -> str:
    """As ``tensorflow_datasets.core.naming.camelcase_to_snakecase`` does."""
    words = re.sub("(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", words).lower()
