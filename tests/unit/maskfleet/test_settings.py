"""Settings: flags over files over presets over defaults, and one clear line for every mistake."""

import json

import pytest

from maskfleet.config import PLANNED, TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.settings import Layer, flag_layer


def resolve(*arguments, files=()):
    return TrainConfig.from_sources(list(files), TrainConfig.parse_flags(arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epoch", "3"], "--epoch: there is no such setting; did you mean --epochs?"),
        (["--zebra", "3"], "--zebra: there is no such setting; 'trainer train --help' lists them"),
        (["--epochs", "many"], "--epochs: input should be a valid integer, unable to parse .*, found 'many'"),
        (["--checkpoint-seconds", "0"], "--checkpoint-seconds: .* equal to 1, or 'auto', found '0'"),
        (["--epochs", "0"], "--epochs: input should be greater than or equal to 1, found '0'"),
        (["--learning-rate", "-1"], "--learning-rate: input should be greater than 0, found '-1'"),
        (["--model", "vnet"], "--model: input should be 'unet'.*, found 'vnet'"),
        (["--lr", "1"], "--lr: there is no such setting; did you mean --learning-rate?"),
        (["--batch-size", "1"], "--batch-size: there is no such setting; did you mean --batch-per-replica?"),
        (["--resume", "x"], "--resume: there is no such setting; 'trainer train --help' lists them"),
        (["--learning-rate", "inf"], "--learning-rate: expected a finite number, found 'inf'"),
        (["--dropout", "0.5"], "unexpected extra argument .*; --dropout takes no value, and --no-dropout is its contr"),
        (["epochs=3"], "unexpected extra argument .*; settings are written as --epochs 20"),
        (["--batch-per-replica"], "'--batch-per-replica' requires an argument"),
        (
            ["--data", "packed:x", "--balance"],
            "--balance: needs to know which pictures have which class, and packed data",
        ),
        (
            ["--data", "packed:x", "--fit", "crop"],
            "--fit crop: parts are cut out of pictures that are here, and packed",
        ),
        (["stray"], "unexpected extra argument .*stray"),
    ],
)
def test_a_wrong_flag_gets_one_line(arguments, message):
    with pytest.raises(BadSettings, match=message) as caught:
        resolve(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", "epocs: 3", "a.yaml: epocs: there is no such setting; did you mean epochs?"),
        ("a.yaml", "epochs: many", "a.yaml: epochs: input should be a valid integer"),
        ("a.yaml", "- 1", "expected keys and values such as 'epochs: 20', found a list"),
        (
            "a.json",
            '{"settings": [1]}',
            "a.json: settings: expected keys and values such as 'epochs: 20', found a list",
        ),
        ("a.yaml", "settings: off", "a.yaml: settings: expected keys and values .*, found true or false"),
        ("a.yaml", "a: [", "expected YAML or JSON"),
        ("a.json", "{", "expected YAML or JSON"),
        ("missing.yaml", None, "missing.yaml: can't be read"),
    ],
)
def test_a_wrong_file_gets_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadSettings, match=message) as caught:
        resolve(files=[path])
    assert "\n" not in str(caught.value)


def test_flags_win_over_the_file(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("epochs: 7\nseed: 5\n")
    config = resolve("--epochs", "9", files=[path])
    assert (config.epochs, config.seed) == (9, 5)


def test_a_preset_is_overridden_by_explicit_settings():
    config = resolve("--preset", "tutorial", "--epochs", "3")
    assert (config.batch_per_replica, config.optimizer, config.epochs) == (64, "adam", 3)


@pytest.mark.parametrize("data", ["synthetic", "folder:/pets"])
@pytest.mark.parametrize(
    ("before", "after"), [("default", "tutorial"), ("tutorial", "default"), ("default", "auto"), ("auto", "tutorial")]
)
def test_a_preset_named_by_a_flag_is_all_of_it_over_a_run_s_config(tmp_path, data, before, after):
    path = tmp_path / "config.json"
    settings = TrainConfig(preset=before, data=data, global_batch=4).model_dump(mode="json")
    path.write_text(json.dumps({"settings": settings}))
    assert resolve("--preset", after, files=[path]) == TrainConfig(preset=after, data=data)


@pytest.mark.parametrize("data", ["synthetic", "folder:/pets"])
def test_what_an_automatic_preset_is_still_to_choose_is_in_no_file(tmp_path, data):
    config = resolve("--preset", "auto", "--epochs", "3", "--data", data)
    assert config.unplanned == tuple(
        name for name in PLANNED if name != "epochs" and not (data == "synthetic" and name == "unfreeze_from")
    )
    path = tmp_path / "config.json"
    settings = config.model_dump(mode="json")
    assert settings.keys() == TrainConfig.model_fields.keys() - set(config.unplanned)
    path.write_text(json.dumps({"settings": settings}))
    assert resolve(files=[path]).unplanned == config.unplanned


def test_what_an_automatic_preset_has_chosen_is_repeated_by_the_run_s_config(tmp_path):
    chosen = {"fit": "crop", "balance": True, "zoom": 0.0, "epochs": 30}
    settings = {**TrainConfig(data="folder:/pets").model_dump(mode="json"), **chosen, "preset": "auto"}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"settings": settings}))
    config = resolve(files=[path])
    assert config.unplanned == ()
    assert {name: getattr(config, name) for name in chosen} == chosen
    assert resolve("--preset", "auto", files=[path]).unplanned == PLANNED
    assert resolve("--preset", "default", files=[path]).fit == "squash"


@pytest.mark.parametrize(
    ("flags", "batch", "rate"),
    [
        ([], 8, 2e-3),
        (["--preset=tutorial"], 64, 1e-3),
        (["--batch-per-replica=16"], 16, 1e-3),
        (["--batch-per-replica=16", "--global-batch=32"], 32, 2e-3),
        (["--preset=tutorial", "--global-batch=32"], 32, 5e-4),
    ],
)
def test_a_batch_named_by_a_flag_wins_over_the_one_that_a_run_s_config_has_resolved(tmp_path, flags, batch, rate):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"settings": TrainConfig(global_batch=8).model_dump(mode="json")}))
    config = resolve(*flags, files=[path])
    assert config.effective_global_batch(1) == batch
    assert config.scaled_learning_rate(batch) == pytest.approx(rate)


def test_a_run_s_config_repeats_the_run(tmp_path):
    config = resolve("--preset", "tutorial", "--epochs", "3", "--data-dir", "/x")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"settings": config.model_dump(mode="json"), "versions": {}}))
    assert resolve(files=[path]) == config


@pytest.mark.parametrize(
    ("setting", "given", "expected"),
    [
        ("data", "folder:pets", "folder:{here}/pets"),
        ("data", "voc:./VOC2012", "voc:{here}/VOC2012"),
        ("data", "folder:~/pets", "folder:{home}/pets"),
        ("data", "folder:/x/../pets", "folder:/x/../pets"),
        ("data", "oxford_iiit_pet:3.*", "oxford_iiit_pet:3.*"),
        ("data", "synthetic", "synthetic"),
        ("data_dir", "tfds", "{here}/tfds"),
        ("data_dir", "~/tfds", "{home}/tfds"),
        ("encoder_weights", "w.h5", "{here}/w.h5"),
        ("encoder_weights", "~/w.h5", "{home}/w.h5"),
        ("encoder_weights", "none", "none"),
        ("encoder_weights", "imagenet", "imagenet"),
    ],
)
@pytest.mark.parametrize("from_file", [False, True])
def test_paths_are_absolute_so_that_they_mean_the_same_from_any_directory(
    setting, given, expected, from_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    file = tmp_path / "settings.yaml"
    file.write_text(f"{setting}: {given!r}")
    config = resolve(files=[file]) if from_file else resolve(f"--{setting.replace('_', '-')}={given}")
    written = config.model_dump(mode="json")[setting]
    assert written == expected.format(here=tmp_path, home="/home/somebody")


@pytest.mark.parametrize("setting", ["--data=folder:", "--data=voc:", "--data-dir=", "--encoder-weights="])
def test_a_home_that_is_not_there_gets_one_line(setting):
    with pytest.raises(BadSettings) as caught:
        resolve(f"{setting}~nosuch/x")
    flag = setting.replace("=", " ")
    assert str(caught.value) == f"{flag}~nosuch/x: there is no home of ~nosuch; name the place in full"


def test_every_setting_is_a_documented_flag():
    flags = {option.name: option for option in TrainConfig.flags()}
    assert set(flags) == set(TrainConfig.model_fields)
    assert all(option.help for option in flags.values())


def test_flags_that_were_not_given_do_not_override():
    assert flag_layer({"epochs": None, "seed": "3"}) == Layer("--{}", {"seed": "3"})


@pytest.mark.parametrize(("scaling", "expected"), [("linear", 0.004), ("sqrt", 0.001 * 2), ("none", 0.001)])
def test_the_learning_rate_grows_with_the_global_batch(scaling, expected):
    config = TrainConfig(learning_rate=0.001, batch_per_replica=8, learning_rate_scaling=scaling)
    assert config.scaled_learning_rate(32) == pytest.approx(expected)


def test_the_global_batch_is_the_product_unless_it_is_fixed():
    assert TrainConfig(batch_per_replica=8).effective_global_batch(4) == 32
    assert TrainConfig(batch_per_replica=8, global_batch=20).effective_global_batch(4) == 20
    with pytest.raises(BadSettings, match="--global-batch 3: expected at least one example for each of 4"):
        TrainConfig(global_batch=3).effective_global_batch(4)
