"""A user's own functions: what they may be, and what is said of one that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maskfleet.config import TrainConfig
from maskfleet.errors import BadData, BadInput, BadSettings
from maskfleet.own_code import pack, read_sources
from trainer.data.augmentation import Augmentation
from trainer.data.opening import open_source
from trainer.models.network import build_network
from trainer.objective.own import OwnTerm
from trainer.own_code import load, use_code
from trainer.training.own_checks import check_own_network
from trainer.training.tracker import Tracking

IMAGES = np.zeros((2, 32, 32, 3), np.uint8)
MASKS = np.stack([np.eye(32, dtype=np.uint8), np.zeros((32, 32), np.uint8)])
Write = Callable[[str], Path]
IMPORTS = "import numpy as np, tensorflow as tf, keras\nfrom keras import layers\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Makes the code of a file ``own.py``, whose third line is the first of the text."""

    def write(text: str) -> Path:
        (tmp_path / "own.py").write_text(
            f"import numpy as np, tensorflow as tf, keras; from keras import layers\n\n{text}"
        )
        use_code(tmp_path)
        return tmp_path / "own.py"

    return write


def network(text: str, **settings: object) -> Callable[[], object]:
    def build() -> None:
        config = TrainConfig(model="own:net", encoder_weights="none", image_size=32, **settings)
        check_own_network(config, build_network(config, 3), 3)

    return build


HEAD = "    return layers.Conv2D(classes, 1)(pixels)\n"
NETWORKS = {
    "def net(pixels, classes, config):\n    return layers.Conv2D(classes, 3)(pixels)\n": (
        "{}:3: expected logits float32 [b, 32, 32, 3], found [b, 30, 30, 3]"
    ),
    "def net(pixels, classes, config):\n    return layers.Conv2D(2, 1)(pixels)\n": "found [b, 32, 32, 2]",
    "def net(pixels, classes, config):\n    return 3\n": "{}:3: expected logits float32 [b, 32, 32, 3], found int",
    "def net(pixels, classes, config):\n    return layers.Conv2D(classes, 1, dtype='float16')(pixels)\n": (
        'found float16; give the last layer dtype="float32"'
    ),
    "def net(pixels, classes):\n    return 3\n": (
        "{}:3: expected the parameters (pixels, classes, config) or (features, classes, config), found pixels, classes"
    ),
    "def net(pixels, classes, config):\n    x = pixels\n    return layers.Conv2D(classes, 'wide')(x)\n": (
        "{}:5: ValueError"
    ),
    "def net(pixels, classes, config):\n    return 1 / 0\n": "{}:4: ZeroDivisionError: division by zero",
    "raise SystemExit('no')\n": "{}:3: SystemExit: no",
    "import nothing_of_that_name\n": "{}:3: ModuleNotFoundError: No module named 'nothing_of_that_name'",
    "net = 3\n": "{}: expected a function net, found none",
    "def net(pixels, classes, config):\n    from numpy.random import normal\n"
    "    k = keras.initializers.Constant(normal())\n"
    "    return layers.Conv2D(classes, 1, kernel_initializer=k)(pixels)\n": (
        "expected the same layers and initial weights for the same seed, found other ones of conv2d/kernel"
    ),
}
LOSSES = {
    "def loss(masks, logits): return tf.reduce_mean(logits)\n": (
        "{}:3: expected the loss of each example, float32 [b], found ()"
    ),
    "def loss(masks, logits): return [0.0, 0.0]\n": "found list",
    "def loss(masks, logits): return tf.cast(tf.reduce_mean(logits, [1, 2, 3]), tf.float64)\n": "found float64",
    "def loss(masks, logits): return tf.reduce_mean(logits, [1, 2, 3]) / 0\n": (
        "expected a finite loss, found one that is not"
    ),
    "def loss(masks, logits): return tf.zeros(tf.shape(logits)[0])\n": "expected a gradient, found none",
    "def loss(masks, logits): return tf.reduce_mean(logits, [1, 2, 3]) + tf.reduce_mean(logits)\n": (
        "expected an example's loss to be about its own pixels, found that it depends on others in its batch"
    ),
    "def loss(masks, logits): return tf.reduce_mean(logits, [1, 2, 3]) * tf.random.uniform([])\n": (
        "expected the same loss of the same examples, found another: draw nothing at random"
    ),
    "def loss(masks, logits):\n    counts = tf.cast(masks != 255, tf.float32)\n"
    "    return tf.reduce_sum(logits[..., 0] * counts, [1, 2]) / tf.reduce_sum(counts, [1, 2])\n": (
        "expected a finite loss where no pixel counts (255), found one that is not"
    ),
    "def loss(masks, logits):\n    return tf.one_hot(masks, 2) * logits\n": "{}:4: InvalidArgumentError: ",
}
CHANGES = {
    "def change(image, mask, seed): return image\n": (
        "{}:3: expected an image uint8 (32, 32, 3) and a mask uint8 (32, 32), found EagerTensor"
    ),
    "def change(image, mask, seed): return image[:16], mask\n": "found uint8 (16, 32, 3) and uint8 (32, 32)",
    "def change(image, mask, seed): return image / 2, mask\n": "found float",
    "def change(image, mask, seed): return image, mask + 4\n": "expected labels below 3, or 255, found 4",
    "def change(image, mask, seed):\n    return tf.cast(tf.random.uniform((32, 32, 3)) * 255, tf.uint8), mask\n": (
        "expected the same result for the same seed, found another: use tf.random.stateless_…"
    ),
    "def change(image, mask, seed):\n    def blur(x):\n        return x.no_such_method()\n"
    "    return tf.ensure_shape(tf.numpy_function(blur, [image], tf.uint8), image.shape), mask\n": (
        "{}:5: AttributeError: 'numpy.ndarray' object has no attribute 'no_such_method'"
    ),
}
SOURCE = (
    "from trainer.data.source import Example, Source, Split, palette\n"
    "image, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)\n"
    "def source(read=lambda i: (image, mask), names=('a', 'b'), **changes):\n"
    "    split = Split(names, read)\n"
    "    return Source(**{'name': 'own', 'classes': ('x', 'y'), 'colours': palette(2), 'background': None,\n"
    "                     'train': split, 'test': split, 'key': '', **changes})\n"
)
DATA = {
    "def data(data_dir): return None\n": "{}:9: expected a trainer.data.source.Source, found NoneType",
    "def data(data_dir): return source(classes=['x', 'y'])\n": "classes: expected a tuple of names, found ['x', 'y']",
    "def data(data_dir): return source(classes=('x', 'x'))\n": "classes: expected 2 to 255 different names",
    "def data(data_dir): return source(colours=palette(3))\n": "colours: expected uint8 (2, 3), as palette(2) gives it",
    "def data(data_dir): return source(background=2)\n": "background: expected a class below 2 or None, found 2",
    "def data(data_dir): return source(name='../x')\n": (
        "name: expected letters, digits, '.', '_' and '-', found '../x'"
    ),
    "def data(data_dir): return source(name=3)\n": "name: expected letters, digits, '.', '_' and '-', found '3'",
    "def data(data_dir): return source(classes=('x', ' '))\n": (
        "--data python:own:data: classes: expected a name of each class, found an empty one"
    ),
    "def data(data_dir): return source(classes=('x', 'y\\n'))\n": "classes: expected a name of a class in plain text",
    "def data(data_dir): return source(names=('a', 'a'))\n": "train: names: expected each once, found 1 again",
    "def data(data_dir): return source(names=())\n": (
        "expected examples for training, and some for testing or validation"
    ),
    "def data(data_dir): return source(lambda i: (image, mask + 2))\n": (
        "--data python:own:data: a: {}:9: expected labels below 2, or 255 where a pixel does not count, found 2"
    ),
    "def data(data_dir): return source(lambda i: (image / 2, mask))\n": (
        "expected the image as an array uint8 [H, W, 3], found float64 [8, 8, 3]"
    ),
    "def data(data_dir): return source(lambda i: (image, mask[:4]))\n": (
        "expected image and mask of one size, found [8, 8] and [4, 8]"
    ),
    "def data(data_dir): return source(lambda i: (image, 3))\n": (
        "expected the mask as an array uint8 [H, W], found int"
    ),
    "def data(data_dir): return source(lambda i: image)\n": "--data python:own:data: a: ",
    "def data(data_dir):\n    def read(i):\n        return open('/nowhere')\n    return source(read)\n": (
        "a: {}:11: FileNotFoundError: [Errno 2] No such file or directory: '/nowhere'"
    ),
    "def data(data_dir): return source(lambda i: (np.random.randint(0, 255, (8, 8, 3), np.uint8), mask))\n": (
        "train: a: expected the same each time it is read, found another image or mask"
    ),
}
TRACKERS = {
    "class Track:\n    def start(self, run, settings): pass\n    def end(self, state): pass\n": (
        "expected an object with start, scores and end, found no scores"
    ),
    "def Track(run): pass\n": "TypeError: Track() missing 1 required positional argument",
    "class Track:\n    def start(self, run, settings): raise OSError('no server')\n    scores = end = start\n": (
        "--tracker own:Track: {}:4: OSError: no server"
    ),
}


def tried(text: str, path: Path) -> object:
    """Tries what the text defines, as training does at its start."""
    if "def net" in text or "net = 3" in text or text.startswith(("raise", "import")):
        return network(text)()
    if "def loss" in text:
        return OwnTerm("own:loss").check(MASKS, 3)
    if "def change" in text:
        change = Augmentation.of(TrainConfig(augmentation="own:change")).own
        assert change is not None
        return change.check(IMAGES, MASKS, 3)
    if "def data" in text:
        return open_source("python:own:data", None)
    return Tracking("own:Track", path, {})


FAULTS = {**NETWORKS, **LOSSES, **CHANGES, **{SOURCE + text: message for text, message in DATA.items()}, **TRACKERS}


@pytest.mark.parametrize(("text", "message"), FAULTS.items(), ids=range(len(FAULTS)))
def test_a_broken_one_is_told_in_one_line_with_file_and_line(
    text: str, message: str, write: Write, tmp_path: Path
) -> None:
    file = write(text)
    with pytest.raises(BadInput) as error:
        tried(text, tmp_path)
    assert message.format(file) in str(error.value)
    assert "\n" not in str(error.value)
    assert isinstance(error.value, BadData if text.startswith(SOURCE) else BadSettings)


def test_a_decoder_of_ones_own_has_the_encoder_s_features_and_its_names_in_every_process(write: Write) -> None:
    write(
        "def net(features, classes, config):\n"
        "    x = layers.UpSampling2D(16, interpolation='bilinear')(layers.Conv2D(8, 1)(features[3]))\n"
        "    return layers.Conv2D(classes, 1, dtype='float32')(x)\n"
    )
    config = TrainConfig(model="own:net", encoder_weights="none", image_size=40, unfreeze_from="none")
    one, two = build_network(config, 3), build_network(config, 3)
    assert one.model.output_shape == (None, 40, 40, 3)
    assert one.is_frozen
    assert [v.path for v in one.decoder.variables] == [
        "conv2d/kernel",
        "conv2d/bias",
        "conv2d_1/kernel",
        "conv2d_1/bias",
    ]
    assert [v.path for v in two.model.variables] == [v.path for v in one.model.variables]
    for a, b in zip(one.decoder.variables, two.decoder.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    pixels = IMAGES[:, :20, :20].repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(one.fused_decoder(one.fused_encoder(pixels)), one.model(pixels), atol=1e-5)


def test_a_network_of_pixels_has_no_encoder_to_cache_or_to_slow_down(write: Write) -> None:
    write(f"def net(pixels, classes, config):\n{HEAD}")
    network = build_network(TrainConfig(model="own:net", image_size=32), 3)
    assert not network.is_frozen
    assert [variable.path for variable in network.model.variables] == ["conv2d/kernel", "conv2d/bias"]


def test_two_folders_may_have_files_of_the_same_name_and_an_archive_is_one_too(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "same.py").write_text(f"def function(): return {number}\n")
    archive = tmp_path / "code.zip"
    archive.write_bytes(pack(read_sources(tmp_path / "1")))
    for place, number in ((tmp_path / "1", 1), (tmp_path / "2", 2), (archive, 1)):
        use_code(place)
        assert load("--model", "same:function")() == number


def test_what_is_installed_under_the_same_name_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "colorsys.py").write_text("def rgb_to_hsv(): pass\n")
    use_code(tmp_path)
    with pytest.raises(BadSettings, match=r"another module colorsys is installed, at .*; rename yours in"):
        load("--loss", "colorsys:rgb_to_hsv")
    with pytest.raises(BadSettings, match="there is no module nowhere_at_all; --code DIR names the folder"):
        load("--loss", "nowhere_at_all:loss")


def test_a_tracker_that_fails_later_is_told_no_more(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("class Track:\n    def start(self, run, settings): pass\n    def scores(self, step, values): values['x']\n"
          "    def end(self, state): raise AssertionError\n")  # fmt: skip
    tracking = Tracking("own:Track", tmp_path, {})
    for step in (1, 2):
        tracking.scores(step, {"miou": 0.5, "dice/x": None})
    tracking.end("done")
    assert (
        capsys.readouterr().out.count(f"warning: --tracker own:Track: {tmp_path}/own.py:5: KeyError: 'x'; the tr") == 1
    )


def test_a_network_of_pixels_sees_all_bands(write: Write) -> None:
    write(f"def net(pixels, classes, config):\n{HEAD}")
    network = build_network(TrainConfig(model="own:net", data="folder:x", bands=4, image_size=32), 3)
    assert network.model.input_shape == (None, 32, 32, 4)
