"""A step that does not fit the memory."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.processes import SETTINGS, launcher

LARGE = """
import tensorflow as tf


def loss(masks, logits):
    count = 1 << 44 if (masks.shape[0] or 0) > 2 else 1  # not yet in the trial on two examples
    much = tf.random.stateless_uniform([count], seed=[0, 0])
    return tf.reduce_mean(logits, axis=[1, 2, 3]) + tf.reduce_mean(much)
"""


def test_what_to_change_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "large.py").write_text(LARGE)
    settings = (*SETTINGS, f"--code={tmp_path}", "--loss=large:loss", "--spare=off")
    done = launcher("run", f"--run-dir={tmp_path / 'run'}", "--", *settings)
    assert done.returncode == 1, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "OOM" in line]
    assert (
        "a step does not fit the memory of the GPU or the machine: OOM when allocating tensor with shape[1759" in line
    )
    assert "; lower --batch-per-replica (a larger --accumulate keeps the examples of a step) or --image-size" in line
    assert "Traceback" not in done.stdout
