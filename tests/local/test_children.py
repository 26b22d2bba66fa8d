"""However the process that started it ends, a child of ours is not left behind.

Those of a run are killed in test_faults.py, its streamer in test_streamer_process.py.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.helpers.processes import until

PARENTS = {
    "tensorboard": "from launcher.operations.tensorboard import _run; _run([CHILD], print)",
    "a builder of images": "from launcher.image import _run; _run([CHILD])",
    "a training of compare": (
        "from trainer.results.compare import grid, train_all; from maskfleet.config import TrainConfig\n"
        "sys.executable = CHILD; list(train_all(grid(TrainConfig(), ['unet'], ['bilinear']), OUT))"
    ),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("kind", PARENTS)
def test_a_child_ends_with_its_parent(kind: str, number: signal.Signals, tmp_path: Path) -> None:
    child = tmp_path / "child"
    child.write_text("#!/bin/sh\nexec sleep 600\n")
    child.chmod(0o755)
    names = f"import sys; from pathlib import Path; CHILD, OUT = {str(child)!r}, Path({str(tmp_path)!r})"
    parent = psutil.Popen([sys.executable, "-c", f"{names}\n{PARENTS[kind]}"])
    try:
        children = until(lambda: parent.children() or parent.poll() is not None, "a child", 60)
        assert isinstance(children, list)
        parent.send_signal(number)
        parent.wait(10)
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            parent.kill()
        parent.wait()
