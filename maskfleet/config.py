"""Every setting of a training run, with its unit, default and reason. Imports no TensorFlow."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from maskfleet.data_places import DATA_KINDS, data_path, own_data, packed_place
from maskfleet.errors import BadSettings
from maskfleet.image_size import Fit, ImageSize, Size, parse_size
from maskfleet.own_code import OWN, is_own
from maskfleet.settings import Layer, Settings, read_settings_file
from maskfleet.text import parse_bytes

MOST = 2**31 - 1
"""Of any count: the steps of so many epochs are counted in 64 bits."""
MOST_FILTERS = 1 << 14
"""Of a layer: more than any memory holds."""
SIZE = WithJsonSchema({"type": "string", "format": "size"})
"""Of bytes, as it is written."""
Positive = Annotated[int, Field(ge=1, le=MOST)]
NotNegative = Annotated[int, Field(ge=0, le=MOST)]
Fraction = Annotated[float, Field(ge=0, le=1)]
OwnFunction = Annotated[str, Field(pattern=f"^{OWN}$")]
"""MODULE:FUNCTION, of the user's own code."""

DEFAULT_BATCH = 4
"""Examples per replica and step."""

MOST_BAD_STEPS = 10
"""In a row that --on-bad-step skip passes over: more are no accident."""

DEFAULT_MAX_PIXELS = 178_956_970
"""Pillow's own limit, over which it takes a picture for an attack: a small file that fills the memory."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The field defaults below are the default preset.
    "default": {},
    # TensorFlow's segmentation tutorial, as written.
    "tutorial": {
        "image_size": 128,
        "flip": "frozen",
        "flip_vertical": False,
        "zoom": 0.0,
        "rotation": 0.0,
        "colour": 0.0,
        "cutout": 0.0,
        "elastic": 0.0,
        "grid": 0.0,
        "blur": 0.0,
        "epochs": 20,
        "batch_per_replica": 64,
        "learning_rate": 1e-3,
        "schedule": "constant",
        "warmup_epochs": 0.0,
        "optimizer": "adam",
        "weight_decay": 0.0,
        "input_range": "unit",
        "batch_norm_momentum": 0.99,
        "unfreeze_from": "none",
        "upsampling": "transposed",
        "decoder_filters": 512,
        "loss": "cross_entropy",
    },
}

PLANNED = (
    "model", "batch_per_replica", "epochs", "fit", "balance", "image_size", "unfreeze_from", "loss",
    "flip", "zoom", "colour", "precision",
)  # fmt: skip
"""What ``--preset auto`` chooses by the data, as far as nothing else says it."""

NO_WEIGHTS_FILE = ("imagenet", "none")
"""Of --encoder-weights, what names no file."""

SYNTHETIC: Mapping[str, Any] = {"encoder_weights": "none", "image_size": 128, "epochs": 4}
"""Defaults for the data that is drawn here, so that a first run needs no download and few minutes."""


class TrainConfig(Settings):
    """The settings of one training run."""

    named_elsewhere: ClassVar[Mapping[str, str]] = {
        "lr": "learning_rate",
        "wd": "weight_decay",
        "backbone": "encoder",
        "channels": "bands",
        "in_channels": "bands",
        "arch": "model",
        "architecture": "model",
        "network": "model",
        "batch_size": "batch_per_replica",
        "bs": "batch_per_replica",
        "weights": "encoder_weights",
        "pretrained": "encoder_weights",
        "imgsz": "image_size",
        "img_size": "image_size",
        "input_size": "image_size",
        "resolution": "image_size",
        "num_epochs": "epochs",
        "max_epochs": "epochs",
        "dataset": "data",
        "save_every": "checkpoint_steps",
        "early_stopping": "patience",
        "mixed_precision": "precision",
        "random_seed": "seed",
        "criterion": "loss",
        "scheduler": "schedule",
    }
    preset: Literal["default", "tutorial", "auto"] = Field(
        default="default",
        description="recipe whose values the other flags override; 'tutorial' is TensorFlow's own; 'auto' looks at a "
        "sample of the training pictures and prints what it chooses by them, with a reason each",
    )

    # Data
    data: str = Field(
        default="synthetic",
        description="PATH of a folder or a data file that says what it is, KIND:PATH "
        f"({', '.join(DATA_KINDS)}), oxford_iiit_pet[:VERSION], tfds:NAME, packed:PLACE (a folder, gs:// or s3:// that "
        "'trainer pack' has written), python:MODULE:FUNCTION or synthetic",
    )
    data_dir: Path | None = Field(
        default=None,
        description="where TensorFlow Datasets lie and are built (its own default: ~/tensorflow_datasets)",
    )
    mask_pattern: str | None = Field(
        default=None,
        description="how masks are called that have not the names of their images: {name}_mask, or "
        "{name}_sat={name}_mask where the image's name has a part of its own; found by itself where one alone fits",
    )
    mask_threshold: Annotated[float, Field(ge=0, le=2**32, allow_inf_nan=False)] | None = Field(
        default=None,
        description="for masks of one kind of object in white, grey or shares of 1, with soft edges or saved as JPEG: "
        "a pixel over this value is the object, any other the background; 127 for masks of 0 to 255",
    )
    image_size: ImageSize = Field(
        default=Size(224, 224),
        description="size of the network's input, pixels: the side of a square, or HEIGHTxWIDTH such as 360x480; by "
        "default that of the images the encoders were trained on",
    )
    fit: Fit = Field(
        default="squash",
        description="how a picture becomes the network's input: squash it to --image-size; 'crop': train on parts of "
        "it at a random place and scale, .5 to 2 of its own, and validate and predict by windows at its own scale; "
        "'pad': scale it, its aspect kept, until it fits, and fill up to multiples of 32 with pixels that do not count",
    )
    balance: bool = Field(
        default=False,
        description="draw three of four training examples for a class, rare ones most: a picture that has it and, with "
        "--fit crop, a part of it that does; an epoch then shows some pictures more often than others",
    )

    bands: Annotated[int, Field(ge=1, le=256)] = Field(
        default=3,
        description="bands of the pictures: 3 for colour, 1 for grey, more for satellites' and the like (TIFF, NPY); "
        "an encoder's trained weights serve them all",
    )
    max_pixels: Annotated[int, Field(ge=1, le=2**40)] = Field(
        default=DEFAULT_MAX_PIXELS,
        description="largest picture or mask that is read, pixels: a small file may fill the memory; "
        "raise it for large ones that you trust",
    )
    masks_drawn_on: Literal["displayed", "stored"] = Field(
        default="displayed",
        description="what masks of photographs that EXIF turns were drawn on: the picture as it is displayed, as in "
        "most annotation tools, or the stored pixels; where the mask has the size of only one of them, that is taken",
    )

    cache: Annotated[int, BeforeValidator(parse_bytes), Field(ge=1, lt=1 << 63), SIZE] | None = Field(
        default=None,
        description="most that a worker keeps on disk of packed data that it has read, such as 500MB or 20GiB; "
        "by default half of what is free",
    )

    # How the examples are divided, where the data does not say
    validation_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="share of the training images, by a hash of their names, on which epochs are validated: the best "
        "checkpoint and an early stop are chosen on it, and the test split is scored once, at the end",
    )
    group_by: str | None = Field(
        default=None,
        description="pattern (a regular expression) that finds in a picture's name its patient, scene or day, as "
        "'^[^_]+': the first group in parentheses, else the match; all pictures of one stay in one split",
    )
    folds: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="parts of the images that are not for testing; --fold says which one validates"
    )
    fold: NotNegative | None = Field(default=None, description="which of the --folds validates, from 0 on")

    # Augmentation of training images, with their masks
    flip: Literal["none", "random", "frozen"] = Field(
        default="random",
        description="mirror half of the images: anew each epoch, or the same ones in all epochs (frozen)",
    )
    flip_vertical: bool = Field(
        default=False, description="also mirror half of them top to bottom, for pictures from above"
    )
    zoom: Fraction = Field(default=0.1, description="enlarge or shrink by up to 1 + ZOOM, and move; 0: not")
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(default=0.0, description="turn by up to so many degrees")
    colour: Fraction = Field(default=0.1, description="change brightness, contrast, saturation and hue, up to 1")
    cutout: Fraction = Field(default=0.0, description="side of a square that is made grey, as a share of the image's")
    elastic: Annotated[float, Field(ge=0, le=0.2)] = Field(
        default=0.0, description="bend smoothly, by up to so large a share of the image's side; .03 is gentle"
    )
    grid: Annotated[float, Field(ge=0, le=0.9)] = Field(
        default=0.0, description="stretch and shrink the rows and columns of a 4 x 4 grid by up to so large a share"
    )
    blur: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.0, description="blur half of the images, by a Gaussian of up to so many pixels"
    )

    augmentation: OwnFunction | None = Field(
        default=None, description="MODULE:FUNCTION of your own, which changes image and mask after all of these"
    )

    # Network
    model: (
        Literal["unet", "fcn32s", "fcn16s", "fcn8s", "deeplabv3plus", "lraspp", "pspnet", "segformer"] | OwnFunction
    ) = Field(
        default="unet",
        description="network, or MODULE:FUNCTION of your own; segformer's own encoders are mit_b0 to mit_b2, and it "
        "takes the others too",
    )
    encoder: Literal[
        "mobilenet_v2", "mobilenet_v3", "efficientnet_v2_b0", "resnet50", "vgg16", "mit_b0", "mit_b1", "mit_b2"
    ] = Field(
        default="mobilenet_v2",
        description="encoder under the network; mit_… (for segformer and fcn…) has no ImageNet weights to download",
    )
    output_stride: Literal[8, 16] = Field(
        default=16,
        description="pixels of the input, along a side, to a place of the coarsest features of deeplabv3plus, lraspp "
        "and pspnet, whose encoder is dilated for it; 8 has finer masks and takes longer",
    )
    encoder_weights: str = Field(
        default="imagenet",
        description="'imagenet' (Keras downloads them), 'none' (random; the default for synthetic data), "
        "or a weights FILE",
    )
    start_from: str | None = Field(
        default=None,
        description="RUN, CHECKPOINT, exported FILE (.keras, .h5), or the gs:// or s3:// address of one, whose weights "
        "the run begins with, by name and shape; classes of the same name keep their outputs, others get new ones. "
        "Optimizer and steps begin anew",
    )
    unfreeze_from: str = Field(
        default="stride-8",
        description="first layer of the encoder that is trained, 'stride-N' for all after its features of that "
        "stride (2, 4, 8, 16), 'all' (the default for random weights), or 'none' to freeze the encoder. "
        "Batch normalisation with trained weights stays in inference mode",
    )
    decoder_filters: Annotated[int, Field(ge=8, le=MOST_FILTERS)] | None = Field(
        default=None,
        description="filters of the decoder's convolutions (of unet the first up-sampling block's, each next one has "
        "half as many); by default unet 128, lraspp 128, deeplabv3plus 256, pspnet 512, segformer 256, over mit_b2 768",
    )
    upsampling: Literal["transposed", "nearest", "bilinear", "bicubic"] = Field(
        default="bilinear", description="how the decoder enlarges"
    )
    upsampling_trainable: bool = Field(
        default=True,
        description="train the FCN's transposed convolutions, or keep them the bilinear interpolation they start as",
    )
    normalization: Literal["batch", "instance", "frozen"] = Field(
        default="batch",
        description="normalisation in the decoder; 'frozen' is batch normalisation that keeps its first statistics, "
        "so that the result does not depend on the batch per replica",
    )
    batch_norm_momentum: Fraction = Field(
        default=0.9,
        description="of the decoder's moving averages; Keras's own .99 needs more steps than a short run has",
    )
    dropout: bool = Field(
        default=False,
        description="dropout of .5 in each up-sampling block of unet, of .1 before the scores of deeplabv3plus, "
        "pspnet and segformer",
    )
    input_range: Literal["encoder", "unit"] = Field(
        default="encoder", description="scale pixels to what the encoder was trained with, or to [0, 1]"
    )

    # Loss
    loss: str = Field(
        default="cross_entropy+jaccard",
        description="cross_entropy, focal, dice, jaccard, lovasz, MODULE:FUNCTION of your own, or a sum such as "
        "cross_entropy+dice",
    )
    class_weights: str | None = Field(
        default=None,
        description="of cross-entropy and focal loss: median_frequency (from the training masks), "
        "or a number for each class: 1,0.5,3",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.0, description="of cross-entropy")
    focal_gamma: Annotated[float, Field(ge=1)] = Field(
        default=2.0, description="how much focal loss neglects easy pixels"
    )

    # Optimisation
    epochs: Positive = Field(default=7, description="passes over the training split")
    batch_per_replica: Positive | Literal["auto"] = Field(
        default=DEFAULT_BATCH,
        description="examples per replica (a worker's GPU or CPU) at a time; 'auto': the most that fit the GPU, "
        f"{DEFAULT_BATCH} on a CPU, and the learning rate is that of one replica's",
    )
    accumulate: Positive = Field(
        default=1,
        description="parts of a step, one after another: with --batch-per-replica 4 --accumulate 4 the gradients of 16 "
        "examples per replica are added up before the weights move, in the memory of 4; the learning rate is that "
        "of one replica's 16. Batch normalisation sees the parts",
    )
    global_batch: Positive | None = Field(
        default=None, description="examples per step over all replicas; fixes the product instead of the factor"
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field(default="adamw", description="optimizer")
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        default=1e-3, description="peak learning rate at the global batch of one replica"
    )
    encoder_learning_rate: Fraction = Field(
        default=0.1, description="of an encoder that has weights already, as a share of the learning rate"
    )
    learning_rate_scaling: Literal["linear", "sqrt", "none"] = Field(
        default="linear", description="how the learning rate grows with the number of replicas"
    )
    schedule: Literal["constant", "polynomial", "cosine", "step"] = Field(
        default="cosine", description="learning rate after the warm-up"
    )
    warmup_epochs: Annotated[float, Field(ge=0, le=MOST)] = Field(
        default=1.0, description="epochs of linear warm-up from zero"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=1e-4, description="decoupled weight decay (adamw)")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.9, description="of sgd")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="of the weights' exponential moving average, by which is validated and exported; 0: none",
    )
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="largest norm of all gradients together, over the whole global batch; they are shrunk"
    )
    on_bad_step: Literal["stop", "skip"] = Field(
        default="stop",
        description="a loss or gradients that are not finite end the run, or leave weights, moments and statistics as "
        f"they were ({MOST_BAD_STEPS} steps in a row end it nevertheless)",
    )
    seed: NotNegative = Field(default=0, description="of initial weights, order and augmentation")
    precision: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        default="float32",
        description="of the computation; auto: bfloat16 where the hardware multiplies it (AMX, AVX512_BF16, or a GPU "
        "from Ampere on), else float32",
    )

    # Running
    checkpoint_steps: NotNegative = Field(
        default=0, description="save every N steps; 0: only by time and at each epoch"
    )
    checkpoint_seconds: Positive | Literal["auto"] = Field(
        default=60,
        description="save when the last checkpoint is older, seconds; auto: what loses the least, by what a checkpoint "
        "of this run costs and how often it was cut off, by Daly's formula",
    )
    keep: Positive = Field(default=3, description="newest checkpoints that are kept, beside the best")
    best_by: Literal[
        "miou",
        "miou_without_background",
        "frequency_weighted_iou",
        "pixel_accuracy",
        "mean_class_accuracy",
        "mean_dice",
        "loss",
    ] = Field(default="miou", description="score of a validation that says which checkpoint is the best")
    patience: NotNegative = Field(
        default=0, description="epochs without a better score after which training stops; 0: it never stops early"
    )
    export: bool = Field(
        default=True,
        description="leave the network (Keras, HDF5, SavedModel) and the report behind at the end; "
        "'trainer export' and 'trainer report' make them later",
    )
    tracker: OwnFunction | None = Field(
        default=None, description="MODULE:FUNCTION of your own, which makes what is told settings and scores"
    )
    code: Path | None = Field(
        default=None,
        description="folder of Python files where your own functions lie, or an archive (.zip) of them; "
        "'launcher submit --code' brings one into the pods",
    )
    profile_steps: str | None = Field(
        default=None, description="FIRST-LAST: steps that TensorFlow's profiler records on worker 0, for TensorBoard"
    )
    cache_features: bool = Field(
        default=True,
        description="keep what a frozen encoder makes of the images, where it fits and nothing but the flip changes "
        "them: the same results sooner",
    )
    steps_per_call: Positive = Field(
        default=1,
        description="training steps that TensorFlow takes at once, without Python between them: sooner where a step "
        "takes few milliseconds (a GPU, small images). A stop waits for their end",
    )
    xla: bool = Field(
        default=False,
        description="compile the network with XLA, for GPUs; on a CPU its steps take up to five times as long",
    )
    threads: NotNegative = Field(
        default=0, description="CPU threads of a worker; 0: the container's CPU limit shared by the local workers"
    )
    start_timeout: Positive = Field(default=600, description="for all workers to come up, seconds")
    stall_timeout: Positive = Field(default=600, description="without a step before a worker is restarted, seconds")
    spare: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="a spare process beside each training process, which has imported TensorFlow and takes its place "
        "when it is lost; auto: where as much memory is free as training takes",
    )
    max_restarts: NotNegative = Field(
        default=20, description="restarts of the training process within an hour before the run fails"
    )

    @field_validator("loss")
    @classmethod
    def _known_losses(cls, value: str) -> str:
        known = ("cross_entropy", "focal", "dice", "jaccard", "lovasz")
        terms = value.split("+")
        if not all(term in known or is_own(term) for term in terms) or len(set(terms)) < len(terms):
            raise ValueError(f"expected {', '.join(known)} or MODULE:FUNCTION, or a sum of some joined by +")
        return value

    @field_validator("class_weights")
    @classmethod
    def _class_weights(cls, value: str | None) -> str | None:
        if value is None or value == "median_frequency":
            return value
        try:
            weights = [float(weight) for weight in value.split(",")]
        except ValueError:
            weights = []
        if not weights or min(weights) < 0 or not 0 < sum(weights) < math.inf:
            raise ValueError("expected median_frequency, or a number from 0 on for each class: 1,0.5,3")
        return value

    @field_validator("group_by")
    @classmethod
    def _group_by(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"expected a regular expression: {error}") from error
        if value == "":
            raise ValueError("expected a regular expression such as '^[^_]+'")
        return value

    @model_validator(mode="after")
    def _encoder_that_fits(self) -> Self:
        if not self.encoder.startswith("mit_"):
            return self
        if not self.model.startswith(("segformer", "fcn")):
            raise ValueError(
                f"--model {self.model} --encoder {self.encoder}: expected segformer, fcn8s, fcn16s or fcn32s over "
                "a Mix Transformer, which has no features of stride 2 and nothing to dilate; or choose another encoder"
            )
        if self.encoder_weights == "imagenet":
            raise ValueError(
                f"--encoder {self.encoder}: there are no ImageNet weights of it that Keras downloads; give "
                "--encoder-weights FILE, or none to start from random ones"
            )
        return self

    @model_validator(mode="after")
    def _bands_of_files(self) -> Self:
        kind = self.data.partition(":")[0]
        if self.bands != 3 and kind in ("synthetic", "oxford_iiit_pet", "tfds", "packed", "python"):
            raise ValueError(f"--bands {self.bands}: --data {self.data} has three bands; name a folder or a data file")
        return self

    @model_validator(mode="after")
    def _what_packed_data_serves(self) -> Self:
        if packed_place(self.data) is None:
            return self
        if self.fit == "crop":
            raise ValueError(
                "--fit crop: parts are cut out of pictures that are here, and packed data is read while training goes "
                "on; train on the data that was packed, or with --fit squash or pad"
            )
        if self.balance:
            raise ValueError(
                "--balance: needs to know which pictures have which class, and packed data is read while training goes "
                "on; leave it out, or train on the data that was packed"
            )
        return self

    @model_validator(mode="after")
    def _one_division(self) -> Self:
        if self.folds is not None and self.validation_share is not None:
            raise ValueError("--validation-share and --folds both make a validation split; leave one of them out")
        if (self.folds is None) != (self.fold is None):
            given, other = ("folds", "fold") if self.fold is None else ("fold", "folds")
            raise ValueError(f"--{given}: expected --{other} beside it: --folds 5 --fold 0 validates on the first of 5")
        if self.folds is not None and self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"--fold {self.fold}: expected 0 to {self.folds - 1}, as there are --folds {self.folds}")
        return self

    @field_validator("profile_steps")
    @classmethod
    def _profile_steps(cls, value: str | None) -> str | None:
        if value is not None:
            _first_and_last(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        preset = PRESETS.get(values.get("preset", "default"), {})
        drawn = SYNTHETIC if values.get("data", "synthetic") == "synthetic" else {}
        defaults = {**drawn, **preset}
        if values.get("preset") == "auto":
            defaults = {name: value for name, value in defaults.items() if name not in PLANNED}
        if values.get("fit") == "crop":
            defaults["zoom"] = 0.0  # a crop has a scale of its own
        if values.get("fit") == "pad":
            values = {**values, **_rounded_up({**defaults, **values})}
        if values.get("start_from") is not None:
            defaults["encoder_weights"] = "none"  # they come from there
        elif {**defaults, **values}.get("encoder_weights") == "none":
            defaults["unfreeze_from"] = "all"  # nothing would ever train what is random
        return {**defaults, **values}

    @model_serializer(mode="wrap")
    def _without_unplanned(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What a file does not say is still to be chosen by who reads it."""
        return {name: value for name, value in serialize(self).items() if name not in self.unplanned}

    @classmethod
    def from_sources(cls, files: Sequence[Path], flags: Layer) -> Self:
        """Settings from files, the later over the earlier, under the command line's flags.

        Raises:
            BadSettings: in one line.
        """
        return cls.overlaid([read_settings_file(file) for file in files], flags)._with_absolute_paths()

    @classmethod
    def overlaid(cls, layers: Sequence[Layer], flags: Layer) -> Self:
        """Settings that an earlier start has completed, in layers, under flags.

        They name all of them. So a preset that is named by a flag takes the place of what they say about any preset's
        settings, and a batch per replica that of their global batch.

        Raises:
            BadSettings: in one line.
        """
        void: set[str] = set()
        if "preset" in flags.values:
            void.update(PLANNED, *PRESETS.values())
        if {"batch_per_replica", "accumulate"} & (void | flags.values.keys()):
            void.add("global_batch")
        kept = [Layer(origin, {k: v for k, v in values.items() if k not in void}) for origin, values in layers]
        return cls.resolve([*kept, flags])

    def _with_absolute_paths(self) -> Self:
        """As seen from any directory: a run's config.json is read from others than it was begun in."""
        paths: dict[str, Any] = {}
        if (found := data_path(self.data)) is not None:
            kind, place = found
            paths["data"] = f"{kind}{absolute_path(place, f'--data {kind}'.rstrip())}"
        if self.code is not None:
            paths["code"] = absolute_path(self.code, "--code")
        if self.data_dir is not None:
            paths["data_dir"] = absolute_path(self.data_dir, "--data-dir")
        if self.encoder_weights not in NO_WEIGHTS_FILE:
            paths["encoder_weights"] = str(absolute_path(self.encoder_weights, "--encoder-weights"))
        if self.start_from is not None and not is_address(self.start_from):
            paths["start_from"] = str(absolute_path(self.start_from, "--start-from"))
        return self.model_copy(update=paths)

    @property
    def own_functions(self) -> list[tuple[str, str]]:
        """Settings that name the user's own code, each with its MODULE:FUNCTION."""
        named = [("--model", self.model), ("--augmentation", self.augmentation), ("--tracker", self.tracker)]
        named += [("--loss", term) for term in self.loss.split("+")] + [("--data", own_data(self.data))]
        return [(setting, name) for setting, name in named if name is not None and is_own(name)]

    @property
    def unplanned(self) -> tuple[str, ...]:
        """The settings that ``--preset auto`` is still to choose, by the data; their values mean nothing before."""
        return tuple(name for name in PLANNED if self.preset == "auto" and name not in self.model_fields_set)

    @property
    def encoder_is_trained(self) -> bool:
        """Whether the encoder begins with weights that it was trained to have, and not at random."""
        return self.encoder_weights != "none" or self.start_from is not None

    @property
    def profiled(self) -> tuple[int, int] | None:
        """The first and the last of the steps that are profiled."""
        return None if self.profile_steps is None else _first_and_last(self.profile_steps)

    @property
    def replica_batch(self) -> int:
        """Examples per replica and step; for 'auto' of the default, until training has put what fits in its place."""
        return self.accumulate * (DEFAULT_BATCH if self.batch_per_replica == "auto" else self.batch_per_replica)

    def effective_global_batch(self, replicas: int) -> int:
        """Examples per step over all ``replicas``.

        Raises:
            BadSettings: a fixed global batch has not an example for every replica in every part of a step.
        """
        batch = self.global_batch or self.replica_batch * replicas
        if batch < replicas * self.accumulate:
            parts = f" in each of {self.accumulate} parts (--accumulate)" if self.accumulate > 1 else ""
            raise BadSettings(
                f"--global-batch {batch}: expected at least one example for each of {replicas} replicas{parts}"
            )
        return batch

    def scaled_learning_rate(self, global_batch: int) -> float:
        """The peak learning rate for ``global_batch`` examples a step.

        Linear scaling is that of Goyal et al., "Accurate, Large Minibatch SGD" (2017); it stands for the number
        of replicas, and stays what it was when a run goes on with another number of workers.
        """
        growth = global_batch / self.replica_batch
        factor: float = {"linear": growth, "sqrt": growth**0.5, "none": 1.0}[self.learning_rate_scaling]
        return self.learning_rate * factor


def is_address(place: str) -> bool:
    """Whether ``place`` is in a bucket, as gs://… and s3://…, and no path."""
    return "://" in place


def absolute_path(path: str | Path, setting: str) -> Path:
    """``path`` from the root on, with ``~`` and ``~USER`` as the shell has them; links are not resolved.

    Raises:
        BadSettings: there is no such user; ``setting`` names the flag.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        place = f"{setting}{'' if setting.endswith(':') else ' '}{path}"
        raise BadSettings(f"{place}: there is no home of {Path(path).parts[0]}; name the place in full") from error


def _rounded_up(values: Mapping[str, Any]) -> dict[str, Any]:
    """The image size in ``values`` with sides that the encoders halve without a rest; nothing if there is none."""
    try:
        size = parse_size(values["image_size"])
    except (KeyError, ValueError):  # the default is; the field's own validation will say what is wrong
        return {}
    return {"image_size": size.rounded_up}


def _first_and_last(window: str) -> tuple[int, int]:
    """'10-15' -> (10, 15)."""
    first, _, last = window.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise ValueError("expected FIRST-LAST, two steps from 1 on such as 10-15")
    return int(first), int(last)
