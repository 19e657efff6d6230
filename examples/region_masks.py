"""Masks without annotators: regions of one colour in the photos of a data set, as classes of their own.

Data sets label few kinds of things, and everything else in a photo, windows, cars, trees, is one class "background".
Its outlines are real all the same. This script cuts every training image into regions with the algorithm of
Felzenszwalb and Huttenlocher (scikit-image), for `ddps train`, which groups them at random:

    python examples/region_masks.py DATA/ccp_fashion WORK/ccp_regions
"""

import argparse
import json
import os
import random
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.segmentation import felzenszwalb

from ddps.atomic import atomic_write
from ddps.cli.report import write_text

MOST = 255


def regions(image: np.ndarray, scale: float, smallest: int) -> np.ndarray:
    """(H, W) uint8 region ids below 255; a larger scale makes fewer, larger regions."""
    while True:
        labels = felzenszwalb(image, scale=scale, sigma=1.0, min_size=smallest)
        if labels.max() < MOST:
            return labels.astype(np.uint8)
        scale, smallest = 2 * scale, 2 * smallest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/images")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    images, masks = args.out / "train" / "images", args.out / "train" / "masks"
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((args.data / "train" / "images").iterdir()):
        image = np.array(Image.open(path).convert("RGB"))
        smallest = rng.randint(80, 400)
        found = regions(image, rng.uniform(250, 900), round(smallest * image.shape[0] * image.shape[1] / 240_000))
        with atomic_write(masks / f"{path.stem}.png", overwrite=True) as file:
            Image.fromarray(found).save(file, "PNG")
        if not (images / path.name).exists():
            os.symlink(path.resolve(), images / path.name)
    write_text(
        json.dumps({"classes": [], "num_classes": MOST, "ignore_index": 255}) + "\n", args.out / "classes.json", True
    )
    print(f"{args.out}: {len(list(masks.iterdir()))} masks")


if __name__ == "__main__":
    main()
