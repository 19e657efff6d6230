"""Predictions of small segmentors on images that they did not train on.

A refiner has to learn from mistakes as a segmentor makes them on unseen images. This script splits the
training images of one data set into folds, trains a small segmentor on all folds but one, and writes what
it predicts on the fold that was left out (and, from the last fold's network, on val and test), one
`<stem>.npz` with the key `probs` per image, in the layout that `ddps train --predictions` reads:

    python examples/out_of_fold.py DATA/ccp_fashion OUT/ccp_fashion/unet --kind unet --minutes 5

With `--groups groups.json` ({"name": ["class", ...], ...}; what is not named goes to the first group) the
segmentor learns these groups only; the rule is written to OUT/classes.json, where `ddps train` finds it.

Kinds: `unet` (stride 2, ragged borders), `dilated` (stride 8, blobby borders), `pyramid` (strides 4 to 32, fused).
"""

import argparse
import json
import random
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ddps.atomic import atomic_write
from ddps.cli.report import write_text


def unit(cin: int, cout: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(cin, cout, 3, stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), nn.ReLU(inplace=True))


class UNet(nn.Module):
    """Four levels from stride 2 to 16; logits at stride 2."""

    def __init__(self, classes: int, widths: tuple[int, ...] = (24, 48, 96, 128)):
        super().__init__()
        self.stem = unit(3, widths[0], 2)
        self.down = nn.ModuleList(nn.Sequential(unit(a, b, 2), unit(b, b)) for a, b in pairwise(widths))
        self.deep = nn.Sequential(unit(widths[-1], widths[-1], 2), unit(widths[-1], widths[-1], 1, 2))
        self.up = nn.ModuleList(
            unit(a + b, b) for a, b in zip((widths[-1], *reversed(widths[1:])), reversed(widths), strict=True)
        )
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.stem(x)]
        for down in self.down:
            skips.append(down(skips[-1]))
        x = self.deep(skips[-1])
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(torch.cat([F.interpolate(x, skip.shape[-2:], mode="nearest"), skip], 1))
        return self.head(x)


class Dilated(nn.Module):
    """Stride 8 with growing dilation; logits at stride 8, which makes blobby borders."""

    def __init__(self, classes: int, width: int = 96):
        super().__init__()
        self.body = nn.Sequential(
            unit(3, 24, 2), unit(24, 24), unit(24, 48, 2), unit(48, 48), unit(48, width, 2),
            *(unit(width, width, 1, d) for d in (1, 2, 4, 8, 4, 2, 1)),
        )  # fmt: skip
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Pyramid(nn.Module):
    """Features at strides 4 to 32, projected, resized to stride 4 and fused, as SegFormer's head does."""

    def __init__(self, classes: int, widths: tuple[int, ...] = (32, 64, 96, 128), width: int = 64):
        super().__init__()
        self.stem = unit(3, widths[0], 2)
        stages = zip((widths[0], *widths[:-1]), widths, strict=True)
        self.stages = nn.ModuleList(nn.Sequential(unit(a, b, 2), unit(b, b), unit(b, b)) for a, b in stages)
        self.project = nn.ModuleList(nn.Conv2d(w, width, 1) for w in widths)
        self.head = nn.Sequential(unit(4 * width, width), nn.Conv2d(width, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, maps = self.stem(x), []
        for stage, project in zip(self.stages, self.project, strict=True):
            x = stage(x)
            maps.append(project(x))
        maps = [F.interpolate(m, maps[0].shape[-2:], mode="bilinear", align_corners=False) for m in maps]
        return self.head(torch.cat(maps, 1))


KINDS = {"unet": UNet, "dilated": Dilated, "pyramid": Pyramid}


def load_pairs(split: Path, merge: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    pairs = {}
    for path in sorted((split / "images").iterdir()):
        mask = np.array(Image.open(split / "masks" / f"{path.stem}.png"))
        pairs[path.stem] = np.array(Image.open(path).convert("RGB")), merge[mask]
    return pairs


def merge_rule(classes: list[str], groups: dict[str, list[str]]) -> np.ndarray:
    """(256,) new index of every class; ids outside the classes stay (255 is void)."""
    merge = np.arange(256, dtype=np.uint8)
    merge[: len(classes)] = 0
    for index, members in enumerate(groups.values()):
        merge[[classes.index(name) for name in members]] = index
    return merge


def batch_of(pairs: list, size: int, count: int, rng: random.Random) -> tuple[Tensor, Tensor]:
    images, masks = [], []
    for _ in range(count):
        image, mask = rng.choice(pairs)
        side = rng.uniform(0.7, 1.6) * size
        side_px = min(int(side), *mask.shape)
        top, left = rng.randint(0, mask.shape[0] - side_px), rng.randint(0, mask.shape[1] - side_px)
        box = (slice(top, top + side_px), slice(left, left + side_px))
        x = torch.from_numpy(np.ascontiguousarray(image[box])).permute(2, 0, 1)[None].float()
        y = torch.from_numpy(np.ascontiguousarray(mask[box]))[None, None].float()
        x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
        y = F.interpolate(y, (size, size), mode="nearest")
        if rng.random() < 0.5:
            x, y = x.flip(-1), y.flip(-1)
        x = (x * rng.uniform(0.7, 1.3) + rng.uniform(-25, 25)).clamp(0, 255)
        images.append(x)
        masks.append(y[:, 0].long())
    return normalise(torch.cat(images)), torch.cat(masks)


def normalise(x: Tensor) -> Tensor:
    return ((x - 120.0) / 60.0).contiguous(memory_format=torch.channels_last)


def train(kind: str, classes: int, pairs: list, minutes: float, size: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    rng = random.Random(seed)
    net = KINDS[kind](classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.02)
    start, step, shown = time.monotonic(), 0, 0.0
    while (part := (time.monotonic() - start) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - part) ** 0.9 * min(1, (step + 1) / 50)
        x, y = batch_of(pairs, size, 8, rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(x)
        stride = y.shape[-1] // logits.shape[-1]
        loss = F.cross_entropy(logits.float(), y[:, stride // 2 :: stride, stride // 2 :: stride], ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        shown = loss.item() if step == 0 else 0.98 * shown + 0.02 * loss.item()
        step += 1
    print(f"  {kind}: {step} steps, loss {shown:.3f}", flush=True)
    return net.eval()


@torch.no_grad()
def predict(net: nn.Module, image: np.ndarray) -> np.ndarray:
    x = normalise(torch.from_numpy(image).permute(2, 0, 1)[None].float())
    h, w = x.shape[-2:]
    x = F.pad(x, (0, -w % 32, 0, -h % 32), mode="replicate")
    logits = net(x)
    stride = x.shape[-1] // logits.shape[-1]
    logits = logits[..., : -(-h // stride), : -(-w // stride)]
    return logits.softmax(1)[0].numpy()


def write(net: nn.Module, pairs: dict, folder: Path, classes: int) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    table = np.zeros((classes, classes), np.int64)
    for stem, (image, mask) in pairs.items():
        probs = predict(net, image)
        rounded = (np.rint(probs * 255) / 255).astype(np.float16)
        with atomic_write(folder / f"{stem}.npz", overwrite=True) as file:
            np.savez_compressed(file, probs=rounded)
        full = F.interpolate(torch.from_numpy(probs)[None], mask.shape, mode="bilinear", align_corners=False)
        labels, known = full[0].argmax(0).numpy(), mask < classes
        table += np.bincount(mask[known].astype(np.int64) * classes + labels[known], minlength=classes**2).reshape(
            classes, classes
        )
    return table


def miou(table: np.ndarray) -> float:
    union = table.sum(0) + table.sum(1) - table.diagonal()
    return float(100 * (table.diagonal()[union > 0] / union[union > 0]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/images, train/masks, classes.json")
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=KINDS, default="unet")
    parser.add_argument("--groups", type=Path, help="JSON file that merges classes before training")
    parser.add_argument("--folds", type=int, default=2, help="1: train on every image, predict val and test only")
    parser.add_argument("--minutes", type=float, default=5, help="training time of each fold")
    parser.add_argument("--size", type=int, default=256, help="side of the training crops in pixels")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    names = json.loads((args.data / "classes.json").read_text())["classes"]
    merge, classes = np.arange(256, dtype=np.uint8), len(names)
    if args.groups:
        groups = json.loads(args.groups.read_text())
        merge, classes = merge_rule(names, groups), len(groups)
        args.out.mkdir(parents=True, exist_ok=True)
        rule = {"classes": list(groups), "num_classes": classes, "merge": merge[: len(names)].tolist()}
        write_text(json.dumps(rule) + "\n", args.out / "classes.json", overwrite=True)
    pairs = load_pairs(args.data / "train", merge)
    stems = sorted(pairs)
    random.Random(args.seed).shuffle(stems)
    table = np.zeros((classes, classes), np.int64)
    for fold in range(args.folds):
        # With one fold nothing is held out: a segmentor for val and test alone.
        held_out = set(stems[fold :: args.folds]) if args.folds > 1 else set()
        print(f"{args.data.name} {args.kind} fold {fold}", flush=True)
        rest = [pairs[s] for s in stems if s not in held_out]
        net = train(args.kind, classes, rest, args.minutes, args.size, args.seed + fold)
        if held_out:
            table += write(net, {s: pairs[s] for s in stems if s in held_out}, args.out / "train", classes)
    if args.folds > 1:
        print(f"{args.data.name} {args.kind} out of fold: mIoU {miou(table):.1f}", flush=True)
    for split in ("val", "test"):
        if (args.data / split).is_dir():
            table = write(net, load_pairs(args.data / split, merge), args.out / split, classes)
            print(f"{args.data.name} {args.kind} {split}: mIoU {miou(table):.1f}", flush=True)


if __name__ == "__main__":
    main()
