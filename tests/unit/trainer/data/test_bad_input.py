"""Each mistake in the data ends in one line that says where, what was expected, what was found, and how to mend it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from maskfleet.errors import BadData, BadSettings
from tests.helpers.data_folders import (
    SIZE,
    labels,
    picture,
    save,
    with_palette,
    write_list,
    write_pairs,
    write_pets,
    write_voc,
)
from trainer.data.cache import load_dataset

NO_KIND = (
    "--data: expected a PATH, KIND:PATH (folder, voc, coco, yolo, labelme, cvat, cityscapes, ade20k, file), "
    "oxford_iiit_pet[:VERSION], tfds:NAME, packed:PLACE, python:MODULE:FUNCTION or synthetic"
)
COLOURS = ("background 0 0 0", "object 255 255 255")


class Case(NamedTuple):
    id: str
    kind: str
    """Of the good data set that the mistake is then made in."""
    spoil: Callable[[Path], object]
    message: str
    """The whole message, with {} for the data set's folder."""


def cut(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])


def remove_tree(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def write_wide_masks(folder: Path, factor: int, classes: int = 3) -> None:
    """Masks of 16 bits whose labels are multiples of ``factor``."""
    for file in (folder / "masks").iterdir():
        save(Image.fromarray(labels(*range(classes)).astype(np.uint16) * factor), file)


def smooth(seed: int) -> Image.Image:
    """An ellipse in white on black, with an anti-aliased edge."""
    large = Image.new("L", (SIZE[0] * 8, SIZE[1] * 8))
    ImageDraw.Draw(large).ellipse((80 + 8 * seed, 40, 200, 150 + 5 * seed), fill=255)
    return large.resize(SIZE, Image.Resampling.BOX)


def red(*, at: tuple[int, int]) -> Image.Image:
    """A black RGB mask with one red pixel."""
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    pixels[at] = (255, 0, 0)
    return Image.fromarray(pixels)


CASES = [
    # The raw layout of Oxford-IIIT Pet
    Case(
        "list is missing",
        "pets",
        lambda f: (f / "annotations/test.txt").unlink(),
        "{}/annotations/test.txt: expected text with a name on each line: No such file or directory",
    ),
    Case(
        "list is empty",
        "pets",
        lambda f: (f / "annotations/test.txt").write_text("# nothing yet\n\n"),
        "{}/annotations/test.txt: expected a name on each line, found none",
    ),
    Case(
        "list is no text",
        "pets",
        lambda f: (f / "annotations/test.txt").write_bytes(b"\xff\xd8\xff"),
        "{}/annotations/test.txt: expected text in UTF-8, found byte 0xff",
    ),
    Case(
        "name twice",
        "pets",
        lambda f: write_list(f / "annotations/test.txt", ["cat_3 1 1 1", "cat_4 1 1 1", "cat_3 1 1 1"]),
        "{}/annotations/test.txt: names cat_3 2 times; remove the repetition",
    ),
    Case(
        "training example is tested",
        "pets",
        lambda f: write_list(f / "annotations/test.txt", ["cat_3", "cat_1", "cat_2"]),
        "cat_1: is named in trainval.txt and in test.txt, as 2 in all; test with images that were not trained on",
    ),
    Case(
        "images are missing",
        "pets",
        lambda f: [(f / f"images/cat_{i}.jpg").unlink() for i in (0, 2)],
        "{}/images/cat_0.jpg: this image (and 1 more) is named in trainval.txt but is not there",
    ),
    Case(
        "trimap is missing",
        "pets",
        lambda f: (f / "annotations/trimaps/cat_4.png").unlink(),
        "{}/annotations/trimaps/cat_4.png: this trimap is named in test.txt but is not there",
    ),
    Case(
        "trimap with other labels",
        "pets",
        lambda f: save(labels(2, 3, 4, 1), f / "annotations/trimaps/cat_1.png"),
        "{}/annotations/trimaps/cat_1.png: label 4 at row 0, column 20: "
        "a trimap holds 1 (pet), 2 (background) and 3 (border)",
    ),
    Case(
        "trimap in colours",
        "pets",
        lambda f: save(red(at=(3, 4)), f / "annotations/trimaps/cat_1.png"),
        "{}/annotations/trimaps/cat_1.png: expected labels in one channel, found an RGB image; "
        "save 1 (pet), 2 (background) and 3 (border)",
    ),
    Case(
        "trimap of another size",
        "pets",
        lambda f: save(labels(1, 2, 3)[:20], f / "annotations/trimaps/cat_1.png"),
        "{0}/annotations/trimaps/cat_1.png: expected the size of its image {0}/images/cat_1.jpg, 40 x 30 pixels, "
        "found 40 x 20; save the mask at the image's size",
    ),
    Case(
        "trimap of a turned image",
        "pets",
        lambda f: save(labels(1, 2, 3).T, f / "annotations/trimaps/cat_1.png"),
        "{0}/annotations/trimaps/cat_1.png: expected the size of its image {0}/images/cat_1.jpg, 40 x 30 pixels, "
        "found 30 x 40; turn it as the image lies",
    ),
    Case(
        "image is something else",
        "pets",
        lambda f: (f / "images/cat_1.jpg").write_text("<html>404 Not Found</html>"),
        "{}/images/cat_1.jpg: expected an image, found a page of HTML or XML; replace or remove it",
    ),
    Case(
        "image is empty",
        "pets",
        lambda f: (f / "images/cat_1.jpg").write_bytes(b""),
        "{}/images/cat_1.jpg: expected an image, found an empty file; replace or remove it",
    ),
    Case(
        "image is truncated",
        "pets",
        lambda f: cut(f / "images/cat_1.jpg", 0.9),
        "{}/images/cat_1.jpg: can't be read as an image, replace or remove it: image file is truncated *",
    ),
    Case(
        "trimap is truncated",
        "pets",
        lambda f: cut(f / "annotations/trimaps/cat_1.png", 0.6),
        "{}/annotations/trimaps/cat_1.png: can't be read as an image, replace or remove it: *",
    ),
    Case(
        "first of several bad files",
        "pets",
        lambda f: [(f / f"images/cat_{i}.jpg").write_text("no image") for i in (4, 1, 2)],
        "{}/images/cat_1.jpg: expected an image, found something else or a damaged file; replace or remove it",
    ),
    # A folder of pairs
    Case(
        "no masks folder",
        "pairs",
        lambda f: remove_tree(f / "masks"),
        "{}: expected the folders images and masks (or images and annotations/trimaps), found images",
    ),
    Case(
        "no images",
        "pairs",
        lambda f: [file.rename(file.with_suffix(".txt")) for file in (f / "images").iterdir()],
        "{}/images: expected images (.bmp, .gif, .heic, .heif, .jpeg, .jpg, .npy, .png, .tif, .tiff, .webp), "
        "found p0.txt, p1.txt, p2.txt, p3.txt, p4.txt",
    ),
    Case(
        "image without mask",
        "pairs",
        lambda f: (f / "masks/p3.png").unlink(),
        "{0}/images/p3.jpg: this image has no mask {0}/masks/p3.png; add it or remove the image",
    ),
    Case(
        "mask without image",
        "pairs",
        lambda f: (f / "images/p3.jpg").unlink(),
        "{0}/masks/p3.png: this mask has no image {0}/images/p3.*; add it or remove the mask",
    ),
    Case(
        "two images of one name",
        "pairs",
        lambda f: save(picture(), f / "images/p3.png"),
        "{}/images/p3.png: has the same name as p3.jpg; rename one of them",
    ),
    Case(
        "mask as JPEG",
        "pairs",
        lambda f: save(labels(0, 1), f / "masks/p3.jpg"),
        "{}/masks/p3.jpg: expected a mask as PNG, since JPG changes labels; save it again from its origin, or give "
        "--mask-threshold 127 if it is of one class, white on black",
    ),
    Case(
        "one pair",
        "pairs",
        lambda f: [(f / part).unlink() for i in range(1, 5) for part in (f"images/p{i}.jpg", f"masks/p{i}.png")],
        "{}: expected at least 2 pairs, one for training and one for testing, found 1",
    ),
    Case(
        "labels with a gap",
        "pairs",
        lambda f: save(labels(0, 1, 5), f / "masks/p3.png"),
        "{}/masks: expected labels 0, 1, 2 … without a gap, found 0, 1, 2, 5; "
        "name the classes in classes.txt, one a line, with their values ('0 NAME')",
    ),
    Case(
        "labels 0 and 255",
        "pairs",
        lambda f: write_pairs(f, mask=labels(0, 255)),
        "{}/masks: masks hold only the labels 0 and 255, and 255 means 'ignored': write 1 for the object, "
        "as --mask-threshold 127 does in a folder of pairs, or name the colours in classes.txt "
        "('background 0 0 0', 'object 255 255 255')",
    ),
    Case(
        "labels 0 and 255 with classes",
        "pairs",
        lambda f: write_pairs(f, mask=labels(0, 255), classes=["ground", "object"]),
        "folder:{}: masks hold only the labels 0 and 255, and 255 means 'ignored': write 1 for the object, "
        "as --mask-threshold 127 does in a folder of pairs, or name the colours in classes.txt "
        "('background 0 0 0', 'object 255 255 255')",
    ),
    Case(
        "label outside the classes",
        "pairs",
        lambda f: write_list(f / "classes.txt", ["ground", "object"]),
        "{}/masks/p1.png: label 2 at row 0, column 28 is outside the 2 classes: "
        "expected 0 to 1, or 255 for ignored pixels",
    ),
    Case(
        "coloured mask without colours",
        "pairs",
        lambda f: save(red(at=(3, 4)), f / "masks/p3.png"),
        "{}/masks/p3.png: expected labels in one channel, found an RGB image; "
        "name the colours in classes.txt ('background 0 0 0' on a line), or save labels",
    ),
    Case(
        "colour outside the table",
        "pairs",
        lambda f: write_pairs(f, mask=red(at=(3, 4)), classes=COLOURS),
        "{}/masks/p1.png: 0.1% of the pixels have a colour that is not in the colour table, "
        "the first (255, 0, 0) at row 3, column 4; add it, or save the mask without smooth edges",
    ),
    Case(
        "palette outside the table",
        "pairs",
        lambda f: write_pairs(f, mask=with_palette(labels(0, 1)), classes=COLOURS),
        "{}/masks/p1.png: 50.0% of the pixels have a colour that is not in the colour table, the first (128, 0, 0) of "
        "value 1 at row 0, column 20; add it, or name the classes without colours if the masks' values are labels",
    ),
    Case(
        "labels where colours are grey",
        "pairs",
        lambda f: write_pairs(f, mask=labels(0, 1), classes=COLOURS),
        "{}/masks/p1.png: 50.0% of the pixels have a colour that is not in the colour table, the first (1, 1, 1) of "
        "value 1 at row 0, column 20; add it, or name the classes without colours if the masks' values are labels",
    ),
    Case(
        "label of 16 bits",
        "pairs",
        lambda f: (
            write_list(f / "classes.txt", ["ground", "object", "edge"]),
            save(Image.fromarray(labels(0, 1).astype(np.uint16) * 256), f / "masks/p1.png"),
        ),
        "{}/masks/p1.png: label 256 at row 0, column 20 is outside the 3 classes: "
        "expected 0 to 2, or 255 for ignored pixels",
    ),
    Case(
        "label below 0",
        "pairs",
        lambda f: (
            write_list(f / "classes.txt", ["ground", "object", "edge"]),
            (f / "masks/p1.png").unlink(),
            save(Image.fromarray(labels(1, 0).astype(np.int32) - 1), f / "masks/p1.tif"),
        ),
        "{}/masks/p1.tif: label -1 at row 0, column 20 is outside the 3 classes: "
        "expected 0 to 2, or 255 for ignored pixels",
    ),
    Case(
        "no classes in the file",
        "pairs",
        lambda f: (f / "classes.txt").write_text("# to be done\n"),
        "{}/classes.txt: expected 2 to 255 classes, one a line, found 0",
    ),
    Case(
        "classes are no UTF-8",
        "pairs",
        lambda f: (f / "classes.txt").write_bytes("Straße\nHaus\n".encode("latin-1")),
        "{}/classes.txt: expected text in UTF-8, found byte 0xdf",
    ),
    Case(
        "a million classes",
        "pairs",
        lambda f: write_list(f / "classes.txt", [f"c{i} {i >> 16} {i >> 8 & 255} {i & 255}" for i in range(1 << 20)]),
        "{}/classes.txt: expected 2 to 255 classes, one a line, found 1048576",
    ),
    Case(
        "an endless line",
        "pairs",
        lambda f: write_list(f / "classes.txt", ["a", "b" + " " * 100_000 + "c"]),
        "{}/classes.txt: expected a name on each line, found a line of 100002 characters",
    ),
    Case(
        "a list that is a pipe",
        "pairs",
        lambda f: os.mkfifo(f / "classes.txt"),
        "{}/classes.txt: expected text with a name on each line, found something that is no file",
    ),
    Case(
        "a list larger than any",
        "pairs",
        lambda f: (
            [write_list(f / name, ["p0"]) for name in ("train.txt", "test.txt")],
            os.truncate(f / "train.txt", 1 << 40),
        ),
        "{}/train.txt: expected text with a name on each line, found a file of 1.0 TiB",
    ),
    Case(
        "one class",
        "pairs",
        lambda f: write_list(f / "classes.txt", ["object"]),
        "{}/classes.txt: expected 2 to 255 classes, one a line, found 1",
    ),
    Case(
        "class twice",
        "pairs",
        lambda f: write_list(f / "classes.txt", ["ground", "object", "ground"]),
        "{}/classes.txt: names the class ground twice",
    ),
    Case(
        "class without colour",
        "pairs",
        lambda f: write_list(f / "classes.txt", [*COLOURS, "edge"]),
        "{}/classes.txt: expected a colour such as 'edge 128 0 0', as other lines have one, found 'edge'",
    ),
    Case(
        "class without colour in the table of CVAT",
        "voc",
        lambda f: write_list(f / "labelmap.txt", ["background:0,0,0::", "cat:128,0,0::", "cow:red::"]),
        "{}/labelmap.txt: expected a colour such as 'cow:128,0,0::', as other lines have one, found 'cow:red::'",
    ),
    Case(
        "colour out of range",
        "pairs",
        lambda f: write_list(f / "classes.txt", [*COLOURS, "edge 0 0 256"]),
        "{}/classes.txt: expected red, green and blue from 0 to 255, found 'edge 0 0 256'",
    ),
    Case(
        "colour twice",
        "pairs",
        lambda f: write_list(f / "labelmap.txt", ["# label:color_rgb:parts:actions", "a:1,2,3::", "b:1,2,3::"]),
        "{}/labelmap.txt: a and b have the same colour (1, 2, 3)",
    ),
    Case(
        "list names an unknown image",
        "pairs",
        lambda f: (write_list(f / "train.txt", ["p0", "p7.jpg"]), write_list(f / "test.txt", ["p1"])),
        "{0}/train.txt: names p7, but there is no such file in {0}/images",
    ),
    Case(
        "pair in both lists",
        "pairs",
        lambda f: (write_list(f / "train.txt", ["p0", "p1", "p2"]), write_list(f / "test.txt", ["p3", "p1.jpg"])),
        "p1: is named in train.txt and in test.txt, as 1 in all; test with images that were not trained on",
    ),
    Case(
        "one list of two",
        "pairs",
        lambda f: write_list(f / "train.txt", ["p0", "p1"]),
        "{}: expected val.txt or test.txt, a list of names for another split than training, beside train.txt; add it, "
        "or remove it to have a fifth divided off",
    ),
    Case(
        "labels times 256",
        "pairs",
        lambda f: write_wide_masks(f, 256),
        "{}/masks: expected labels 0, 1, 2 … without a gap, found 0, 256, 512; divide them by 256",
    ),
    Case(
        "binary labels of 16 bits",
        "pairs",
        lambda f: write_wide_masks(f, 65535, 2),
        "{}/masks: expected labels 0, 1, 2 … without a gap, found 0, 65535; divide them by 65535",
    ),
    Case(
        "labels as greys",
        "pairs",
        lambda f: write_pairs(f, mask=labels(0, 100, 200)),
        "{}/masks: expected labels 0, 1, 2 … without a gap, found 0, 100, 200; divide them by 100, or name the greys "
        "in classes.txt ('background 0 0 0', 'object 100 100 100')",
    ),
    Case(
        "labels as greys up to white",
        "pairs",
        lambda f: write_pairs(f, mask=labels(0, 128, 255)),
        "{}/masks: expected labels 0, 1, 2 … without a gap, found 0, 128 and 255, which means 'ignored'; divide them "
        "by 128, or name the greys in classes.txt ('background 0 0 0', 'object 128 128 128')",
    ),
    Case(
        "labels with -1",
        "pairs",
        lambda f: (
            (f / "masks/p0.png").unlink()
            or save(Image.fromarray(labels(0, 1, 2).astype(np.int32) - 1), f / "masks/p0.tif")
        ),
        "{}/masks: expected labels 0, 1, 2 … without a gap, found -1, 0, 1, 2; write 255 where no class is known",
    ),
    Case(
        "labels from 1",
        "pairs",
        lambda f: write_pairs(f, mask=labels(1, 2, 3)),
        "{}/masks: expected labels 0, 1, 2 … without a gap, found 1, 2, 3; subtract 1, or name the classes in "
        "classes.txt, one a line, with their values ('1 NAME')",
    ),
    Case(
        "one label",
        "pairs",
        lambda f: write_pairs(f, mask=labels(0)),
        "{}/masks: expected labels 0, 1, 2 … without a gap, found 0; draw the objects, or name the classes in "
        "classes.txt, one a line",
    ),
    Case(
        "some masks 0 and 1, others 0 and 255",
        "pairs",
        lambda f: [save(labels(0, 255 if i else 1), f / f"masks/p{i}.png") for i in range(5)],
        "{}/masks: some masks hold the labels 0 and 1, others 0 and 255, and 255 means 'ignored': write 1 for the "
        "object in all of them; if 255 is to be ignored, say so in classes.txt ('background 0 0 0', 'object 1 1 1', "
        "'ignored 255 255 255')",
    ),
    Case(
        "some masks 0 and 1, others 0 and 255, with classes",
        "pairs",
        lambda f: (
            [save(labels(0, 255 if i else 1), f / f"masks/p{i}.png") for i in range(5)],
            write_list(f / "classes.txt", ["ground", "object"]),
        ),
        "folder:{}: some masks hold the labels 0 and 1, others 0 and 255, and 255 means 'ignored': write 1 for the "
        "object in all of them; if 255 is to be ignored, say so in classes.txt ('background 0 0 0', 'object 1 1 1', "
        "'ignored 255 255 255')",
    ),
    Case(
        "smooth edge with classes",
        "pairs",
        lambda f: (
            [save(smooth(i), f / f"masks/p{i}.png") for i in range(5)],
            write_list(f / "classes.txt", ["ground", "object"]),
        ),
        "{}/masks/p1.png: label 16 at row 5, column 14 is outside the 2 classes: expected 0 to 1, or 255 for ignored "
        "pixels; this mask has a smooth edge: give --mask-threshold 127",
    ),
    Case(
        "some masks are called otherwise",
        "pairs",
        lambda f: (f / "masks/p3.png").rename(f / "masks/p3_mask.png"),
        "{}/masks/p3_mask.png: expected the name of its image: is it that of p3.jpg? then call it p3.png, and all "
        "masks as their images",
    ),
    Case(
        "one of the masks that are called otherwise is missing",
        "pairs",
        lambda f: (
            [file.rename(file.with_name(f"{file.stem}_mask.png")) for file in (f / "masks").iterdir()],
            (f / "masks/p3_mask.png").unlink(),
        ),
        "{0}/images/p3.jpg: this image has no mask {0}/masks/p3.png; add it or remove the image",
    ),
    Case(
        "two masks for each image",
        "pairs",
        lambda f: [
            save(labels(0, 1), f / f"masks/{file.stem}_{kind}.png")
            for file in (f / "masks").iterdir()
            for kind in ("color", "labelIds")
            if file.unlink(missing_ok=True) is None
        ],
        "{}/masks: several masks go with each image; say which: --mask-pattern '{{name}}_color' or '{{name}}_labelIds'",
    ),
    Case(
        "image of another format",
        "pairs",
        lambda f: (f / "images/p3.jpg").rename(f / "images/p3.jxl"),
        "{}/masks/p3.png: this mask has no image that can be read, only p3.jxl; save that as PNG",
    ),
    Case(
        "nested images",
        "pairs",
        lambda f: [
            (file.parent / "train").mkdir(exist_ok=True) or file.rename(file.parent / "train" / file.name)
            for file in sorted((f / "images").iterdir())
        ],
        "{0}/masks/train: expected the masks of {0}/images/train, found p0.png, p1.png, p2.png, p3.png, p4.png",
    ),
    Case(
        "images and annotations",
        "pairs",
        lambda f: (f / "masks").rename(f / "annotations"),
        "{}: expected masks in a folder masks beside images, or, of Oxford-IIIT Pet, in annotations/trimaps with the "
        "lists annotations/trainval.txt and annotations/test.txt, found annotations, images",
    ),
    Case(
        "layout of VOC",
        "pairs",
        lambda f: ((f / "masks").rename(f / "SegmentationClass"), (f / "images").rename(f / "JPEGImages")),
        "{0}: expected the folders images and masks (this is the layout of PASCAL VOC: --data voc:{0}), "
        "found JPEGImages, SegmentationClass",
    ),
    Case(
        "broken link",
        "pairs",
        lambda f: (f / "images/p3.jpg").unlink() or (f / "images/p3.jpg").symlink_to("/no/such.jpg"),
        "{}/images/p3.jpg: is a link to /no/such.jpg, which is not there; mend or remove it",
    ),
    Case(
        "name of other bytes",
        "pairs",
        lambda f: (f / "images/p3.jpg").rename(f / "images" / os.fsdecode(b"stra\xdfe\x1b[31m.jpg")),
        "{}/images/stra\\xdfe\\x1b[31m.jpg: expected a name in UTF-8, found other bytes in it; rename it "
        "(convmv renames many)",
    ),
    # PASCAL VOC
    Case(
        "only one split in CVAT's lists",
        "voc",
        lambda f: (
            (f / "ImageSets/Segmentation/train.txt").unlink(),
            (f / "ImageSets/Segmentation/val.txt").rename(f / "ImageSets/Segmentation/Train.txt"),
        ),
        "{}/ImageSets/Segmentation: expected val.txt or test.txt, a list of names for another split than training, "
        "beside Train.txt; add it, or call the one list trainval.txt to have it divided",
    ),
    Case(
        "exported without images",
        "voc",
        lambda f: (f / "JPEGImages").rename(f / "SegmentationObject"),
        "{}: expected the images in JPEGImages, found ImageSets, SegmentationClass, SegmentationObject; export them "
        "with the masks (CVAT: 'Save images')",
    ),
    Case(
        "folder is no VOC",
        "voc",
        lambda f: (f / "SegmentationClass").rename(f / "SegmentationObject"),
        "{}: expected JPEGImages, SegmentationClass and ImageSets/Segmentation, "
        "found ImageSets, JPEGImages, SegmentationObject",
    ),
    Case(
        "VOC list is missing",
        "voc",
        lambda f: (f / "ImageSets/Segmentation/val.txt").unlink(),
        "{}/ImageSets/Segmentation: expected val.txt or test.txt, a list of names for another split than training, "
        "beside train.txt; add it, or call the one list trainval.txt to have it divided",
    ),
    Case(
        "VOC list is empty",
        "voc",
        lambda f: (f / "ImageSets/Segmentation/train.txt").write_bytes(b""),
        "{}/ImageSets/Segmentation/train.txt: expected a name on each line, found none",
    ),
    Case(
        "VOC lists overlap",
        "voc",
        lambda f: write_list(f / "ImageSets/Segmentation/val.txt", ["2007_000001"]),
        "2007_000001: is named in train.txt and in val.txt, as 1 in all; test with images that were not trained on",
    ),
    Case(
        "VOC image is missing",
        "voc",
        lambda f: (f / "JPEGImages/2007_000001.jpg").unlink(),
        "{}/JPEGImages/2007_000001.jpg: this image is named in train.txt but is not there",
    ),
    Case(
        "VOC mask is missing",
        "voc",
        lambda f: (f / "SegmentationClass/2007_000004.png").unlink(),
        "{}/SegmentationClass/2007_000004.png: this mask is named in val.txt but is not there",
    ),
    Case(
        "VOC label outside the classes",
        "voc",
        lambda f: save(with_palette(labels(0, 15, 21)), f / "SegmentationClass/2007_000001.png"),
        "{}/SegmentationClass/2007_000001.png: 30.0% of the pixels have a colour that is not in the colour table, the "
        "first (128, 64, 128) of value 21 at row 0, column 28; add it, or name the classes without colours if the "
        "masks' values are labels",
    ),
    Case(
        "VOC grey label outside the classes",
        "voc",
        lambda f: save(labels(0, 15, 21), f / "SegmentationClass/2007_000001.png"),
        "{}/SegmentationClass/2007_000001.png: label 21 at row 0, column 28 is outside the 21 classes: "
        "expected 0 to 20, or 255 for ignored pixels",
    ),
    Case(
        "VOC colour that is none",
        "voc",
        lambda f: save(red(at=(3, 4)), f / "SegmentationClass/2007_000001.png"),
        "{}/SegmentationClass/2007_000001.png: 0.1% of the pixels have a colour that is not in the colour table, "
        "the first (255, 0, 0) at row 3, column 4; add it, or save the mask without smooth edges",
    ),
    Case(
        "VOC mask of another size",
        "voc",
        lambda f: save(with_palette(labels(0, 15)[:, :30]), f / "SegmentationClass/2007_000001.png"),
        "{0}/SegmentationClass/2007_000001.png: expected the size of its image {0}/JPEGImages/2007_000001.jpg, "
        "40 x 30 pixels, found 30 x 30; save the mask at the image's size",
    ),
]
WRITERS = {"pets": write_pets, "pairs": write_pairs, "voc": write_voc}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_bad_data_is_told_in_one_line(case: Case, tmp_path: Path) -> None:
    folder = WRITERS[case.kind](tmp_path / "set")
    data = f"{'voc' if case.kind == 'voc' else 'folder'}:{folder}"
    good = load_dataset(data, None, 32, tmp_path / "good")  # so that the mistake alone can be the cause
    assert sum(map(len, good.splits.values())) == 5
    case.spoil(folder)
    with pytest.raises(BadData) as raised:
        load_dataset(data, None, 32, tmp_path / "cache")
    assert_message(str(raised.value), case.message.format(folder.resolve()))
    assert not any(not entry.name.endswith(".lock") for entry in (tmp_path / "cache").glob("*"))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (
            "cifar10",
            BadSettings,
            f"{NO_KIND}, found 'cifar10'; there is no {Path.cwd()}/cifar10",
        ),
        (
            "folder:",
            BadSettings,
            f"{NO_KIND}, found 'folder:'",
        ),
        (
            "vok:/data",
            BadSettings,
            f"{NO_KIND}, found 'vok:/data'; did you mean voc:PATH?",
        ),
        (
            "folder:~nosuch/x",
            BadSettings,
            "--data folder:~nosuch/x: there is no home of ~nosuch; name the place in full",
        ),
        ("folder:/no/such", BadData, "--data folder:/no/such: expected a folder, found nothing at /no/such"),
        (f"voc:{__file__}", BadData, f"--data voc:{__file__}: expected a folder, found a file at {__file__}"),
    ],
)
def test_bad_setting_data_is_told_in_one_line(data: str, error: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(error) as raised:
        load_dataset(data, None, 32, tmp_path)
    assert_message(str(raised.value), message)


@pytest.mark.parametrize(("blur", "count"), [(0, 5), (0, 60), (2, 5), (2, 60)])
def test_smooth_edges_are_no_classes(blur: int, count: int, tmp_path: Path) -> None:
    """Of few masks the values have gaps; of many there are all of 0 to 255."""
    write_pairs(tmp_path, count=count)
    for i in range(count):
        mask = np.asarray(smooth(i % 12).resize((SIZE[0] * 4, SIZE[1] * 4)).filter(ImageFilter.GaussianBlur(blur)))
        save(mask, tmp_path / "masks" / f"p{i}.png")
        save(picture(i).resize((SIZE[0] * 4, SIZE[1] * 4)), tmp_path / "images" / f"p{i}.jpg")
    with pytest.raises(BadData) as raised:
        load_dataset(f"folder:{tmp_path}", None, 32, tmp_path / "cache")
    message = str(raised.value)
    assert message.startswith(
        f"{tmp_path}/masks: masks have smooth edges: beside the values that fill areas (0, 255), "
    )
    assert message.endswith("lie at the borders between them; give --mask-threshold 127 if they are of one class")


def test_many_classes_and_thin_ones_are_no_smooth_edges(tmp_path: Path) -> None:
    """Classes in areas of their own, whatever their number; lines; and a border class between two others."""
    many = np.kron(np.arange(40).reshape(5, 8), np.ones((6, 5), int)).astype(np.uint8)
    lines = labels(0, 2)
    lines[::5] = 1
    border = labels(0, 2)
    border[:, 19:21] = 1
    for name, mask in (("many", many), ("lines", lines), ("border", border)):
        folder = write_pairs(tmp_path / name, mask=mask)
        dataset = load_dataset(f"folder:{folder}", None, 32, tmp_path / "cache")
        assert len(dataset.classes) == int(mask.max()) + 1


READ_AS_NOBODY = """
import os, sys
from pathlib import Path
from trainer.data.cache import load_dataset
from maskfleet.errors import BadData
load_dataset(sys.argv[1], None, 32, Path(sys.argv[3], "of root"))
os.chmod(sys.argv[3], 0o777)
os.chmod(sys.argv[2], 0)
os.setgroups([])
os.setgid(20001)
os.setuid(20001)
try:
    load_dataset(sys.argv[1], None, 32, Path(sys.argv[3]))
except BadData as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("images/p1.jpg", "{0}/images/p1.jpg: can't be read: Permission denied; let this user read it (chmod a+r)"),
        ("masks/p1.png", "{0}/masks/p1.png: can't be read: Permission denied; let this user read it (chmod a+r)"),
        (
            "images",
            "--data folder:{0}: {0}/images can't be read: Permission denied; let this user read it (chmod a+rX)",
        ),
        ("classes.txt", "{0}/classes.txt: expected text with a name on each line: Permission denied"),
    ],
)
def test_what_may_not_be_read_is_told_as_such(place: str, message: str, tmp_path: Path) -> None:
    """Not as a damaged file that is to be replaced."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    folder = write_pairs(tmp_path / "set", classes=["a", "b", "c"])
    command = [sys.executable, "-c", READ_AS_NOBODY, f"folder:{folder}", str(folder / place), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == message.format(folder) + "\n", done.stderr


def assert_message(found: str, expected: str) -> None:
    """A star at the end stands for words of the image library."""
    assert "\n" not in found
    if expected.endswith("*"):
        assert found.startswith(expected[:-1])
        assert len(found) > len(expected)
    else:
        assert found == expected
