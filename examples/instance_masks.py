"""Instance masks made rough on purpose, and refined as a stack.

    python examples/instance_masks.py DATA/dsb2018_nuclei/test/images DATA/dsb2018_nuclei/test/masks --classes 1
    python examples/instance_masks.py DATA/camvid/test/images DATA/camvid/test/masks --classes 2 6 8 9 10 --images 39

The instances are the connected regions of some classes of true label maps, of at least 30 pixels. They are made rough
one by one: `dilate3` grows each by a disc of 3 pixels, so that neighbours overlap; `stride8` takes the value at the
centre of every 8 x 8 pixels; `perfect` leaves them alone. Three ways are compared:

- stack: `refine_masks`;
- alone: the same, one mask at a time, so that no mask knows of the others;
- label map: `DDPSRefiner.refine` of the one label map of all instances, smaller ones on top.

Prints the mean IoU of all instances before and after, how many lost more than 2 points, and the seconds. Needs scipy.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddps.datasets import IMAGE_SUFFIXES, MASK_SUFFIXES, files_by_stem
from ddps.predictions import read_prediction_file
from ddps.refiner import DDPSRefiner
from ddps.resize import nearest_index
from ddps.rough import strided
from ddps.stacks import refine_masks

Stack = NDArray[np.bool_]
LEAST_PIXELS = 30
LOST = 0.02
ROUGH, WAYS = ("dilate3", "stride8", "perfect"), ("stack", "alone", "label map")


def instances(labels: NDArray[np.integer], classes: list[int]) -> Stack:
    """(N, H, W) connected regions of the classes; N may be 0."""
    from scipy import ndimage

    found = [np.zeros((0, *labels.shape), bool)]
    for index in classes:
        regions, count = ndimage.label(labels == index)
        found += [(regions == number)[None] for number in range(1, count + 1)]
    stack = np.concatenate(found)
    return stack[stack.sum((1, 2)) >= LEAST_PIXELS]


def roughen(mask: NDArray[np.bool_], kind: str) -> NDArray[np.bool_]:
    from scipy import ndimage

    if kind == "dilate3":
        return ndimage.distance_transform_edt(~mask) <= 3
    if kind == "stride8":
        coarse = strided(mask.astype(np.int64), 8)
        rows, columns = (nearest_index(0, n, c, n).numpy() for n, c in zip(mask.shape, coarse.shape, strict=True))
        return coarse[np.ix_(rows, columns)] > 0
    return mask


def refine(refiner: DDPSRefiner, image: Path, masks: Stack, way: str) -> Stack:
    if way == "stack":
        return refine_masks(refiner, image, masks).masks
    if way == "alone":
        return np.concatenate([refine_masks(refiner, image, mask[None]).masks for mask in masks])
    labels = np.zeros(masks.shape[1:], np.int64)
    for index in np.argsort(-masks.sum((1, 2)), kind="stable"):
        labels[masks[index]] = index + 1
    refined = refiner.refine(image, labels, kind="labels", num_classes=len(masks) + 1, return_probs=False).labels
    return refined == np.arange(1, len(masks) + 1)[:, None, None]


def ious(masks: Stack, truth: Stack) -> list[float]:
    return [float((a & b).sum() / (a | b).sum()) for a, b in zip(masks, truth, strict=True)]


def sets(args: argparse.Namespace) -> Iterator[tuple[Path, Stack]]:
    images = files_by_stem(args.images_folder, IMAGE_SUFFIXES, "images")
    masks = files_by_stem(args.masks_folder, MASK_SUFFIXES, "masks")
    names = sorted(set(images) & set(masks))
    count = len(names) if args.images is None else args.images
    for index in np.unique(np.linspace(0, len(names) - 1, count).round().astype(int)):
        truth = instances(read_prediction_file(masks[names[index]])[0], args.classes)
        if len(truth):
            yield images[names[index]], truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images_folder", type=Path, metavar="IMAGES")
    parser.add_argument("masks_folder", type=Path, metavar="MASKS", help="true label maps, .png")
    parser.add_argument("--classes", type=int, nargs="+", required=True, help="whose regions are instances")
    parser.add_argument("--rough", nargs="+", choices=ROUGH, default=list(ROUGH))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--images", type=int, metavar="N", help="as many, spread over the folder (default: all)")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    for option in ("model", "device"):
        parser.add_argument(f"--{option}", help="as for `ddps refine`")
    args = parser.parse_args()
    refiner = DDPSRefiner.from_pretrained(args.model or "universal", device=args.device)
    before: dict[str, list[float]] = {kind: [] for kind in args.rough}
    after = {(kind, way): ([], []) for kind in args.rough for way in args.ways}
    for image, truth in sets(args):
        for kind in args.rough:
            rough = np.stack([roughen(mask, kind) for mask in truth])
            before[kind] += ious(rough, truth)
            for way in args.ways:
                started = time.perf_counter()
                refined = refine(refiner, image, rough, way)
                after[kind, way][1].append(time.perf_counter() - started)
                after[kind, way][0].extend(ious(refined, truth))
    rows = []
    for (kind, way), (values, seconds) in after.items():
        first, last = np.array(before[kind]), np.array(values)
        row = {"rough": kind, "way": way, "instances": len(first), "seconds": sum(seconds), "images": len(seconds)}
        figures = {"before": first.mean(), "after": last.mean(), "lost": (last < first - LOST).mean()}
        rows.append(row | {key: 100 * float(value) for key, value in figures.items()})
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        gain, each = row["after"] - row["before"], row["seconds"] / row["images"]
        print(
            f"{row['rough']:8} {row['way']:10} mean IoU of {row['instances']} instances {row['before']:.2f} → "
            f"{row['after']:.2f} ({gain:+.2f}), {row['lost']:.1f} % lost more than 2 points, {each:.2f} s per image"
        )


if __name__ == "__main__":
    main()
