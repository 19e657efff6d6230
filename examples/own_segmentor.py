"""A small segmentor to hand over to `ddps train --segmentor`: copy it, and put your own in place of `Segmentor`.

    ddps train --init universal --data DATA -o RUN --segmentor examples.own_segmentor:fit --folds 4

`fit` is called once per fold with the images and masks of all other folds, and has to train from scratch each time;
what it returns is then asked for every image of its own fold.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

STEPS, BATCH, SIDE, VOID = 400, 8, 160, 255


class Segmentor(nn.Module):
    """Strides 2 to 16, fused at stride 4; logits at stride 4."""

    def __init__(self, classes: int):
        super().__init__()
        self.stem = unit(3, 24, 2)
        self.stages = nn.ModuleList([unit(24, 48, 2), unit(48, 64, 2), unit(64, 96, 2)])
        self.head = nn.Sequential(unit(48 + 64 + 96, 64), nn.Conv2d(64, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        maps, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        size = maps[0].shape[-2:]
        return self.head(torch.cat([F.interpolate(m, size, mode="bilinear") for m in maps], 1))


def unit(cin: int, cout: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True))


def fit(images: list[Path], masks: list[Path]) -> Callable[[np.ndarray], np.ndarray]:
    """Trains on pairs of files; returns what predicts (K, h, w) logits of an (H, W, 3) uint8 image."""
    about = next(p / "classes.json" for p in masks[0].parents if (p / "classes.json").is_file())
    classes = int(json.loads(about.read_text())["num_classes"])
    pairs = [(read(Image.open(i).convert("RGB")), read(Image.open(m))) for i, m in zip(images, masks, strict=True)]
    torch.manual_seed(0)
    network = Segmentor(classes)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    for _ in range(STEPS):
        drawn = [window(*pairs[int(torch.randint(len(pairs), ()))]) for _ in range(BATCH)]
        x, y = torch.stack([i for i, _ in drawn]), torch.stack([m for _, m in drawn])
        logits = F.interpolate(network(normalise(x)), y.shape[-2:], mode="bilinear")
        loss = F.cross_entropy(logits, y, ignore_index=VOID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()

    @torch.no_grad()
    def predict(image: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
        return network(normalise(x))[0].numpy()

    return predict


def read(picture: Image.Image) -> Tensor:
    values = torch.from_numpy(np.array(picture))
    return values.permute(2, 0, 1) if values.ndim == 3 else values.long()


def normalise(x: Tensor) -> Tensor:
    return (x.float() - 120) / 60


def window(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A random window, mirrored half the time; what lies outside a small image is void."""
    right, below = max(0, SIDE - mask.shape[1]), max(0, SIDE - mask.shape[0])
    image, mask = F.pad(image, (0, right, 0, below)), F.pad(mask, (0, right, 0, below), value=VOID)
    top, left = (int(torch.randint(have - SIDE + 1, ())) for have in mask.shape)
    image, mask = image[:, top : top + SIDE, left : left + SIDE], mask[top : top + SIDE, left : left + SIDE]
    return (image.flip(-1), mask.flip(-1)) if torch.rand(()) < 0.5 else (image, mask)
