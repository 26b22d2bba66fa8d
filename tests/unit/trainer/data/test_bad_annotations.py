"""Each mistake in annotations or a data file ends in one line: where, what was expected, what was found, what to do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from maskfleet.config import TrainConfig
from maskfleet.errors import BadData, BadSettings
from tests.helpers.annotated_folders import (
    HEIGHT,
    WIDTH,
    write_ade20k,
    write_cityscapes,
    write_coco,
    write_cvat_images,
    write_labelme_json,
    write_roboflow,
    write_yolo,
)
from tests.helpers.data_folders import labels, save, write_list, write_pairs
from trainer.data.verify import verify

COCO = "annotations/instances_train2017.json"
PIXELS = WIDTH * HEIGHT


class Case(NamedTuple):
    id: str
    write: Callable[[Path], Path]
    spoil: Callable[[Path], object]
    message: str
    """The whole message, with {} for the data set's folder."""
    data: str = "{}"


def pairs(folder: Path) -> Path:
    write_pairs(folder, mask=labels(0, 1))
    (folder / "data.yaml").write_text("names: [a, b]\nimages: images\nmasks: masks\n")
    return folder


def edit(name: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    """Changes a JSON file."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return spoil


def first(key: str, **changes: Any) -> Callable[[Path], object]:
    """Changes the first entry of a list in COCO's file."""
    return edit(COCO, lambda document: document[key][0].update(changes))


def replace(name: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new, 1))


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def pipe(name: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return spoil


def broken(name: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("/no/such/file")

    return spoil


def shape(**changes: Any) -> Callable[[Path], object]:
    return edit("p1.json", lambda document: document["shapes"][0].update(changes))


CASES = [
    # COCO
    Case(
        "cut",
        write_coco,
        lambda f: (f / COCO).write_text((f / COCO).read_text()[:200] + "\n"),
        "{}/annotations/instances_train2017.json: line 1, column 201: expected JSON: Invalid control "
        "character; is the file complete? export it again",
    ),
    Case(
        "no JSON",
        write_coco,
        text(COCO, '{\n"images": [],\n"annotations" []}'),
        "{}/annotations/instances_train2017.json: line 3, column 15: expected JSON: Expecting ':' "
        "delimiter; is the file complete? export it again",
    ),
    Case(
        "no text",
        write_coco,
        text(COCO, b"\xff\xfe{}"),
        "{}/annotations/instances_train2017.json: expected text in UTF-8, found byte 0xff",
    ),
    Case(
        "nested without end",
        write_coco,
        text(COCO, "[" * 200_000),
        "{}/annotations/instances_train2017.json: expected JSON of annotations, found lists nested without end",
    ),
    Case(
        "a number of many digits",
        write_coco,
        text(COCO, '{"images": ' + "9" * 5000 + "}"),
        "{}/annotations/instances_train2017.json: expected JSON of annotations, found a number of thousands of digits",
    ),
    Case(
        "no categories",
        write_coco,
        edit(COCO, lambda d: d.pop("categories")),
        "{}/annotations/instances_train2017.json: expected categories as a list, found none",
    ),
    Case(
        "no pictures",
        write_coco,
        edit(COCO, lambda d: d.update(images=[], annotations=[])),
        "{}/annotations/instances_train2017.json: expected images, found none",
    ),
    Case(
        "a picture is missing",
        write_coco,
        lambda f: (f / "train2017/000000000001.jpg").unlink(),
        "{}/annotations/instances_train2017.json: image 101: names the picture 000000000001.jpg, which is "
        "in none of {}/train2017, {}/annotations, {}; bring it back or remove it",
    ),
    Case(
        "a picture's name leads elsewhere",
        write_coco,
        first("images", file_name="../../../../etc/passwd"),
        "{}/annotations/instances_train2017.json: image 100: names the picture ../../../../etc/passwd, "
        "which is in none of {}/train2017, {}/annotations, {}; bring it back or remove it",
    ),
    Case(
        "a picture's name is none",
        write_coco,
        first("images", file_name=None),
        "{}/annotations/instances_train2017.json: image 100: expected file_name as text, found None",
    ),
    Case(
        "two pictures of one id",
        write_coco,
        first("images", id=101),
        "{}/annotations/instances_train2017.json: image 101: two images have this id",
    ),
    Case(
        "two pictures of one name",
        write_coco,
        first("images", file_name="000000000001.jpg"),
        "{} (train): 2 pictures are called train2017/000000000001 (000000000001.jpg, 000000000001.jpg); "
        "rename or remove one",
    ),
    Case(
        "a picture of another size",
        write_coco,
        first("images", width=80),
        "{}/annotations/instances_train2017.json: image train2017/000000000000: was annotated at 80 x 30 "
        "pixels, but {}/train2017/000000000000.jpg has 40 x 30; bring back the picture that was annotated",
    ),
    Case(
        "an annotation of no picture",
        write_coco,
        first("annotations", image_id=7),
        "{}/annotations/instances_train2017.json: annotation 1: names the image 7, which is not in images",
    ),
    Case(
        "an annotation of no category",
        write_coco,
        first("annotations", category_id=4),
        "{}/annotations/instances_train2017.json: annotation 1: names the category 4, which is not in categories",
    ),
    Case(
        "an annotation is a text",
        write_coco,
        edit(COCO, lambda d: d["annotations"].insert(0, "x")),
        "{}/annotations/instances_train2017.json: annotation at place 0: expected an object with image_id, found 'x'",
    ),
    Case(
        "two categories of one name",
        write_coco,
        first("categories", name="dog"),
        "{}/annotations/instances_train2017.json: category 17: is called dog, as category 3 is; rename "
        "one, or map both in a data file",
    ),
    Case(
        "two categories of one id",
        write_coco,
        first("categories", id=17),
        "{}/annotations/instances_train2017.json: category 17: two categories have this id, cat and dog",
    ),
    Case(
        "a category without a name",
        write_coco,
        first("categories", name=" "),
        "{}/annotations/instances_train2017.json: category 3: expected a name, found none",
    ),
    Case(
        "300 categories",
        write_coco,
        edit(COCO, lambda d: d["categories"].extend({"id": i, "name": f"c{i}"} for i in range(100, 400))),
        "{}: expected 2 to 255 classes, found 303: background, cat, dog",
    ),
    Case(
        "a box alone",
        write_coco,
        first("annotations", segmentation=[], bbox=[1, 2, 3, 4]),
        "{}/annotations/instances_train2017.json: annotation 1: expected a segmentation as polygons or "
        "run lengths, found a box alone",
    ),
    Case(
        "a polygon of two points",
        write_coco,
        first("annotations", segmentation=[[1, 1, 9, 9]]),
        "{}/annotations/instances_train2017.json: annotation 1: expected a polygon of 3 points or more, "
        "found 2; remove or redraw it",
    ),
    Case(
        "an odd number of coordinates",
        write_coco,
        first("annotations", segmentation=[[1, 1, 9, 9, 1, 9, 3]]),
        "{}/annotations/instances_train2017.json: annotation 1: expected a polygon as pairs of x and y, "
        "found 7 numbers",
    ),
    Case(
        "a coordinate is a text",
        write_coco,
        first("annotations", segmentation=[[1, 1, 9, 9, 1, "9"]]),
        "{}/annotations/instances_train2017.json: annotation 1: expected a polygon as numbers x, y, x, y "
        "…, found [1, 1, 9, 9, 1, '9']",
    ),
    Case(
        "a coordinate is NaN",
        write_coco,
        first("annotations", segmentation=[[1, 1, 9, 9, 1, float("nan")]]),
        "{}/annotations/instances_train2017.json: annotation 1: expected finite coordinates, found nan; redraw it",
    ),
    Case(
        "a coordinate is endless",
        write_coco,
        first("annotations", segmentation=[[1, 1, 9, 9, 1, 10**400]]),
        "{}/annotations/instances_train2017.json: annotation 1: expected a shape within its picture of 40 "
        "x 30 pixels, found a point at (1, 1e+300); was the picture scaled or cut after it was annotated?",
    ),
    Case(
        "a polygon outside the picture",
        write_coco,
        first("annotations", segmentation=[[50.5, 1, 60, 1, 60, 9]]),
        "{}/annotations/instances_train2017.json: annotation 1: expected a shape within its picture of 40 "
        "x 30 pixels, found a point at (50.5, 1); was the picture scaled or cut after it was annotated?",
    ),
    Case(
        "a polygon of a larger picture",
        write_coco,
        first("annotations", segmentation=[[1, 1, 800, 1, 800, 600]]),
        "{}/annotations/instances_train2017.json: annotation 1: expected a shape within its picture of 40 "
        "x 30 pixels, found a point at (800, 1); was the picture scaled or cut after it was annotated?",
    ),
    Case(
        "runs of another size",
        write_coco,
        first("annotations", segmentation={"size": [60, 80], "counts": [0, 4800]}),
        "{}/annotations/instances_train2017.json: annotation 1: expected run lengths of its picture's 40 "
        "x 30 pixels, found 80 x 60; export the annotations anew, with the pictures as they are now",
    ),
    Case(
        "runs of too few pixels",
        write_coco,
        first("annotations", segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 5]}),
        "{}/annotations/instances_train2017.json: annotation 1: expected run lengths of 1200 pixels together, found 10",
    ),
    Case(
        "huge runs",
        write_coco,
        first("annotations", segmentation={"size": [HEIGHT, WIDTH], "counts": [10**30]}),
        "{}/annotations/instances_train2017.json: annotation 1: expected run lengths of 1200 pixels "
        "together, found 1000000000000000000000000000000",
    ),
    Case(
        "runs below 0",
        write_coco,
        first("annotations", segmentation={"size": [HEIGHT, WIDTH], "counts": [-1, PIXELS + 1]}),
        "{}/annotations/instances_train2017.json: annotation 1: expected run lengths as counts from 0 on, "
        "found [-1, 1201]",
    ),
    Case(
        "runs that are a broken text",
        write_coco,
        first("annotations", segmentation={"size": [HEIGHT, WIDTH], "counts": "l~"}),
        "{}/annotations/instances_train2017.json: annotation 1: expected run lengths as COCO writes them, found 'l~'",
    ),
    Case(
        "runs without a size",
        write_coco,
        first("annotations", segmentation={"counts": [PIXELS]}),
        "{}/annotations/instances_train2017.json: annotation 1: expected run lengths with a size [height, "
        "width], found None",
    ),
    Case(
        "COCO's panoptic format",
        write_coco,
        first("annotations", segments_info=[]),
        "{}/annotations/instances_train2017.json: annotation 1: expected polygons or run lengths, found "
        "COCO's panoptic format; use the instances",
    ),
    Case(
        "two files of one split",
        write_roboflow,
        lambda f: shutil.copytree(f / "train", f / "train_b"),
        "{}: train/_annotations.coco.json and train_b/_annotations.coco.json are both of the split train; "
        "name one by --data coco:FILE, or those of each split in a data file",
    ),
    Case(
        "no file",
        write_pairs,
        lambda f: None,
        "{}: expected annotations/*.json or */_annotations.coco.json, found images, masks",
        data="coco:{}",
    ),
    # YOLO
    Case(
        "a box of YOLO",
        write_yolo,
        text("labels/train/p0.txt", "0 .5 .5 .1 .1\n"),
        "{}/labels/train/p0.txt: line 1: expected a polygon of 3 points or more, found a box (or two "
        "points); export the data set for segmentation, not for detection",
    ),
    Case(
        "pixels in YOLO",
        write_yolo,
        text("labels/train/p0.txt", "\ufeff0 .1 .1 20 30 .3 .4\r\n"),
        "{}/labels/train/p0.txt: line 1: expected shares of the picture's width and height from 0 to 1, "
        "found 20; divide pixels by them",
    ),
    Case(
        "a class that is none",
        write_yolo,
        text("labels/train/p0.txt", "0 0 0 1 0 1 1\n\n7 0 0 1 0 1 1\n"),
        "{}/labels/train/p0.txt: line 3: expected a class of names, 0 to 1, found 7",
    ),
    Case(
        "a word in YOLO",
        write_yolo,
        text("labels/train/p0.txt", "cat 0 0 1 0 1 1\n"),
        "{}/labels/train/p0.txt: line 1: expected numbers, a class and then x y x y …, found 'cat 0 0 1 0 1 1'",
    ),
    Case(
        "NaN in YOLO",
        write_yolo,
        text("labels/train/p0.txt", "0 0 0 1 nan 1 1\n"),
        "{}/labels/train/p0.txt: line 1: expected finite coordinates, found nan; redraw it",
    ),
    Case(
        "an odd number in YOLO",
        write_yolo,
        text("labels/train/p0.txt", "0 0 0 1 0 1 1 .5\n"),
        "{}/labels/train/p0.txt: line 1: expected a polygon as pairs of x and y, found 7 numbers",
    ),
    Case(
        "no labels",
        write_yolo,
        lambda f: shutil.rmtree(f / "labels"),
        "{}: expected a text with polygons for {}/images/train/p0.jpg at {}/labels/train/p0.txt",
        data="yolo:{}",
    ),
    # labelme
    Case(
        "labelme's picture is missing",
        write_labelme_json,
        lambda f: (f / "p1.jpg").unlink(),
        "{}/p1.json: names the picture p1.jpg, which is not beside it; bring it back or remove this",
    ),
    Case(
        "labelme of another size",
        write_labelme_json,
        edit("p1.json", lambda d: d.update(imageWidth=9)),
        "{}/p1.json: was annotated at 9 x 30 pixels, but {}/p1.jpg has 40 x 30; bring back the picture "
        "that was annotated",
    ),
    Case(
        "a shape that is none",
        write_labelme_json,
        shape(shape_type="star"),
        "{}/p1.json: shape 0 (cat): expected a polygon, rectangle, circle, line, point or mask, found 'star'",
    ),
    Case(
        "a shape without points",
        write_labelme_json,
        shape(points=[]),
        "{}/p1.json: shape 0 (cat): expected a polygon of 3 points or more, found 0; remove or redraw it",
    ),
    Case(
        "a circle of three points",
        write_labelme_json,
        shape(shape_type="circle", points=[[1, 1]] * 3),
        "{}/p1.json: shape 0 (cat): expected 2 points of a circle, found 3",
    ),
    Case(
        "points that are none",
        write_labelme_json,
        shape(points=[1, 2, 3]),
        "{}/p1.json: shape 0 (cat): expected points as pairs of x and y, found [1, 2, 3]",
    ),
    Case(
        "a shape without a label",
        write_labelme_json,
        shape(label=None),
        "{}/p1.json: shape 0: expected label as text, found None",
    ),
    Case(
        "a mask that is none",
        write_labelme_json,
        shape(shape_type="mask", points=[[1, 1], [3, 3]], mask="?"),
        "{}/p1.json: shape 0 (cat): expected a mask as a picture in base64, found '?'",
    ),
    Case(
        "a class that labels.txt lacks",
        write_labelme_json,
        text("labels.txt", "_background_\ndog\n"),
        "{}/labels.txt: expected all classes, found none called 'cat', as shapes are; add it",
    ),
    # CVAT
    Case(
        "XML is cut",
        write_cvat_images,
        lambda f: (f / "annotations.xml").write_text((f / "annotations.xml").read_text()[:300]),
        "{}/annotations.xml: line 9, column 1: expected XML: unclosed token; export it again",
    ),
    Case(
        "XML that grows",
        write_cvat_images,
        text("annotations.xml", '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><annotations>&c;</annotations>'),
        "{}/annotations.xml: expected annotations of CVAT, found XML with entities of its own",
    ),
    Case(
        "XML of something else",
        write_cvat_images,
        text("annotations.xml", "<html></html>"),
        "{}/annotations.xml: expected images of 'CVAT for images 1.1', found none",
    ),
    Case(
        "a video of CVAT",
        write_cvat_images,
        text("annotations.xml", "<annotations><track id='1'/></annotations>"),
        "{}/annotations.xml: expected images, found the tracks of a video; export 'CVAT for images 1.1'",
    ),
    Case(
        "CVAT's picture is missing",
        write_cvat_images,
        lambda f: (f / "images/p1.jpg").unlink(),
        "{}/annotations.xml: names the picture p1.jpg, which is not in {}/images; export with 'Save "
        "images', or put it there",
    ),
    Case(
        "CVAT of another size",
        write_cvat_images,
        replace("annotations.xml", 'width="40"', 'width="41"'),
        "{}/annotations.xml: image p0.jpg: was annotated at 41 x 30 pixels, but {}/images/p0.jpg has 40 x "
        "30; bring back the picture that was annotated",
    ),
    Case(
        "CVAT's points are none",
        write_cvat_images,
        replace("annotations.xml", 'points="', 'points="x'),
        "{}/annotations.xml: image p0.jpg: polygon 1: expected points as x,y;x,y …, found "
        "'x6.00,8.00;43.00,8.00;43.00,11.00;6.00,11.00'",
    ),
    Case(
        "CVAT's runs",
        write_cvat_images,
        replace(
            "annotations.xml",
            "</image>",
            '<mask label="cat" rle="3,1000000000000" left="0" top="0" width="2" height="2"/></image>',
        ),
        "{}/annotations.xml: image p0.jpg: mask 1: expected run lengths of 4 pixels together, found 1000000000003",
    ),
    # Cityscapes and ADE20K
    Case(
        "Cityscapes' mask is missing",
        write_cityscapes,
        lambda f: next(f.rglob("bochum*labelIds.png")).unlink(),
        "{}/leftImg8bit/train/bochum/bochum_000000_000001_leftImg8bit.png: this image has no mask "
        "{}/gtFine/train/bochum/bochum_000000_000001_gtFine_labelIds.png; unpack all of gtFine",
    ),
    Case(
        "a value that Cityscapes has not",
        write_cityscapes,
        lambda f: save(labels(7, 40), next(f.rglob("bochum*labelIds.png"))),
        "{}/gtFine/train/bochum/bochum_000000_000001_gtFine_labelIds.png: value 40 at row 0, column 20 is "
        "none of those that the classes have (-1, 0, 1, 2, 3, 4, 5, 6 …); add it to them (in "
        "classes.txt: '40 NAME' or '40 ignored', for all others '* ignored')",
    ),
    Case(
        "ADE20K's mask is missing",
        write_ade20k,
        lambda f: next(f.glob("annotations/training/*1.png")).unlink(),
        "{}/images/training/ADE_train_00000001.jpg: this image has no mask "
        "{}/annotations/training/ADE_train_00000001.png; add it or remove the image",
    ),
    Case(
        "ADE20K's names",
        write_ade20k,
        text("objectInfo150.txt", "Idx\tName\n1\twall\n"),
        "{}/objectInfo150.txt: expected a line for each value from 1 to 150, found 1",
    ),
    Case(
        "a value that ADE20K has not",
        write_ade20k,
        lambda f: save(labels(7, 151), next(f.glob("annotations/training/*1.png"))),
        "{}/annotations/training/ADE_train_00000001.png: value 151 at row 0, column 20 is none of those "
        "that the classes have (0, 1, 2, 3, 4, 5, 6, 7 …); add it to them (in classes.txt: '151 "
        "NAME' or '151 ignored', for all others '* ignored')",
    ),
    # The data file
    Case(
        "no YAML",
        pairs,
        text("data.yaml", "names: [a, b\nmasks: masks\n"),
        "{}/data.yaml: expected YAML or JSON: line 2, column 6: did not find expected ',' or ']'",
        data="{}/data.yaml",
    ),
    Case(
        "a tab",
        pairs,
        text("data.yaml", "names:\n\t- a\n"),
        "{}/data.yaml: expected YAML or JSON: line 2, column 1: found character that cannot start any token; indent "
        "with spaces instead of tabs",
        data="{}/data.yaml",
    ),
    Case(
        "nothing in it",
        pairs,
        text("data.yaml", "\n"),
        "{}/data.yaml: expected keys and values such as 'path: CATS', found nothing",
        data="{}/data.yaml",
    ),
    Case(
        "a key that is none",
        pairs,
        text("data.yaml", "nams: [a, b]\n"),
        "{}/data.yaml: nams: there is no such key (did you mean names?)",
        data="{}/data.yaml",
    ),
    Case(
        "names that YAML takes for something else",
        pairs,
        text("data.yaml", "names: [yes, no]\n"),
        "{}/data.yaml: names: expected names of classes as texts, a list or by their value (quote yes, no "
        "and numbers), found True",
        data="{}/data.yaml",
    ),
    Case(
        "names that grow",
        pairs,
        text("data.yaml", "a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]\n"),
        "{}/data.yaml: names: expected names of classes as texts, a list or by their value (quote yes, no "
        "and numbers), found [['x', 'x'], ['x', 'x']]",
        data="{}/data.yaml",
    ),
    Case(
        "a root that is not there",
        pairs,
        text("data.yaml", "path: cats\nnames: [a, b]\n"),
        "{}/data.yaml: path: expected a folder, found nothing at {}/cats; it is relative to this file, and without it "
        "the data lies beside this file",
        data="{}/data.yaml",
    ),
    Case(
        "a split that is not there",
        pairs,
        text("data.yaml", "train: img\nnames: [a, b]\n"),
        "{}/data.yaml: train: expected a folder of pictures or a list of them (.txt), found nothing at {}/img",
        data="{}/data.yaml",
    ),
    Case(
        "a list that names what is not there",
        pairs,
        lambda f: (
            write_list(f / "train.txt", ["images/p0.jpg", "images/p9.jpg"]),
            text("data.yaml", "train: train.txt\nmasks: masks\nnames: [a, b]\n")(f),
        ),
        "{}/train.txt: names images/p9.jpg, but there is no such file; {}/images/p9.jpg",
        data="{}/data.yaml",
    ),
    Case(
        "a picture in two splits",
        pairs,
        lambda f: (
            write_list(f / "train.txt", ["images/p0.jpg", "images/p1.jpg"]),
            write_list(f / "val.txt", ["images/p1.jpg"]),
            text("data.yaml", "train: train.txt\nval: val.txt\nmasks: masks\nnames: [a, b]\n")(f),
        ),
        "{}: {}/images/p1.jpg is in the train split and in the validation split; test with images that "
        "were not trained on",
        data="{}/data.yaml",
    ),
    Case(
        "masks that are not there",
        pairs,
        text("data.yaml", "images: images\nmasks: gt\nnames: [a, b]\n"),
        "{}: expected masks of the images in {}/images at {}/gt, found no such folder",
        data="{}/data.yaml",
    ),
    Case(
        "a mapping to no class",
        pairs,
        text("data.yaml", "images: images\nmasks: masks\nnames: [road, car]\nmapping: {0: raod}\n"),
        "{}/data.yaml: mapping: 0: there is no class 'raod' in names (did you mean road?)",
        data="{}/data.yaml",
    ),
    Case(
        "a mapping to no number",
        pairs,
        text("data.yaml", "images: images\nmasks: masks\nnames: [road, car]\nmapping: {0: 5}\n"),
        "{}/data.yaml: mapping: 0: there is no class 5 in names",
        data="{}/data.yaml",
    ),
    Case(
        "a mapping without names",
        pairs,
        text("data.yaml", "images: images\nmasks: masks\nmapping: {0: a}\n"),
        "{}/data.yaml: expected names, the classes that mapping names",
        data="{}/data.yaml",
    ),
    Case(
        "a mapping from no category",
        write_coco,
        text("data.yaml", f"train: {COCO}\nmapping: {{cats: dog}}\n"),
        "{}/data.yaml: mapping: there is no category 'cats' (did you mean 'cat'?)",
        data="{}/data.yaml",
    ),
    Case(
        "a category that names lacks",
        write_coco,
        text("data.yaml", f"train: {COCO}\nnames: [dog, cats]\n"),
        "{}/data.yaml: the category 'cat' is none of the classes (did you mean 'cats'?); name it, or map "
        "it to one of them or to ignored",
        data="{}/data.yaml",
    ),
    Case(
        "another number of names",
        pairs,
        text("data.yaml", "names: [a, b]\nnc: 3\n"),
        "{}/data.yaml: nc: expected 2, the number of names, found 3",
        data="{}/data.yaml",
    ),
    Case(
        "a colour that is none",
        pairs,
        text("data.yaml", "names: [a, b]\ncolours: {a: [1, 2, 300]}\n"),
        "{}/data.yaml: colours: expected red, green and blue from 0 to 255 for each class, such as 'road: "
        "[128, 64, 128]', found 300",
        data="{}/data.yaml",
    ),
    Case(
        "a colour of no class",
        pairs,
        text("data.yaml", "names: [a, b]\ncolours: {c: [1, 2, 3]}\n"),
        "{}/data.yaml: colours: there is no class 'c' in names (there are a, b)",
        data="{}/data.yaml",
    ),
    Case(
        "a format that is none",
        pairs,
        text("data.yaml", "format: darknet\nnames: [a, b]\n"),
        "{}/data.yaml: format: expected folder, voc, coco, yolo, labelme, cvat, cityscapes, ade20k, found 'darknet'",
        data="{}/data.yaml",
    ),
    Case(
        "a value that is no class",
        pairs,
        text("data.yaml", "images: images\nmasks: masks\nnames: {0: a, 2: b}\n"),
        "{}/masks/p0.png: value 1 at row 0, column 20 is none of those that the classes have (0, 2, 255); "
        "add it to them (in classes.txt: '1 NAME' or '1 ignored', for all others '* ignored')",
        data="{}/data.yaml",
    ),
    Case(
        "what is for masks with shapes",
        write_coco,
        text("data.yaml", f"train: {COCO}\nmasks: masks\n"),
        "{}/data.yaml: masks: is for data with masks, and this is coco",
        data="{}/data.yaml",
    ),
    Case(
        "what is for shapes with masks",
        pairs,
        text("data.yaml", "images: images\nmasks: masks\nnames: [a, b]\nuncovered: ignored\n"),
        "{}/data.yaml: uncovered: is for data with shapes, and this is folder",
        data="{}/data.yaml",
    ),
    # A path by itself
    Case(
        "nothing that is known",
        pairs,
        lambda f: [e.rename(f / f"x{e.name}.bin") for e in list(f.iterdir())],
        "--data {}: expected images and masks, a data file (data.yaml), or the folders of VOC, COCO, "
        "labelme, CVAT, Cityscapes or ADE20K, found xdata.yaml.bin, ximages.bin, xmasks.bin; a data "
        "file (data.yaml with images, masks, mask_pattern and names) says where pictures and masks are",
    ),
    Case(
        "a file of another kind",
        pairs,
        lambda f: None,
        "--data {}/masks/p1.png: expected a folder, a data file (.yaml), COCO's .json or CVAT's .xml, found p1.png",
        data="{}/masks/p1.png",
    ),
    # Arrays
    Case(
        "an array of objects",
        pairs,
        lambda f: (np.save(f / "masks/p1.npy", np.array([[{}]], object)), (f / "masks/p1.png").unlink()),
        "{}/masks/p1.npy: expected a NumPy array of numbers, replace or remove it: Array can't be "
        "memory-mapped: Python objects in dtype.",
        data="{}/data.yaml",
    ),
    Case(
        "an array of a channel for each class",
        pairs,
        lambda f: (np.save(f / "masks/p1.npy", np.zeros((30, 40, 7))), (f / "masks/p1.png").unlink()),
        "{}/masks/p1.npy: expected an array of height x width, found 30 x 40 x 7 of float64; take the "
        "place of the largest, if it has a channel for each class (numpy.argmax)",
        data="{}/data.yaml",
    ),
    Case(
        "an array of fractions",
        pairs,
        lambda f: (np.save(f / "masks/p1.npy", np.full((30, 40), 0.5)), (f / "masks/p1.png").unlink()),
        "{}/masks/p1.npy: expected labels as whole numbers, found 0.5 at row 0, column 0; save it as PNG "
        "with a value for each class, and 255 where none is known; --mask-threshold 0.5 reads shares of one class",
        data="{}/data.yaml",
    ),
    Case(
        "an array that is cut",
        pairs,
        lambda f: ((f / "masks/p1.npy").write_bytes(b"\x93NUMPY\x01\x00"), (f / "masks/p1.png").unlink()),
        "{}/masks/p1.npy: expected a NumPy array of numbers, replace or remove it: EOF: reading array "
        "header length, expected 2 bytes got 0",
        data="{}/data.yaml",
    ),
    # Links, pipes and devices
    Case(
        "COCO's file is a pipe",
        write_coco,
        pipe(COCO),
        "{}/annotations/instances_train2017.json: expected a file, found a pipe or device; remove it",
    ),
    Case(
        "COCO's file is a broken link",
        write_coco,
        broken(COCO),
        "{}/annotations/instances_train2017.json: is a link to /no/such/file, which is not there; mend or remove it",
    ),
    Case(
        "YOLO's text is a pipe",
        write_yolo,
        pipe("labels/train/p0.txt"),
        "{}/labels/train/p0.txt: expected a file, found a pipe or device; remove it",
    ),
    Case(
        "YOLO's text is a broken link",
        write_yolo,
        broken("labels/train/p0.txt"),
        "{}/labels/train/p0.txt: is a link to /no/such/file, which is not there; mend or remove it",
    ),
    Case(
        "YOLO's text is a folder",
        write_yolo,
        lambda f: ((f / "labels/train/p0.txt").unlink(), (f / "labels/train/p0.txt").mkdir()),
        "{}/labels/train/p0.txt: expected a file, found a folder; remove it",
    ),
    Case(
        "a picture is a pipe",
        write_yolo,
        pipe("images/train/p0.jpg"),
        "{}/images/train/p0.jpg: expected a file, found a pipe or device; remove it",
    ),
    Case(
        "a picture is a broken link",
        write_yolo,
        broken("images/train/p0.jpg"),
        "{}/images/train/p0.jpg: is a link to /no/such/file, which is not there; mend or remove it",
    ),
    Case(
        "a picture is a device",
        pairs,
        lambda f: ((f / "images/p1.jpg").unlink(), (f / "images/p1.jpg").symlink_to("/dev/zero")),
        "{}/images/p1.jpg: expected a file, found a pipe or device; remove it",
        data="folder:{}",
    ),
    Case(
        "a mask is a pipe",
        pairs,
        pipe("masks/p1.png"),
        "{}/masks/p1.png: expected a file, found a pipe or device; remove it",
        data="folder:{}",
    ),
    Case(
        "a link that leads around",
        write_labelme_json,
        lambda f: (f / "again").symlink_to(f),
        "{}/again: is a link to {}, a folder that it lies in; remove it",
    ),
    Case(
        "a link to itself",
        pairs,
        lambda f: ((f / "images/p1.jpg").unlink(), (f / "images/p1.jpg").symlink_to("p1.jpg")),
        "{}/images/p1.jpg: is a link to p1.jpg, which is not there; mend or remove it",
        data="folder:{}",
    ),
    Case(
        "labelme's file is a pipe",
        write_labelme_json,
        pipe("p1.json"),
        "{}/p1.json: expected a file, found a pipe or device; remove it",
    ),
    Case(
        "CVAT's file is a pipe",
        write_cvat_images,
        pipe("annotations.xml"),
        "{}/annotations.xml: expected a file, found a pipe or device; remove it",
    ),
    Case(
        "a mask of Cityscapes is a broken link",
        write_cityscapes,
        lambda f: broken(str(next(f.rglob("bochum*labelIds.png")).relative_to(f)))(f),
        "{}/gtFine/train/bochum/bochum_000000_000001_gtFine_labelIds.png: is a link to /no/such/file, which is not "
        "there; mend or remove it",
    ),
    Case(
        "a broken link to the classes",
        pairs,
        broken("classes.txt"),
        "{}/classes.txt: expected text with a name on each line: No such file or directory",
        data="folder:{}",
    ),
    Case(
        "the data is a pipe",
        pairs,
        pipe("x"),
        "--data {}/x: expected a folder or a file, found a pipe or device",
        data="{}/x",
    ),
    # Names
    Case(
        "a class of half a letter",
        write_coco,
        first("categories", name="\ud800"),
        "{}: expected a name of a class in plain text, found \\ud800; rename it",
    ),
    Case(
        "a class with control characters",
        write_labelme_json,
        shape(label="a\x1b[2J\n"),
        "{}: expected a name of a class in plain text, found a\\x1b[2J\\n; rename it",
    ),
    Case(
        "a class without a name",
        write_labelme_json,
        shape(label=" "),
        "{}: expected a name of each class, found an empty one",
    ),
    Case(
        "a class of a long name",
        write_coco,
        first("categories", name="c" * 5000),
        "{}: expected a name of a class, found one of 5000 characters",
    ),
    Case(
        "a picture of half a letter",
        write_coco,
        first("images", file_name="\ud800.jpg"),
        "{}/annotations/instances_train2017.json: image 100: names the picture \\ud800.jpg, which is in none of "
        "{}/train2017, {}/annotations, {}; bring it back or remove it",
    ),
    Case(
        "a picture that two files annotate",
        write_labelme_json,
        lambda f: shutil.copy(f / "p1.json", f / "p1b.json"),
        "{}: {}/p1.jpg is annotated twice, as p1 and as p1b; remove one",
    ),
    Case(
        "a class twice in a data file",
        write_yolo,
        text("data.yaml", "train: images/train\nval: images/val\nnames: [cat, cat]\n"),
        "{}/data.yaml: names: cat stands twice; give each class a name of its own",
    ),
    Case(
        "a key twice in a data file",
        write_yolo,
        text("data.yaml", "train: images/train\ntrain: images/val\nnames: [cat, dog]\n"),
        "{}/data.yaml: line 2: the key train stands on line 1 too; keep one",
    ),
    Case(
        "nobody's home",
        write_yolo,
        text("data.yaml", "path: ~nosuch/x\nnames: [cat, dog]\n"),
        "{}/data.yaml: path: there is no home of ~nosuch; name the place in full",
    ),
    Case(
        "a name with and without its suffix",
        pairs,
        lambda f: (write_list(f / "train.txt", ["p0", "p0.jpg", "p1"]), write_list(f / "test.txt", ["p3"])),
        "{}/train.txt: names p0 2 times, with and without what is behind it; remove the repetition",
        data="folder:{}",
    ),
    Case(
        "all other values twice",
        pairs,
        text("classes.txt", "* a\n* b\n"),
        "{}/classes.txt: gives all other values to two classes, the second b",
        data="folder:{}",
    ),
    # Of other tools, or half of it
    Case(
        "Label Studio's own JSON",
        write_coco,
        text(COCO, "[]"),
        "{}/annotations/instances_train2017.json: expected an object with images, annotations and categories, found "
        "a list; is it another tool's own format, as Label Studio's? export as COCO or YOLO",
    ),
    Case(
        "Cityscapes without its truth",
        write_cityscapes,
        lambda f: shutil.rmtree(f / "gtFine"),
        "--data {}: expected images and masks, a data file (data.yaml), or the folders of VOC, COCO, labelme, CVAT, "
        "Cityscapes or ADE20K, found leftImg8bit; Cityscapes is leftImg8bit and gtFine beside each other: unpack "
        "both archives here",
    ),
    Case(
        "a folder too high",
        lambda f: write_cityscapes(f / "city").parent,
        lambda f: None,
        "--data {}: expected images and masks, a data file (data.yaml), or the folders of VOC, COCO, labelme, CVAT, "
        "Cityscapes or ADE20K, found city; one folder below is cityscapes: --data {}/city",
    ),
    Case(
        "COCO's panoptic files alone",
        write_coco,
        lambda f: [
            each.rename(each.with_name(each.name.replace("instances", "panoptic")))
            for each in (f / "annotations").glob("inst*")
        ],
        "--data {}: expected images and masks, a data file (data.yaml), or the folders of VOC, COCO, labelme, CVAT, "
        "Cityscapes or ADE20K, found annotations, train2017, val2017; COCO's panoptic format is not read: take the "
        "instances, or stuff",
    ),
    Case(
        "packed data without its word",
        lambda f: f,
        lambda f: (f.mkdir(), [(f / name).touch() for name in ("manifest.json", "train.index.npy")]),
        "--data {}: expected images and masks, a data file (data.yaml), or the folders of VOC, COCO, labelme, CVAT, "
        "Cityscapes or ADE20K, found manifest.json, train.index.npy; this is packed data: --data packed:PATH",
    ),
    Case(
        "Supervisely's project",
        lambda f: f,
        lambda f: [(f / part).mkdir(parents=True) for part in ("ds0/img", "ds0/ann")],
        "--data {}: expected images and masks, a data file (data.yaml), or the folders of VOC, COCO, labelme, CVAT, "
        "Cityscapes or ADE20K, found ds0; Supervisely's own format is not read: export the project as COCO, as "
        "Cityscapes or as PASCAL VOC",
    ),
    Case(
        "the full ADE20K",
        lambda f: f,
        lambda f: (f / "ADE20K_2021_17_01").mkdir(parents=True),
        "--data {}: expected images and masks, a data file (data.yaml), or the folders of VOC, COCO, labelme, CVAT, "
        "Cityscapes or ADE20K, found ADE20K_2021_17_01; of ADE20K the scene parsing challenge is read: "
        "ADEChallengeData2016",
    ),
    Case(
        "boxes of PASCAL VOC",
        lambda f: f,
        lambda f: [(f / part).mkdir(parents=True) for part in ("JPEGImages", "Annotations")],
        "--data {}: expected images and masks, a data file (data.yaml), or the folders of VOC, COCO, labelme, CVAT, "
        "Cityscapes or ADE20K, found Annotations, JPEGImages; this has boxes alone: export the data set for "
        "segmentation, with SegmentationClass",
    ),
    Case(
        "archives",
        lambda f: f,
        lambda f: (f.mkdir(), (f / "set.zip").write_bytes(b"PK")),
        "--data {}: expected images and masks, a data file (data.yaml), or the folders of VOC, COCO, labelme, CVAT, "
        "Cityscapes or ADE20K, found set.zip; unpack the archives first",
    ),
    Case(
        "an archive",
        lambda f: f,
        lambda f: (f.mkdir(), (f / "set.zip").write_bytes(b"PK")),
        "--data {}/set.zip: expected a folder, a data file (.yaml), COCO's .json or CVAT's .xml, found set.zip; "
        "unpack it first",
        data="{}/set.zip",
    ),
    Case(
        "Roboflow's masks",
        lambda f: f,
        lambda f: [
            (f / split).mkdir(parents=True) or (f / split / "_classes.csv").write_text("Pixel Value, Class")
            for split in ("train", "valid")
        ],
        "--data {}: expected images and masks, a data file (data.yaml), or the folders of VOC, COCO, labelme, CVAT, "
        "Cityscapes or ADE20K, found train, valid; Roboflow's masks lie beside their pictures: a data file reads "
        "them (train: train, val: valid, test: test, masks: {train: train, val: valid, test: test}, mask_pattern: "
        "'{name}_mask', and the names in _classes.csv)",
    ),
]


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["cat", "images", "ignored"]),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=2),
    max_leaves=4,
)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all that is in a document; of a list, in its first entry."""
    entries = (
        content.items() if isinstance(content, dict) else enumerate(content[:1]) if isinstance(content, list) else ()
    )
    return [path] * bool(path) + [each for key, value in entries for each in places(value, (*path, key))]


@pytest.mark.parametrize(
    ("write", "name", "data"),
    [
        (write_coco, COCO, "coco:{}"),
        (write_labelme_json, "p1.json", "labelme:{}"),
        (pairs, "data.yaml", "{}/data.yaml"),
        (write_yolo, "data.yaml", "{}/data.yaml"),
    ],
)
@given(data_=st.data())
def test_anything_anywhere_in_a_document_is_read_or_bad_data(
    write: Callable[[Path], Path], name: str, data: str, data_: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"any-{write.__name__}"
    if not folder.exists():
        write(folder)
        (folder / name).rename(folder / f"{name}.good")
    content = yaml.safe_load((folder / f"{name}.good").read_text())
    *path, last = data_.draw(st.sampled_from(places(content)))
    part = content
    for key in path:
        part = part[key]
    part[last] = data_.draw(ANYTHING)
    write_out = yaml.safe_dump if name.endswith("yaml") else json.dumps
    (folder / name).write_text(write_out(content))
    assert "\n" not in first_problem(data.format(folder))


def first_problem(data: str) -> str:
    try:
        return verify(TrainConfig(data=data, image_size=32)).first_bad or "none"
    except (BadData, BadSettings) as error:
        return str(error)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_bad_annotations_are_told_in_one_line(case: Case, tmp_path: Path) -> None:
    folder = case.write(tmp_path / "set")
    case.spoil(folder)
    assert first_problem(case.data.format(folder)) == case.message.replace("{}", str(folder))
