"""Writes small data sets in the formats of annotation tools, and reads them back by numpy alone.

The readers here share nothing with the package: they look at each pixel's centre.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.helpers.data_folders import SIZE, picture, save

WIDTH, HEIGHT = SIZE
Points = Sequence[tuple[float, float]]
NAMES = ("cat", "dog")
"""Categories; what none covers is the background."""


class Drawn(NamedTuple):
    category: str
    points: Points


def scene(seed: int) -> list[Drawn]:
    """A large shape with a corner cut out, and a smaller one that lies on it and reaches beyond the picture."""
    x, y = 2 + seed, 3 + seed % 4
    large = [(x, y), (x + 20, y), (x + 20, y + 10), (x + 12, y + 10), (x + 12, y + 20), (x, y + 20)]
    small = [(x + 4, y + 5), (WIDTH + 3, y + 5), (WIDTH + 3, y + 8), (x + 4, y + 8)]
    return [Drawn("cat", large), Drawn("dog", small)]


def inside(points: Points) -> NDArray[np.bool_]:
    """The pixels (HEIGHT, WIDTH) whose centres are in a polygon, by the number of edges to their right."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    found = np.zeros((HEIGHT, WIDTH), bool)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if y0 != y1:
            found ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return found


def truth(shapes: Sequence[Drawn], labels: Mapping[str, int] | None = None) -> NDArray[np.uint8]:
    """The labels of shapes that lie over each other in this order; 0 beside them."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for shape in shapes:
        mask[inside(shape.points)] = (labels or {"cat": 1, "dog": 2})[shape.category]
    return mask


def flat(points: Points) -> list[float]:
    return [float(value) for point in points for value in point]


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Down the columns, those outside first."""
    values = mask.T.ravel()
    ends = np.flatnonzero(np.diff(values)) + 1
    counts = np.diff([0, *ends.tolist(), len(values)]).tolist()
    return [0, *counts] if values[0] else counts


def coco_document(pictures: Mapping[str, Sequence[Drawn]], ids: Sequence[int] = (3, 17)) -> dict[str, Any]:
    """Polygons; the ids of the two categories have gaps, as COCO's own have."""
    numbers = dict(zip(NAMES, ids, strict=True))
    annotations: list[dict[str, Any]] = []
    for image, shapes in enumerate(pictures.values(), 100):
        for shape in reversed(shapes):  # the order says nothing
            annotations.append({
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": numbers[shape.category],
                "segmentation": [flat(shape.points)],
                "iscrowd": 0,
            })  # fmt: skip
    return {
        "images": [
            {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(pictures, 100)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }


def write_json(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def write_coco(folder: Path) -> Path:
    """COCO's own layout: train2017 and val2017 beside annotations."""
    for split, seeds in (("train2017", range(3)), ("val2017", range(3, 5))):
        for seed in seeds:
            save(picture(seed), folder / split / f"{seed:012}.jpg")
        document = coco_document({f"{seed:012}.jpg": scene(seed) for seed in seeds})
        write_json(folder / "annotations" / f"instances_{split}.json", document)
        write_json(folder / "annotations" / f"captions_{split}.json", {"images": [], "annotations": []})
    return folder


def write_roboflow(folder: Path) -> Path:
    """Three splits with the pictures beside each file, and a category that only holds the others together."""
    for split, seeds in (("train", range(3)), ("valid", range(3, 4)), ("test", range(4, 6))):
        for seed in seeds:
            save(picture(seed), folder / split / f"p{seed}.jpg")
        document = coco_document({f"p{seed}.jpg": scene(seed) for seed in seeds}, ids=(1, 2))
        document["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})
        for category in document["categories"][1:]:
            category["supercategory"] = "animals"
        write_json(folder / split / "_annotations.coco.json", document)
    return folder


def write_yolo(folder: Path) -> Path:
    """Ultralytics' layout, with data.yaml; the last picture has no text."""
    for split, seeds in (("train", range(3)), ("val", range(3, 4)), ("test", range(4, 6))):
        for seed in seeds:
            save(picture(seed), folder / "images" / split / f"p{seed}.jpg")
            lines = [
                " ".join([
                    str(NAMES.index(shape.category)),
                    *(repr(min(1.0, share)) for share in (np.array(shape.points) / SIZE).ravel().tolist()),
                ])
                for shape in scene(seed)
            ]  # fmt: skip
            text = folder / "labels" / split / f"p{seed}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            if seed < 5:
                text.write_text("\r\n".join(lines) + "\r\n")
    lines = ["path: .", "train: images/train", "val: images/val", "test: images/test", "nc: 2", "names: [cat, dog]"]
    (folder / "data.yaml").write_text("\n".join(lines))
    return folder


def write_yolo_folder(folder: Path) -> Path:
    """As Label Studio exports: no YAML, no splits."""
    write_yolo(folder)
    (folder / "data.yaml").unlink()
    for kind in ("images", "labels"):
        for file in list((folder / kind).glob("*/*")):
            file.rename(folder / kind / file.name)
        for place in list((folder / kind).glob("*/")):
            place.rmdir()
    (folder / "classes.txt").write_text("cat\ndog")
    return folder


def labelme_document(name: str, shapes: Sequence[Drawn]) -> dict[str, Any]:
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": [
            {"label": shape.category, "points": [list(map(float, p)) for p in shape.points], "shape_type": "polygon"}
            for shape in shapes
        ],
        "imagePath": name,
        "imageData": base64.b64encode(b"a picture").decode(),
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }


def write_labelme_json(folder: Path) -> Path:
    """A JSON beside each of five pictures."""
    for seed in range(5):
        save(picture(seed), folder / f"p{seed}.jpg")
        write_json(folder / f"p{seed}.json", labelme_document(f"..\\pictures\\p{seed}.jpg", scene(seed)))
    return folder


def cvat_text(pictures: Mapping[str, Sequence[Drawn]], subsets: Mapping[str, str] | None = None) -> str:
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        "<annotations>",
        "<version>1.1</version>",
        "<meta><task><labels>",
    ]
    lines += [f"<label><name>{name}</name><color>#fa32{i}3</color></label>" for i, name in enumerate(NAMES)]
    lines.append("</labels></task></meta>")
    for number, (name, shapes) in enumerate(pictures.items()):
        subset = f' subset="{subsets[name]}"' if subsets else ""
        lines.append(f'<image id="{number}" name={quoteattr(name)}{subset} width="{WIDTH}" height="{HEIGHT}">')
        for order, shape in sorted(enumerate(shapes), reverse=True):
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in shape.points)
            lines.append(
                f'<polygon label="{shape.category}" points="{points}" occluded="0" z_order="{order}"></polygon>'
            )
        lines.append("</image>")
    return "\n".join([*lines, "</annotations>"])


def write_cvat_images(folder: Path) -> Path:
    """CVAT for images 1.1 with three subsets."""
    names = [f"p{seed}.jpg" for seed in range(6)]
    for seed, name in enumerate(names):
        save(picture(seed), folder / "images" / name)
    subsets = dict(zip(names, ["Train", "Train", "Train", "Validation", "Test", "Test"], strict=True))
    text = cvat_text({name: scene(seed) for seed, name in enumerate(names)}, subsets)
    (folder / "annotations.xml").write_text(text)
    return folder


def png_in_base64(mask: NDArray[np.bool_]) -> str:
    content = io.BytesIO()
    Image.fromarray(mask).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def write_cityscapes(folder: Path, kind: str = "labelIds") -> Path:
    """Two cities for training, one for validation, and test pictures whose masks are empty."""
    values = {"labelIds": (7, 26, 33, 4), "labelTrainIds": (0, 13, 18, 255)}[kind]
    stripes = np.repeat(np.array(values, np.uint8), WIDTH // 4)[None].repeat(HEIGHT, axis=0)
    frames = [("train", "aachen", 0), ("train", "bochum", 1), ("val", "munster", 2), ("test", "berlin", 3)]
    for split, city, seed in frames:
        name = f"{city}_000000_00000{seed}"
        save(picture(seed), folder / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
        mask = stripes if split != "test" else np.full_like(stripes, 3 if kind == "labelIds" else 255)
        save(np.roll(mask, seed, axis=1), folder / "gtFine" / split / city / f"{name}_gtFine_{kind}.png")
        save(picture(9), folder / "gtFine" / split / city / f"{name}_gtFine_color.png")
    return folder


def write_ade20k(folder: Path) -> Path:
    """Values 0 (unlabelled), 1, 2 and 150; the names as its own table has them."""
    for split, seeds in (("training", range(3)), ("validation", range(3, 5))):
        for seed in seeds:
            name = f"ADE_{split[:5]}_0000000{seed}"
            save(picture(seed), folder / "images" / split / f"{name}.jpg")
            mask = np.repeat(np.array([0, 1, 2, 150], np.uint8), WIDTH // 4)[None].repeat(HEIGHT, axis=0)
            save(np.roll(mask, seed, axis=1), folder / "annotations" / split / f"{name}.png")
    names = ["wall", "building, edifice", *(f"thing {i}, other" for i in range(3, 150)), "flag"]
    rows = [f"{i}\t0.1\t{i}\t{i}\t{name}" for i, name in enumerate(names, 1)]
    (folder / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]))
    return folder
