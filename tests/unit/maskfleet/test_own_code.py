"""The text of a user's own code, before anything is imported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from maskfleet.config import TrainConfig
from maskfleet.data_setting import check_kind
from maskfleet.errors import BadSettings
from maskfleet.own_code import check_functions, fingerprint, pack, read_sources
from maskfleet.places_here import check_places
from maskfleet.settings import Layer


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text("import keras\nfrom math import sin as build2\nWIDE = 3\ndef build(): pass\n")
    (tmp_path / "broken.py").write_text("x = 1\ndef build(:\n")
    (tmp_path / "open.py").write_text("from net import *\n")
    (tmp_path / "late.py").write_text("try:\n    import fast\nexcept ImportError:\n    def build(): pass\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("class Head: pass\n")
    (tmp_path / "package" / "loss.py").write_text("loss = lambda masks, logits: 0\n")
    return tmp_path


def test_python_files_alone_count_and_no_hidden_or_installed_ones(code: Path) -> None:
    for name in (".git/hook.py", "venv/lib/module.py", "__pycache__/net.py", "notes.txt", "pictures/a.png"):
        file = code / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    (code / "venv" / "pyvenv.cfg").touch()
    sources = read_sources(code)
    assert [*sources] == ["broken.py", "late.py", "net.py", "open.py", "package/__init__.py", "package/loss.py"]
    first = fingerprint(sources)
    (code / "net.py").touch()
    assert fingerprint(read_sources(code)) == first
    (code / "net.py").write_text("def build(): return 1\n")
    assert fingerprint(read_sources(code)) != first


def test_an_archive_is_the_same_code_and_the_same_bytes(code: Path, tmp_path: Path) -> None:
    sources = read_sources(code)
    (tmp_path / "code.zip").write_bytes(pack(sources))
    assert read_sources(tmp_path / "code.zip") == sources
    assert pack(read_sources(code)) == pack(sources)


@pytest.mark.parametrize("name", ["net:build", "net:build2", "net:WIDE", "open:any", "late:build", "package:Head",
                                  "package.loss:loss"])  # fmt: skip
def test_what_a_file_defines_is_found(name: str, code: Path) -> None:
    check_functions([("--model", name)], read_sources(code), code)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nett:build", "--model nett:build: expected nett.py in --code {}, found broken.py, late.py, net.py"),
        ("package.net:build", "expected package/net.py in --code {}"),
        ("net:bild", "--model net:bild: {}/net.py: expected a function bild, found keras, build2, WIDE, build"),
        ("broken:build", "--model broken:build: {}/broken.py:2: "),
    ],
)
def test_what_is_not_there_is_told_in_one_line(name: str, message: str, code: Path) -> None:
    with pytest.raises(BadSettings, match=re.escape(message.format(code))):
        check_functions([("--model", name)], read_sources(code), code)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "expected a folder of Python files, found nothing"),
        (lambda path: path.mkdir(), "expected a folder of Python files, found no Python file in it"),
        (lambda path: path.write_text("x"), "expected a folder of Python files, found File is not a zip file"),
    ],
)
def test_a_folder_without_code_is_refused(make, message: str, tmp_path: Path) -> None:
    make(tmp_path / "code")
    with pytest.raises(BadSettings, match=f"--code {tmp_path}/code: {message}"):
        read_sources(tmp_path / "code")


def test_every_setting_that_names_own_code_is_looked_at(code: Path) -> None:
    config = TrainConfig(
        model="net:build", loss="dice+net:build+package.loss:loss", data="python:net:build",
        augmentation="net:build", tracker="package:Head", code=code,
    )  # fmt: skip
    assert len(config.own_functions) == 6
    check_places(config)
    with pytest.raises(BadSettings, match="--tracker package:Tail"):
        check_places(config.model_copy(update={"tracker": "package:Tail"}))
    assert TrainConfig().own_functions == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", "unnet", "--model: input should be 'unet'"),
        ("loss", "dice+net", "--loss: expected cross_entropy, focal, dice, jaccard, lovasz or MODULE:FUNCTION"),
        ("augmentation", "noise.py", "--augmentation: "),
        ("tracker", "to-file:Tracker", "--tracker: "),
    ],
)
def test_what_is_no_module_and_function_is_refused(key: str, value: str, message: str) -> None:
    with pytest.raises(BadSettings, match=re.escape(message)):
        TrainConfig.resolve([Layer("--{}", {key: value})])


def test_data_of_ones_own_is_named_with_python_before_it() -> None:
    check_kind("python:package.module:function")
    with pytest.raises(BadSettings, match="python:MODULE:FUNCTION or synthetic, found 'python:module'"):
        check_kind("python:module")


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "code.zip"
    content = bytearray(pack({"a.py": b"x = 1\n" * 200}))
    content[35:45] = bytes(10)  # of the packed file
    file.write_bytes(content)
    with pytest.raises(BadSettings, match=r"--code .*code\.zip: expected a folder of Python files, found"):
        read_sources(file)
