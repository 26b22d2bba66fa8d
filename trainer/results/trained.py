"""A trained network from wherever it lies: a run, one of its checkpoints, or a Keras file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
from numpy.typing import NDArray

from maskfleet.config import TrainConfig
from maskfleet.errors import BadInput, BadSettings, NotFound
from maskfleet.export_manifest import EXPORT_FILE, ExportManifest
from maskfleet.files import FileDigest
from maskfleet.image_size import Fit, Size
from maskfleet.records import FinalScores, RunRecord
from maskfleet.run_directory import LEGEND, RunDirectory
from maskfleet.settings import read_settings_file
from maskfleet.start_setting import checkpoint_at, existing_network
from maskfleet.text import one_line
from trainer.checkpoints.averaging import load_averages
from trainer.checkpoints.reading import best_checkpoint, load_weights, read_weights
from trainer.models.network import build_network
from trainer.own_code import use_code
from trainer.results.legend import MOST_CLASSES, Legend


@dataclass(frozen=True)
class Trained:
    """A network, what its labels mean, and the settings of its run if it comes from one.

    ``model``: pixels 0..255 [b, H, W, 3] -> logits float32 [b, H, W, classes].
    """

    model: keras.Model
    legend: Legend
    config: TrainConfig | None

    @property
    def fit(self) -> Fit:
        """How pictures become its input."""
        return self.legend.fit

    @property
    def bands(self) -> int:
        """Of its input: 3 for colours."""
        return int(self.model.input_shape[-1])

    @property
    def size(self) -> Size:
        """Of the network's input."""
        return Size(*map(int, self.model.input_shape[1:3]))


def load_trained(place: Path, precision: Literal["float32"] | None = None, *, best: bool = False) -> Trained:
    """Loads ``RUN`` (the checkpoint that counts), ``RUN/checkpoints/step-N``, or a ``.keras`` or ``.h5`` file.

    The legend of a file is the classes.json beside it; without one the classes have numbers for names. A run
    that averages its weights is loaded with the averages.

    Args:
        precision: of the computation, instead of the run's or the file's own.
        best: the run's checkpoint with the highest score. Otherwise the one that the run's final scores are of, which a
            validation split has chosen, or the newest.

    Raises:
        NotFound: there is nothing, or a run without a checkpoint, or without one that has a score.
        BadInput: it is something else, or damaged.
        BadSettings: the best of what is no run.
    """
    existing_network(place)
    checkpoint = checkpoint_at(str(place))
    if best and (checkpoint or place.is_file()):
        raise BadSettings(f"--best: expected a run directory, found {place}; leave --best out, or name the run")
    if checkpoint:
        return _from_run(RunDirectory(Path(checkpoint[0])), checkpoint[1], precision)
    if RunDirectory(place).config.is_file():
        run = RunDirectory(place)
        return _from_run(run, _best_step(run) if best else _counting_step(run), precision)
    return _from_file(place, precision)


@dataclass(frozen=True)
class Weights:
    """What another network can begin with.

    Attributes:
        values: of all variables, by their paths.
        legend: what its outputs mean.
        encoder: the setting of that name of its run; None of a file, which does not say.
        origin: what it is, in a few words.
    """

    values: Mapping[str, NDArray[Any]]
    legend: Legend
    encoder: str | None
    origin: str


def load_weights_of(place: Path) -> Weights:
    """The weights at ``place``, as :func:`load_trained` finds them; the network of a run is not built for them.

    Raises:
        NotFound, BadInput: as :func:`load_trained`.
    """
    checkpoint = checkpoint_at(str(place))
    run = RunDirectory(Path(checkpoint[0]) if checkpoint else place)
    if not run.config.is_file():
        trained = load_trained(place)
        return Weights({v.path: v.numpy() for v in trained.model.variables}, trained.legend, None, place.name)
    config = TrainConfig.resolve([read_settings_file(run.config)])
    step = checkpoint[1] if checkpoint else _counting_step(run)
    manifest, values = read_weights(run, step, averaged=config.ema_decay > 0)
    return Weights(values, _legend(run), config.encoder, f"step {manifest.step}")


def chosen_on_test(run: RunDirectory) -> str | None:
    """A warning if the best checkpoint of ``run`` is the best on its test split, for want of another."""
    resolved = RunRecord.read(run).resolved
    if resolved is None or resolved.chooser != "test":
        return None
    return (
        "--best chooses on the test split, as the run has no validation split: its scores there are too good; train "
        "with --validation-share .1 to hold one out"
    )


def run_of(place: Path) -> RunDirectory | None:
    """The run that ``place`` is, or a checkpoint or the exported file of; None if it is of none."""
    parents = (place, *(place.absolute().parents[level] for level in range(min(3, len(place.absolute().parents)))))
    return next((run for run in map(RunDirectory, parents) if run.config.is_file()), None)


def _best_step(run: RunDirectory) -> int:
    found = best_checkpoint(run)
    if found is None:
        raise NotFound(
            f"{run.path}: --best: expected a checkpoint that was validated, found none among the steps "
            f"{run.checkpoint_steps()}; leave --best out for the newest"
        )
    return found.step


def _counting_step(run: RunDirectory) -> int | None:
    """Of the run's final scores; None for its newest checkpoint."""
    scores = FinalScores.read(run)
    return scores.step if scores is not None and scores.step in run.checkpoint_steps() else None


def _from_run(run: RunDirectory, step: int | None, precision: str | None) -> Trained:
    if not run.config.is_file():
        raise NotFound(f"{run.path}: expected a run, found no {run.config}")
    layer = read_settings_file(run.config)
    # The weights come from the checkpoint: those that the encoder began with may be gone.
    config = TrainConfig.resolve([layer])
    legend = _legend(run)
    changes = {"encoder_weights": "none", "precision": precision or config.precision}
    use_code(run.code if run.code.is_file() else config.code)
    network = build_network(config.model_copy(update=changes), len(legend.classes))
    manifest = load_weights(run, network.model, step)
    if config.ema_decay > 0:
        load_averages(run.checkpoint_prefix(manifest.step), network.model)
    return Trained(network.model, legend, config)


def _legend(run: RunDirectory) -> Legend:
    resolved = RunRecord.read(run).resolved
    return Legend.from_json({} if resolved is None else vars(resolved), run.config)


def _from_file(file: Path, precision: str | None) -> Trained:
    _check_export(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras's are for who wrote the layers
            model = keras.models.load_model(file, compile=False)
    except Exception as error:  # a file that is none of ours raises what it likes: of zip, HDF5, JSON, Keras
        raise BadInput(
            f"{file}: expected a network that 'trainer export' wrote (.keras or .h5): "
            f"{one_line(str(error)) or type(error).__name__}"
        ) from error
    _check_shapes(file, getattr(model, "input_shape", None), getattr(model, "output_shape", None))
    if precision is not None:
        weights = model.get_weights()
        model = model.__class__.from_config(_in_float32(model.get_config()))
        model.set_weights(weights)
    beside = file.with_name(LEGEND)
    classes = int(model.output_shape[-1])
    legend = Legend.read(beside) if beside.is_file() else Legend.unnamed(classes)
    if len(legend.classes) != classes:
        raise BadInput(f"{beside}: expected the {classes} classes of {file.name}, found {len(legend.classes)}")
    return Trained(model, legend, None)


def _check_export(file: Path) -> None:
    """Raises BadInput if the file is of another export than the rest, whose classes may be others."""
    manifest = ExportManifest.read(file.parent)
    if manifest is not None and (problem := manifest.problem({file.name: FileDigest.of(file)})):
        raise BadInput(
            f"{file}: is not of the export that {EXPORT_FILE} beside it names ({problem}): it was interrupted, or the "
            f"file changed; run 'trainer export' again, or delete {EXPORT_FILE}"
        )


def _check_shapes(file: Path, images: Any, logits: Any) -> None:
    """Raises BadInput unless they are (b, H, W, bands) and (b, H, W, classes)."""
    shapes = [shape if isinstance(shape, tuple) and len(shape) == 4 else (0, 0, 0, 0) for shape in (images, logits)]
    (_, height, width, bands), (_, rows, columns, classes) = shapes
    sides = all(isinstance(side, int) and side > 0 for side in (height, width)) and (height, width) == (rows, columns)
    plural = isinstance(bands, int) and bands > 0
    if not (sides and plural and isinstance(classes, int) and 1 <= classes <= MOST_CLASSES):
        raise BadInput(
            f"{file}: expected a network from images [b, H, W, bands] to logits [b, H, W, classes], found "
            f"{one_line(str(images))} to {one_line(str(logits))}"
        )


def _in_float32(config: Any) -> Any:
    """A Keras configuration whose layers, and the tensors between them, are of single precision instead of half."""
    if isinstance(config, Mapping):
        return {key: _in_float32(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_in_float32(value) for value in config)
    return "float32" if config in ("bfloat16", "float16", "mixed_bfloat16", "mixed_float16") else config
