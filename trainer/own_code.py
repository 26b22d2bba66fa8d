"""Imports a user's own functions, and tells what goes wrong in them in one line, with their file and line."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maskfleet.errors import BadInput, BadSettings, MaskfleetError
from maskfleet.own_code import fingerprint, read_sources
from maskfleet.text import one_line

_LINE = re.compile(r'File "([^"]+)", line (\d+)')
"""As a traceback in the text of an error has it, that TensorFlow passes on from a function of Python's."""

_root: str | None = None
_files: set[str] = set()
"""Of the modules that were loaded."""


def use_code(code: Path | None) -> None:
    """Has :func:`load` look into this folder or archive, too; behind all that is installed.

    Modules of another folder that was used before are forgotten: two runs may have files of the same names.
    """
    global _root
    if code is None or str(code) == _root:
        return
    if _root is not None:
        sys.path[:] = [path for path in sys.path if path != _root]
        for name, module in list(sys.modules.items()):
            if _is_below(getattr(module, "__file__", None), _root):
                del sys.modules[name]
    _root = str(code)
    sys.path.append(_root)
    importlib.invalidate_caches()


def load(setting: str, name: str) -> Callable[..., Any]:
    """The function ``MODULE:FUNCTION`` that ``setting`` names.

    Raises:
        BadSettings: it can't be imported, or is none.
    """
    said = f"{setting} {name}"
    module_name, _, function_name = name.partition(":")
    with users_code(said):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise  # of what it imports itself
            raise BadSettings(
                f"{said}: there is no module {error.name}; --code DIR names the folder that it lies in"
            ) from error
    file = getattr(module, "__file__", None) or module_name
    _files.add(file)
    if _root is not None and not _is_below(file, _root) and _is_in_root(module_name):
        raise BadSettings(f"{said}: another module {module_name} is installed, at {file}; rename yours in {_root}")
    function = getattr(module, function_name, None)
    if not callable(function):
        raise BadSettings(f"{said}: {file}: expected a function {function_name}, found none")
    loaded: Callable[..., Any] = function
    return loaded


def loaded_fingerprint() -> str:
    """Of the code that is used: all Python files of the folder, or the files that functions were loaded from."""
    if _root is not None:
        return fingerprint(read_sources(Path(_root)))
    return fingerprint({file: Path(file).read_bytes() for file in sorted(_files) if Path(file).is_file()})


@contextmanager
def users_code(said: str, kind: type[BadInput] = BadSettings) -> Iterator[None]:
    """Whatever the block raises becomes one line that begins with ``said`` and has the user's file and line."""
    try:
        yield
    except MaskfleetError:
        raise
    except (Exception, SystemExit) as error:
        words = error.msg if isinstance(error, SyntaxError) else one_line(_without_traceback(str(error)))
        raise kind(f"{said}: {_place(error)}{type(error).__name__}: {words}".rstrip(": ")) from error


def refuse(said: str, function: Callable[..., Any], problem: str, kind: type[BadInput] = BadSettings) -> BadInput:
    """The error for a function that gives something else than what it should."""
    code = getattr(function, "__code__", None) or getattr(getattr(function, "__init__", None), "__code__", None)
    place = f"{code.co_filename}:{code.co_firstlineno}: " if code is not None else ""
    return kind(f"{said}: {place}{problem}")


def _place(error: BaseException) -> str:
    """``FILE:LINE: `` of the innermost line of the user's that has led to the error; nothing if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: "
    cause: BaseException | None = error
    while cause is not None:
        frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(cause.__traceback__)]
        for file, line in reversed(frames + [(file, int(line)) for file, line in _LINE.findall(str(cause))]):
            if _is_users(file):
                return f"{file}:{line}: "
        cause = cause.__cause__ or cause.__context__
    return ""


def _without_traceback(words: str) -> str:
    """TensorFlow puts the traceback of a Python function before the last line, which says what went wrong."""
    _, found, rest = words.partition("Traceback (most recent call last):")
    if not found:
        return words
    return next((line for line in rest.splitlines() if line.strip() and not line.startswith((" ", "\t"))), words)


def _is_users(file: str) -> bool:
    return file in _files or _is_below(file, _root)


def _is_below(file: str | None, folder: str | None) -> bool:
    return file is not None and folder is not None and file.startswith(f"{folder.rstrip('/')}/")


def _is_in_root(module: str) -> bool:
    path = module.replace(".", "/")
    return _root is not None and any(
        name in read_sources(Path(_root)) for name in (f"{path}.py", f"{path}/__init__.py")
    )
