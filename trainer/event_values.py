"""Values of TensorBoard summaries, without TensorFlow."""

from __future__ import annotations

import struct

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.image.metadata import create_summary_metadata as image_metadata
from tensorboard.util.tensor_util import make_tensor_proto


def image_value(tag: str, picture: bytes) -> Summary:
    """A PNG for TensorBoard."""
    width, height = struct.unpack(">II", picture[16:24])  # Pillow refuses to open pictures of many pixels
    metadata = image_metadata(display_name=None, description="")
    tensor = make_tensor_proto([str(width).encode(), str(height).encode(), picture])
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])
