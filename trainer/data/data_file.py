"""The data file: what there is to say about a data set, once. Imports no TensorFlow.

Its keys are those of Ultralytics' data sets and some more, so that theirs can be used as they are.
"""

from __future__ import annotations

import difflib
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self

import pydantic
from pydantic import AliasChoices, Field

from maskfleet.errors import BadData
from maskfleet.foreign_files import parse_yaml, read_text
from maskfleet.text import one_line
from trainer.data.categories import BACKGROUND, Wishes
from trainer.data.class_rows import IGNORED_NAME, REST, Row, is_ignored
from trainer.data.class_table import ClassTable
from trainer.data.lists import expanded, shown
from trainer.data.source import IGNORED, Reading

SUFFIXES = frozenset({".yaml", ".yml"})
_OF_OTHERS = frozenset({
    "nc", "download", "channels", "kpt_shape", "flip_idx", "kpt_names", "roboflow", "license", "author", "url",
    "description", "version", "date", "links", "task", "stride", "imgsz", "batch",
})  # fmt: skip
"""Keys that other programs write, about what is of no concern here."""

_TELLING = frozenset({"names", "classes", "train", "images", "masks", "format"})

_Channel = Annotated[int, Field(ge=0, le=255, strict=True)]
_Name = Annotated[str, Field(min_length=1, max_length=200, strict=True)]
_Value = Annotated[int, Field(strict=True, gt=-(1 << 31), lt=1 << 31)]
_Path = Annotated[str, Field(min_length=1, max_length=4096, strict=True)]
_Places = _Path | Annotated[list[_Path], Field(min_length=1)]


class DataFile(pydantic.BaseModel):
    """What a data file says. Paths are relative to ``path``, and that to the file's own folder."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    format: _Name | None = None
    path: _Path = "."
    train: _Places | None = None
    val: _Places | None = Field(default=None, validation_alias=AliasChoices("val", "valid", "validation"))
    test: _Places | None = None
    images: _Places | None = None
    masks: _Path | dict[str, _Path] | None = Field(default=None, validation_alias=AliasChoices("masks", "masks_dir"))
    mask_pattern: _Name | None = None
    mask_threshold: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None
    names: list[_Name] | dict[_Value, _Name] | None = Field(
        default=None, validation_alias=AliasChoices("names", "classes")
    )
    colours: dict[_Name, tuple[_Channel, _Channel, _Channel]] | None = Field(
        default=None, validation_alias=AliasChoices("colours", "colors")
    )
    mapping: dict[_Value | _Name, _Value | _Name | None] | None = Field(
        default=None, validation_alias=AliasChoices("mapping", "label_mapping")
    )
    uncovered: _Name = BACKGROUND

    @classmethod
    def read(cls, file: Path) -> Self:
        """The content of a data file.

        Raises:
            BadData: no YAML, a key that there is not (the nearest is named), a value that can't be.
        """
        content = read_yaml(file)
        if not isinstance(content, dict):
            raise BadData(f"{file}: expected keys and values such as 'path: CATS', found {_shown(content)}")
        known = {key: value for key, value in content.items() if key not in _OF_OTHERS}
        try:
            found = cls.model_validate(known)
        except pydantic.ValidationError as error:
            raise BadData(f"{file}: {_explain(error)}") from error
        found._check(file, content.get("nc"))
        return found

    def reading(self, asked: Reading) -> Reading:
        """How its masks are read; what the settings say comes first."""
        return replace(
            asked,
            mask_pattern=asked.mask_pattern or self.mask_pattern,
            mask_threshold=self.mask_threshold if asked.mask_threshold is None else asked.mask_threshold,
        )

    def root(self, file: Path) -> Path:
        """The folder that paths are relative to.

        Raises:
            BadData: there is no such folder.
        """
        root = file.parent / expanded(self.path, f"{file}: path")
        if not root.is_dir():
            raise BadData(
                f"{file}: path: expected a folder, found nothing at {shown(root)}; it is relative to this file, "
                "and without it the data lies beside this file"
            )
        return root.resolve()

    @property
    def categories(self) -> Mapping[int, str]:
        """Names by number."""
        return dict(enumerate(self.names)) if isinstance(self.names, list) else dict(self.names or {})

    def wishes(self, file: Path, *, by_number: bool = False) -> Wishes:
        """For data that is drawn in shapes; ``by_number``: whose categories are the numbers of ``names``."""
        named = self.categories
        mapping = {
            named.get(category, str(category)) if isinstance(category, int) else category: self._target(target)
            for category, target in (self.mapping or {}).items()
        }
        names = tuple(dict.fromkeys(named.values())) or None
        return Wishes(None if by_number else names, mapping, self.colours, self.uncovered, str(file))

    def table(self, file: Path) -> ClassTable | None:
        """For data with masks; None where nothing is said of classes.

        Raises:
            BadData: ``mapping`` leaves a class without a value.
        """
        if self.names is None:
            if self.mapping or self.colours:
                raise BadData(
                    f"{file}: expected names, the classes that {'mapping' if self.mapping else 'colours'} names"
                )
            return None
        colours = self.colours or {}
        plain = list(self.categories.items()) == list(enumerate(dict.fromkeys(self.categories.values())))
        if self.mapping is None and plain:
            return ClassTable.of([Row(name, None, colours.get(name)) for name in self.categories.values()], file)
        values: dict[int | str, str] = {}
        if isinstance(self.names, dict) and REST not in (self.mapping or {}):
            values.update(self.categories.items())
        values.update({value: self._target(target) for value, target in (self.mapping or {}).items()})
        names = list(dict.fromkeys(self.categories.values()))
        for name in names:
            if name not in values.values() and not is_ignored(name):
                raise BadData(f"{file}: mapping: no value is mapped to the class {name!r}")
        order = {name: i for i, name in enumerate(names)}
        rows = [Row(name, value, colours.get(name)) for value, name in values.items()]
        return ClassTable.of(sorted(rows, key=lambda row: order.get(row.name, len(order))), file)

    def _target(self, target: int | str | None) -> str:
        if target is None or target == IGNORED or (isinstance(target, str) and target.startswith("ignore")):
            return IGNORED_NAME
        return self.categories[target] if isinstance(target, int) else target

    def _check(self, file: Path, count: Any) -> None:
        """Raises BadData where two keys contradict each other."""
        names = list(self.categories.values())
        if isinstance(count, int) and self.names is not None and count != len(names):
            raise BadData(f"{file}: nc: expected {len(names)}, the number of names, found {count}")
        twice = [name for name, times in Counter(names).items() if times > 1]
        if isinstance(self.names, list) and twice and not is_ignored(twice[0]):
            raise BadData(f"{file}: names: {twice[0]} stands twice; give each class a name of its own")
        for name in self.colours or {}:
            if self.names is not None and name not in names and not is_ignored(name):
                raise BadData(f"{file}: colours: there is no class {name!r} in names{_near(name, names)}")
        for key, target in (self.mapping or {}).items():
            if isinstance(target, int) and target != IGNORED and target not in self.categories:
                raise BadData(f"{file}: mapping: {key}: there is no class {target} in names")
            if (
                isinstance(target, str)
                and names
                and target not in (*names, BACKGROUND)
                and not target.startswith("ignore")
            ):
                raise BadData(f"{file}: mapping: {key}: there is no class {target!r} in names{_near(target, names)}")


def is_data_file(file: Path) -> bool:
    """Whether a file beside the data says what that is, and is not about something else."""
    if file.suffix.lower() not in SUFFIXES or file.name.startswith(".") or not file.is_file():
        return False
    try:
        content = read_yaml(file)
    except BadData:
        return file.stem.lower() == "data"
    return file.stem.lower() == "data" or (isinstance(content, dict) and bool(content.keys() & _TELLING))


def read_yaml(file: Path) -> Any:
    """The content of a small YAML file.

    Raises:
        BadData: it is missing, large, or no YAML, or has a key twice; with the line.
    """
    try:
        return parse_yaml(read_text(file))
    except ValueError as error:
        raise BadData(f"{file}: {error}") from error


def _explain(error: pydantic.ValidationError) -> str:
    """The first problem, in one line."""
    problem = error.errors(include_url=False)[0]
    key = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        return f"{key}: there is no such key{_near(key, DataFile.model_fields)}"
    expected = _EXPECTED.get(key, "text")
    values: Any = problem["input"]
    return f"{key}: expected {expected}, found {_shown(values)}"


_EXPECTED = {
    "train": "a folder, a list of pictures (.txt), a JSON file, or several",
    "val": "a folder, a list of pictures (.txt), a JSON file, or several",
    "test": "a folder, a list of pictures (.txt), a JSON file, or several",
    "images": "a folder of pictures",
    "masks": "a folder of masks, or one for each split",
    "mask_threshold": "a number from 0 on, such as 127",
    "names": "names of classes as texts, a list or by their value (quote yes, no and numbers)",
    "classes": "names of classes as texts, a list or by their value (quote yes, no and numbers)",
    "colours": "red, green and blue from 0 to 255 for each class, such as 'road: [128, 64, 128]'",
    "colors": "red, green and blue from 0 to 255 for each class, such as 'road: [128, 64, 128]'",
    "mapping": "a class, or 'ignored', for each value or category, such as '7: road'",
    "label_mapping": "a class, or 'ignored', for each value or category, such as '7: road'",
}


def _near(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else f" (there are {', '.join(list(known)[:12])})"


def _shown(value: Any) -> str:
    return "nothing" if value is None else one_line(reprlib.repr(value))[:80]
