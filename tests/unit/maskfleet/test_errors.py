"""The tree of errors is as it is drawn."""

from __future__ import annotations

import importlib
import pkgutil
import re

import launcher
import maskfleet
import trainer
from maskfleet import errors
from maskfleet.errors import MaskfleetError, reason


def drawn() -> dict[str, tuple[str, str]]:
    """Parent and exit code of each error in the drawing."""
    parents: list[str] = []
    found = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:[│├└─ ]{4})*)([A-Z]\w+) +(\d+|\*)  ", line)
        if match:
            depth = len(match[1]) // 4
            parents[depth:] = [match[2]]
            found[match[2]] = (parents[depth - 1] if depth else "Exception", match[3])
    return found


def all_below(error: type[MaskfleetError]) -> list[type[MaskfleetError]]:
    return [each for child in error.__subclasses__() for each in (child, *all_below(child))]


def test_every_error_is_drawn_with_its_parent_and_its_code() -> None:
    for package in (launcher, maskfleet, trainer):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    tree = drawn()
    ours = [
        MaskfleetError,
        *(each for each in all_below(MaskfleetError) if each.__module__.startswith(("l", "m", "tra"))),
    ]
    assert {each.__name__ for each in ours} == set(tree)
    for each in ours:
        parent, code = tree[each.__name__]
        assert each.__bases__[0].__name__ == parent
        assert code in ("*", str(each.exit_code))


def test_what_the_launcher_offers_is_what_it_says() -> None:
    assert sorted(launcher._HOME) == launcher.__all__
    for name in launcher.__all__:
        assert getattr(launcher, name).__module__ == launcher._HOME[name]


def test_no_verb_is_hidden_by_a_package_of_its_name() -> None:
    for module in pkgutil.walk_packages(launcher.__path__, "launcher."):
        importlib.import_module(module.name)
    from launcher import delete, status, submit

    assert all(callable(verb) for verb in (delete, status, submit))


def test_a_reason_has_none_of_tensorflow_s_own_names() -> None:
    words = "{{function_node __wrapped__SaveV2}} r/.writing/step-1_temp/part-0.tempstate79335; No space left on device"
    assert reason(RuntimeError(f"{words} [Op:SaveV2]")) == "No space left on device"
    assert reason(OSError(28, "No space left on device", "r/a")) == "No space left on device"
