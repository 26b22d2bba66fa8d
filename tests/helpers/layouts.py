"""Every layout and format of data, small, with the masks that are in it by numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.helpers.annotated_folders import (
    scene,
    truth,
    write_ade20k,
    write_cityscapes,
    write_coco,
    write_cvat_images,
    write_labelme_json,
    write_roboflow,
    write_yolo,
    write_yolo_folder,
)
from tests.helpers.data_folders import (
    labels,
    picture,
    save,
    with_palette,
    write_cvat,
    write_labelme,
    write_list,
    write_pairs,
    write_pets,
    write_voc,
)

Truth = Callable[[int], NDArray[np.uint8]]


class Layout(NamedTuple):
    id: str
    write: Callable[[Path], Path]
    """Gives what ``--data`` names."""
    classes: int
    truth: Truth
    """By the number in the picture's name, as the picture itself is by :func:`picture`."""
    flags: tuple[str, ...] = ()


def constant(*values: int) -> Truth:
    return lambda seed: labels(*values)


def rolled(*values: int) -> Truth:
    return lambda seed: np.roll(labels(*values), seed, axis=1)


def drawn(seed: int) -> NDArray[np.uint8]:
    return truth(scene(seed))


def drawn_without_last(seed: int) -> NDArray[np.uint8]:
    return drawn(seed) if seed < 5 else labels(0)


def pairs(masks: Callable[[int, Path], object], table: str = "", text: str = "") -> Callable[[Path], Path]:
    """Five pairs; ``masks`` writes that of each, whose path without suffix it gets."""

    def write(folder: Path) -> Path:
        for seed in range(5):
            save(picture(seed), folder / "images" / f"p{seed}.jpg")
            (folder / "masks").mkdir(exist_ok=True)
            masks(seed, folder / "masks" / f"p{seed}")
        if table:
            (folder / table).write_text(text)
        return folder

    return write


def png(truth: Truth, ending: str = ".png") -> Callable[[int, Path], object]:
    return lambda seed, file: save(truth(seed), file.with_name(file.name + ending))


def array(seed: int, file: Path) -> None:
    np.save(file.with_suffix(".npy"), rolled(0, 1, 2)(seed))


def coloured(seed: int, file: Path) -> None:
    colours = np.array([(10, 0, 0), (0, 20, 0), (0, 0, 30)], np.uint8)
    save(colours[rolled(0, 1, 2)(seed)], file.with_suffix(".png"))


def soft(seed: int, file: Path) -> None:
    save(rolled(0, 90, 160, 255)(seed), file.with_suffix(".jpg"))


def write_lists(folder: Path) -> Path:
    write_pairs(folder)
    for split, names in (("train", ["p0", "p1"]), ("val", ["p2"]), ("test", ["p3", "p4"])):
        write_list(folder / f"{split}.txt", names)
    return folder


def write_nested(above: bool) -> Callable[[Path], Path]:
    """Folders of the splits above or below images and masks."""

    def write(folder: Path) -> Path:
        for split, seeds in (("train", range(3)), ("val", range(3, 4)), ("test", range(4, 6))):
            for seed in seeds:
                for kind, content, suffix in (("images", picture(seed), "jpg"), ("masks", rolled(0, 1)(seed), "png")):
                    place = Path(split, kind) if above else Path(kind, split)
                    save(content, folder / place / f"p{seed}.{suffix}")
        return folder

    return write


def write_data_file(folder: Path) -> Path:
    """Ultralytics' semantic data sets."""
    write_nested(above=False)(folder)
    lines = ["train: images/train", "val: images/val", "test: images/test", "masks_dir: masks", "names: [a, b]"]
    (folder / "set.yaml").write_text("\n".join(lines))
    return folder / "set.yaml"


def write_links(folder: Path) -> Path:
    """Pictures on another disk, as it were, and the folder of the masks too."""
    elsewhere = write_pairs(folder.with_name(f"{folder.name}-elsewhere"))
    (folder / "images").mkdir(parents=True)
    for file in (elsewhere / "images").iterdir():
        (folder / "images" / file.name).symlink_to(file)
    (folder / "masks").symlink_to(elsewhere / "masks")
    return folder


LAYOUTS = [
    Layout("pairs", write_pairs, 3, constant(0, 1, 2)),
    Layout("lists", write_lists, 3, constant(0, 1, 2)),
    Layout("folders of splits below", write_nested(above=False), 2, rolled(0, 1)),
    Layout("folders of splits above", write_nested(above=True), 2, rolled(0, 1)),
    Layout("links", write_links, 3, constant(0, 1, 2)),
    Layout("masks with a suffix", pairs(png(rolled(0, 1), "_mask.png")), 2, rolled(0, 1)),
    Layout("arrays", pairs(array), 3, rolled(0, 1, 2)),
    Layout("values with gaps", pairs(png(rolled(7, 26, 0)), "classes.txt", "7 road\r\n26 car\r\n* ignored\r\n"), 2,
           rolled(0, 1, 255)),
    Layout("colours", pairs(coloured, "classes.txt", "\ufeffa 10 0 0\nb 0 20 0\nc 0 0 30\n"), 3, rolled(0, 1, 2)),
    Layout("class_dict.csv", pairs(coloured, "class_dict.csv", "name,r,g,b\na,10,0,0\nb,0,20,0\nc,0,0,30\n"), 3,
           rolled(0, 1, 2)),
    Layout("palette", pairs(lambda seed, file: save(with_palette(rolled(0, 1)(seed)), file.with_suffix(".png"))), 2,
           rolled(0, 1)),
    Layout("soft masks", pairs(soft), 2, rolled(0, 0, 1, 1), ("--mask-threshold", "125")),
    Layout("a data file", write_data_file, 2, rolled(0, 1)),
    Layout("Oxford-IIIT Pet", write_pets, 3, constant(1, 2, 0, 2, 1)),
    Layout("PASCAL VOC", write_voc, 21, constant(0, 15, 255, 20)),
    Layout("CVAT's masks", write_cvat, 3, constant(0, 1, 2)),
    Layout("labelme's masks", write_labelme, 3, constant(0, 1, 2, 255)),
    Layout("COCO", write_coco, 3, drawn),
    Layout("Roboflow's COCO", write_roboflow, 3, drawn),
    Layout("YOLO", write_yolo, 3, drawn_without_last),
    Layout("YOLO without YAML", write_yolo_folder, 3, drawn_without_last),
    Layout("labelme", write_labelme_json, 3, drawn),
    Layout("CVAT for images", write_cvat_images, 3, drawn),
    Layout("Cityscapes", write_cityscapes, 19, rolled(0, 13, 18, 255)),
    Layout("ADE20K", write_ade20k, 150, rolled(255, 0, 1, 149)),
]  # fmt: skip
