"""Small foreign files: bounded in time and memory, and refused in one line."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.foreign_files import DEEPEST, LARGEST_FILE, parse_json, parse_yaml
from maskfleet.settings import read_settings_file

LETTERS = "abcdefghij"
NINE = range(9)


def doubled(first: str, of_one: str) -> str:
    """Each key stands for nine of the one before."""
    lines = [f"a: &a {first}"]
    lines += [
        f"{LETTERS[i + 1]}: &{LETTERS[i + 1]} {of_one.replace('@', ','.join([f'*{LETTERS[i]}'] * 9))}" for i in NINE
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("bomb.yaml", doubled("[x,x,x]", "[@]"), "line 5: expected at most 20000 values"),
    ("merged.yaml", doubled("{epochs: 1}", "{<<: [@]}"), "line 5: expected at most 20000 values"),
    ("itself.yaml", "epochs: &a [*a]", r"line 1: \*a stands for what it is itself a part of"),
    ("brackets.yaml", "epochs: " + "[" * 100_000, "nesting"),
    ("dashes.yaml", "- " * 5000, "at most 32 levels of nesting"),
    ("brackets.json", '{"epochs":' + "[" * 100_000 + "]" * 100_000 + "}", "at most 32 levels of nesting"),
    ("forty.json", '{"epochs":' + "[" * 40 + "]" * 40 + "}", "at most 32 levels of nesting"),
    ("many.yaml", "".join(f"k{i}: 1\n" for i in range(80_000)), "at most 20000 values"),
    ("large.yaml", "#" * (LARGEST_FILE + 1), "at most 1.0 MiB"),
    ("digits.json", '{"epochs":' + "9" * 5000 + "}", "4300 digits.*has 5000 digits$"),
    ("digits.yaml", "epochs: " + "9" * 5000, "4300 digits.*has 5000 digits$"),
    ("infinite.json", '{"epochs": 1e999}', "epochs: expected a finite number, found inf"),
    ("infinite.yaml", "learning_rate: .inf", "learning_rate: expected a finite number, found inf"),
    ("nan.json", '{"weight_decay": NaN}', "weight_decay: expected a finite number, found nan"),
    ("count.yaml", "epochs: 99999999999999999999", "epochs: .*less than or equal to 2147483647"),
    ("warm_up.yaml", "warmup_epochs: 1.0e+308", "warmup_epochs: .*less than or equal to"),
    ("true.yaml", "epochs: true", "epochs: expected a number or text; .*, found True"),
    ("on.yaml", "learning_rate: on", "learning_rate: expected a number or text; .*, found True"),
    ("no.yaml", "data: no", "data: expected a number or text; .*: quote text, found False"),
    ("twice.yaml", "epochs: 3\nseed: 1\nepochs: 4", "line 3: the key epochs stands on line 1 too; keep one"),
    ("twice_in_line.yaml", "{epochs: 3, 'epochs': 4}", "line 1: the key epochs stands on line 1 too"),
    ("twice_below.yaml", "settings:\n epochs: 3\n epochs: 4", "line 3: the key epochs stands on line 2 too"),
    ("twice.json", '{"settings": {"epochs": 3, "epochs": 4}}', "the key epochs stands there twice"),
    ("tab.yaml", "settings:\n\tepochs: 3", "line 2, column 1: .*; indent with spaces instead of tabs"),
    ("utf16.yaml", "epochs: 3".encode("utf-16"), "expected text in UTF-8, found UTF-16 or UTF-32"),
    ("utf16_plain.yaml", "epochs: 3".encode("utf-16-le"), "expected text in UTF-8, found UTF-16 or UTF-32"),
    ("utf32.json", "{}".encode("utf-32"), "expected text in UTF-8, found UTF-16 or UTF-32"),
    ("latin1.yaml", "a: 1\ndata: blüte".encode("latin-1"), "line 2: expected text in UTF-8, found the byte 0xfc"),
    ("nul.yaml", "epochs: 3\0", "found a NUL byte at position 9"),
    ("nul_in_path.yaml", 'data: "folder:/x\\0y"', "data: expected text without a NUL character"),
    ("surrogate.json", '{"data": "folder:\\ud800"}', "data: expected text in UTF-8"),
    ("date.yaml", "data: 2026-99-99", "month must be in 1..12"),
    ("tag_bool.yaml", "data: !!bool maybe", "expected plain values"),
    ("tag_time.yaml", "data: !!timestamp maybe", "expected plain values"),
    ("tag_python.yaml", "data: !!python/object/apply:os.system [id]", "could not determine a constructor"),
    ("documents.yaml", "epochs: 3\n---\nepochs: 4", "line 2: expected one document, found a second one"),
    ("undefined.yaml", "epochs: *x", "undefined alias"),
    ("list_as_key.yaml", "? [a]\n: b", "unhashable key"),
    ("text.yaml", "epochs: " + "x" * 200_000, "epochs: .*, found 'xxxx.* … x*'$"),
    ("key.json", '{"' + "x" * 200_000 + '": 1}', "there is no such setting"),
])  # fmt: skip
def test_a_file_that_is_none_of_settings_is_refused_in_one_line_at_once(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.monotonic()
    with pytest.raises(BadSettings, match=message) as caught:
        TrainConfig.resolve([read_settings_file(path)])
    assert time.monotonic() - began < 3
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 600


@pytest.mark.parametrize(("kind", "message"), [
    ("folder", "expected a file, found a folder"),
    ("pipe", "expected a file, found a pipe or device"),
    ("device", "expected a file, found a pipe or device"),
    ("loop", "can't be read: Too many levels"),
    ("hole", "expected at most 1.0 MiB, found 1.0 GiB"),
    ("nothing", "can't be read: there is no such file"),
    ("long", "can't be read: File name too long"),
])  # fmt: skip
def test_what_is_no_small_file_is_refused_without_reading_it(tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / ("x" * 300 if kind == "long" else "a.yaml")
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
        case "hole":
            with path.open("wb") as file:
                file.truncate(1 << 30)
    with pytest.raises(BadSettings, match=message):
        read_settings_file(path)


@pytest.mark.parametrize("content", [
    b"\xef\xbb\xbfepochs: 3", b"epochs: &n 3\nseed: *n", b"---\nepochs: 3\n...\n", b"epochs:\t3", b"epochs: 3\r\n",
])  # fmt: skip
def test_what_editors_and_people_write_is_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    assert TrainConfig.resolve([read_settings_file(path)]).epochs == 3


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_within_the_bounds_is_what_the_libraries_read(value: object) -> None:
    assert parse_json(json.dumps(value)) == value
    text = yaml.safe_dump(value)
    assert parse_yaml(text) == yaml.safe_load(text)


@given(st.text())
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    for parse in (parse_yaml, parse_json):
        with contextlib.suppress(ValueError):
            parse(text)


def test_the_deepest_that_is_allowed_is_read() -> None:
    nested = "[" * DEEPEST + "]" * DEEPEST
    assert parse_yaml(nested) == parse_json(nested)
