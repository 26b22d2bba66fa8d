"""A user's own functions, named ``MODULE:FUNCTION``, and the folder of Python files that they lie in.

Nothing is imported here: what is looked at is the text, so that a mistake is told before anything is sent or begun.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from maskfleet.errors import BadSettings
from maskfleet.text import format_bytes, some_of

OWN = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
"""``MODULE:FUNCTION``, or ``PACKAGE.MODULE:FUNCTION``."""
MOST_BYTES = 64 << 20
"""Of the Python files in a folder: one that has more is not meant."""
_NOT_CODE = ("__pycache__", "node_modules", "site-packages")
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every file in an archive, so that the same sources are the same bytes."""

Sources = Mapping[str, bytes]
"""Python files by their paths below a folder, with ``/``, in order."""


def is_own(value: str) -> bool:
    """Whether a setting names a function of the user's."""
    return re.fullmatch(OWN, value) is not None


def read_sources(code: Path) -> Sources:
    """All Python files below a folder, or in an archive that :func:`pack` has made.

    Hidden folders, virtual environments and caches are passed over.

    Raises:
        BadSettings: there are none, or more than is code.
    """
    try:
        found = dict(sorted(_of_archive(code) if code.is_file() else _of_folder(code)))
    except (OSError, zipfile.BadZipFile, RuntimeError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadSettings(f"--code {code}: expected a folder of Python files, found {reason}") from error
    if not found:
        what = "no Python file in it" if code.exists() else "nothing"
        raise BadSettings(f"--code {code}: expected a folder of Python files, found {what}")
    return found


def _of_archive(file: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".py")]
        _check_size(file, sum(member.file_size for member in members))
        yield from ((member.filename, archive.read(member)) for member in members)


def _of_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    size = 0
    for here, folders, files in os.walk(folder):
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        folders[:] = [name for name in folders if name not in _NOT_CODE and not name.startswith(".")]
        for name in files:
            if name.endswith(".py") and not name.startswith("."):
                path = Path(here, name)
                content = path.read_bytes()
                _check_size(folder, size := size + len(content))
                yield path.relative_to(folder).as_posix(), content


def _check_size(code: Path, size: int) -> None:
    if size > MOST_BYTES:
        raise BadSettings(
            f"--code {code}: more than {format_bytes(MOST_BYTES)} of Python files: expected a folder with your own "
            "alone"
        )


def fingerprint(sources: Sources) -> str:
    """A hash of names and contents: other code has another one."""
    digest = hashlib.sha256()
    for name, content in sources.items():
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def pack(sources: Sources) -> bytes:
    """An archive that Python imports from, the same bytes for the same sources."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sources.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def check_functions(functions: Sequence[tuple[str, str]], sources: Sources, code: Path) -> None:
    """Whether each of ``functions`` (the setting, and ``MODULE:FUNCTION``) is defined in the files of ``code``.

    Raises:
        BadSettings: there is no such module or function, or a file is no Python; with file and line.
    """
    for setting, name in functions:
        module, _, function = name.partition(":")
        path = module.replace(".", "/")
        file = next((each for each in (f"{path}.py", f"{path}/__init__.py") if each in sources), None)
        if file is None:
            raise BadSettings(f"{setting} {name}: expected {path}.py in --code {code}, found {some_of(list(sources))}")
        try:
            tree = ast.parse(sources[file])
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            raise BadSettings(f"{setting} {name}: {code}/{file}:{line}: {getattr(error, 'msg', error)}") from error
        defined = list(_defined(tree.body))
        if function not in defined and "*" not in defined:
            raise BadSettings(
                f"{setting} {name}: {code}/{file}: expected a function {function}, found {some_of(defined) or 'none'}"
            )


def check_modules(functions: Sequence[tuple[str, str]]) -> None:
    """Whether each of ``functions`` lies in a module that Python finds: installed, or in the current folder.

    Only the first part of a module's name is looked for, as the rest would import it.

    Raises:
        BadSettings: there is no such module.
    """
    for setting, name in functions:
        top = name.partition(":")[0].partition(".")[0]
        here = top in sys.modules or importlib.util.find_spec(top) or PathFinder.find_spec(top, [str(Path.cwd())])
        if not here:
            raise BadSettings(
                f"{setting} {name}: there is no module {top}; --code DIR names the folder that it lies in"
            )


def _defined(statements: list[ast.stmt]) -> Iterator[str]:
    """The names that the statements of a module define."""
    for each in statements:
        match each:
            case ast.FunctionDef() | ast.ClassDef() | ast.AsyncFunctionDef():
                yield each.name
            case ast.Assign() | ast.AnnAssign():
                for target in each.targets if isinstance(each, ast.Assign) else [each.target]:
                    yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))
            case ast.Import() | ast.ImportFrom():
                yield from (alias.asname or alias.name.partition(".")[0] for alias in each.names)
            case ast.If() | ast.Try() | ast.With():
                yield from _defined(
                    [node for node in ast.walk(each) if isinstance(node, ast.stmt) and node is not each]
                )
