"""One example as the data of a TFRecord: a ``tf.train.Example`` with DeepLab's names, which plain tf.data reads too.

The messages are made here from their description (``tensorflow/core/example``), as importing TensorFlow's takes
seconds. Imports no TensorFlow.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from maskfleet.errors import BadData
from maskfleet.text import one_line
from trainer.data.images import read_picture
from trainer.data.source import Example, Image, Mask, Split

_NAME, _IMAGE, _MASK = "image/filename", "image/encoded", "image/segmentation/class/encoded"
_FORMAT, _MASK_FORMAT = "image/format", "image/segmentation/class/format"
_HEIGHT, _WIDTH = "image/height", "image/width"
_KEPT = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}
"""Files that are kept as they are, by how they begin, and what they are called."""
_QUALITY = 95
"""Of a JPEG that is made smaller."""


class Record(NamedTuple):
    """An example as it lies in a shard.

    Attributes:
        data: of the TFRecord.
        pixels: of its picture.
        mask: labels uint8 (H, W), at the size that is kept.
    """

    data: bytes
    pixels: int
    mask: Mask


def record_of(split: Split, i: int, max_side: int | None) -> Record:
    """Example ``i`` of ``split``.

    The picture's file stays as it is where it is a JPEG or PNG of 8 bits; all others become PNG. The mask is PNG, its
    labels as training has them.

    Args:
        max_side: of the larger side, pixels; a picture that is larger is scaled (antialiased, the mask with nearest
            neighbour), and becomes a JPEG if it was one.

    Raises:
        BadData: its files can't be read.
    """
    example, file = split.read(i), split.file(i)
    content = b"" if file is None or example.depth is not None else file.read_bytes()
    kind = next((kind for start, kind in _KEPT.items() if content.startswith(start)), None)
    image, mask = example.image, example.mask
    height, width = mask.shape
    if max_side is not None and max(height, width) > max_side:
        size = tuple(max(1, round(side * max_side / max(height, width))) for side in (width, height))
        smaller = PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.BILINEAR)
        mask = np.asarray(PIL.Image.fromarray(mask).resize(size, PIL.Image.Resampling.NEAREST))
        kind = kind or "png"
        content = _encoded(smaller, kind)
    elif kind is None:
        kind, content = "png", _encoded(PIL.Image.fromarray(image), "png")
    height, width = mask.shape
    data = _serialized(
        {
            _NAME: split.names[i].encode(),
            _IMAGE: content,
            _FORMAT: kind.encode(),
            _MASK: _encoded(PIL.Image.fromarray(mask), "png"),
            _MASK_FORMAT: b"png",
            _HEIGHT: height,
            _WIDTH: width,
        }
    )
    return Record(data, height * width, mask)


def example_of(data: bytes, where: str, max_pixels: int) -> Example:
    """Picture and mask of a record's data.

    Raises:
        BadData: it is no such record, or larger than ``max_pixels``; ``where`` names it.
    """
    try:
        message = _message_class()()
        message.ParseFromString(data)
        features = message.features.feature
        name, image, mask = (features[key].bytes_list.value[0] for key in (_NAME, _IMAGE, _MASK))
    except Exception as error:  # of protobuf, which has several, and of what is not there
        raise BadData(
            f"{where}: expected an example with image and mask, found none: {one_line(str(error))}"
        ) from error
    where = f"{where}, {one_line(os.fsdecode(name))}"
    pixels: Image = read_picture(io.BytesIO(image), where, max_pixels).pixels
    try:
        with PIL.Image.open(io.BytesIO(mask)) as picture:
            labels = np.asarray(picture)
    except Exception as error:  # Pillow's parsers raise a dozen types
        raise BadData(f"{where}: its mask can't be read: {one_line(str(error))}; pack the data anew") from error
    if labels.dtype != np.uint8 or labels.shape != pixels.shape[:2]:
        raise BadData(
            f"{where}: expected a mask of {pixels.shape[1]} x {pixels.shape[0]} labels, found "
            f"{' x '.join(map(str, labels.shape[::-1]))}; pack the data anew"
        )
    return Example(pixels, labels)


def _encoded(picture: PIL.Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": _QUALITY} if kind == "jpeg" else {}))
    return file.getvalue()


def _serialized(values: Mapping[str, bytes | int]) -> bytes:
    """The same bytes for the same values."""
    message = _message_class()()
    for key, value in values.items():
        feature = message.features.feature[key]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    data: bytes = message.SerializeToString(deterministic=True)
    return data


@functools.cache
def _message_class() -> Any:
    """The class of ``tensorflow.Example``, without the features of floats, which no record here has."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")

    def message(parent: Any, name: str, *fields: tuple[str, int, int, str]) -> Any:
        """A message with (name, number, type, message's name) for each of its fields; lists end with ``[]``."""
        made = parent.add(name=name)
        for field, number, kind, of in fields:
            label = kinds.LABEL_REPEATED if field.endswith("[]") else kinds.LABEL_OPTIONAL
            made.field.add(name=field.removesuffix("[]"), number=number, type=kind, label=label, type_name=of or None)
        return made

    message(file.message_type, "BytesList", ("value[]", 1, kinds.TYPE_BYTES, ""))
    message(file.message_type, "Int64List", ("value[]", 1, kinds.TYPE_INT64, ""))
    feature = message(
        file.message_type,
        "Feature",
        ("bytes_list", 1, kinds.TYPE_MESSAGE, ".tensorflow.BytesList"),
        ("int64_list", 3, kinds.TYPE_MESSAGE, ".tensorflow.Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message(
        file.message_type, "Features", ("feature[]", 1, kinds.TYPE_MESSAGE, ".tensorflow.Features.FeatureEntry")
    )
    entry = message(
        features.nested_type,
        "FeatureEntry",
        ("key", 1, kinds.TYPE_STRING, ""),
        ("value", 2, kinds.TYPE_MESSAGE, ".tensorflow.Feature"),
    )
    entry.options.map_entry = True
    message(file.message_type, "Example", ("features", 1, kinds.TYPE_MESSAGE, ".tensorflow.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))
