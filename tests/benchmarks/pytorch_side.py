"""What :mod:`tests.benchmarks.against_pytorch` compares with. TensorFlow and PyTorch do not go into one process."""

from __future__ import annotations

import os
from typing import Any

from tests.benchmarks.turns import Way

STEPS = 2
CLASSES = 3
_FILTERS = (512, 256, 128, 64)


def torch_steps(make: Any, batch: int, size: int, precision: str, *, compiled: bool) -> Way:
    """Steps of Adam over images that are normalised and flipped beforehand, as the encoder's own weights want them."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = make().to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, size, size).to(memory_format=torch.channels_last)
    masks = torch.randint(0, CLASSES, (batch, size, size))
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], fused=True)
    run_model = torch.compile(model) if compiled else model

    def run() -> None:
        for _ in range(STEPS):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                logits = run_model(images)
            loss = torch.nn.functional.cross_entropy(logits.float(), masks)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        loss.item()

    return run


def smp_unet() -> Any:
    import segmentation_models_pytorch as smp

    return smp.Unet("mobilenet_v2", encoder_weights=None, classes=CLASSES).train()


def tutorial_network() -> Any:
    """The network of the preset "tutorial": MobileNetV2, frozen, and a decoder of transposed convolutions."""
    import torch
    from torch import nn
    from torchvision.models import mobilenet_v2

    blocks = mobilenet_v2(weights=None).features
    # Keras's block_N_expand_relu is the first third of torchvision's block N + 1.
    channels = (96, 144, 192, 576, 320)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = blocks.requires_grad_(False).eval()
            inputs = (channels[-1], *(f + c for f, c in zip(_FILTERS, channels[-2::-1], strict=True)))
            options = {"stride": 2, "padding": 1, "output_padding": 1}
            self.up = nn.ModuleList(
                nn.Sequential(
                    nn.ConvTranspose2d(c, f, 3, bias=False, **options), nn.BatchNorm2d(f), nn.ReLU(inplace=True)
                )
                for c, f in zip(inputs, _FILTERS, strict=False)
            )
            self.last = nn.ConvTranspose2d(inputs[-1], CLASSES, 3, **options)

        @torch.no_grad()
        def features(self, x: Any) -> list[Any]:
            found = []
            for number, block in enumerate(self.encoder[:18]):
                if number in (2, 4, 7, 14):
                    expanded = block.conv[0](x)
                    found.append(expanded)
                    x = block.conv[1:](expanded) + (x if block.use_res_connect else 0)
                else:
                    x = block(x)
            return [*found, x]

        def forward(self, x: Any) -> Any:
            *skips, x = self.features(x)
            for block, skip in zip(self.up, reversed(skips), strict=True):
                x = torch.cat([block(x), skip], 1)
            return self.last(x)

    return Network()
