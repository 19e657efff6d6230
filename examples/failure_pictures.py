"""Where refinement fails: pictures for the model card, on the photos of `ddps demo`.

    python examples/failure_pictures.py OUT.png

Three cases: a whole thing with the wrong class, a thing that was forgotten, and a mask so coarse that the outline is
out of reach. Needs scikit-image for the photos.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ddps import DDPSRefiner
from ddps.cli.demo import find_photo, read_mask_outlines
from ddps.cli.report import write_picture
from ddps.metrics import SegmentationMetrics
from ddps.visualize import default_palette, overlay, side_by_side, stack

VOID = 255
Damage = Callable[[np.ndarray], np.ndarray]


def swapped(labels: np.ndarray) -> np.ndarray:
    """The smallest class given to the largest thing's class."""
    counts = np.bincount(labels[(labels > 0) & (labels != VOID)])
    present = np.flatnonzero(counts)
    smallest, largest = present[counts[present].argmin()], present[counts[present].argmax()]
    return np.where(labels == smallest, largest, labels)


def forgotten(labels: np.ndarray) -> np.ndarray:
    """The smallest class given to the background."""
    counts = np.bincount(labels[(labels > 0) & (labels != VOID)])
    present = np.flatnonzero(counts)
    return np.where(labels == present[counts[present].argmin()], 0, labels)


def coarse(labels: np.ndarray) -> np.ndarray:
    """The class at the centre of every 48 x 48 pixels."""
    rows, columns = (np.minimum(np.arange(side) // 48 * 48 + 24, side - 1) for side in labels.shape)
    return labels[rows[:, None], columns]


CASES: tuple[tuple[str, str, Damage], ...] = (
    ("astronaut", "a whole thing with the wrong class", swapped),
    ("coffee", "a thing that was forgotten", forgotten),
    ("chelsea", "blocks of 48 pixels", coarse),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="universal")
    args = parser.parse_args()
    refiner = DDPSRefiner.from_pretrained(args.model)
    rows = []
    for name, what, damage in CASES:
        fine = read_mask_outlines("fine", name)
        photo = Image.open(find_photo(fine.image)).convert("RGB")
        truth = fine.labels()
        before = damage(truth)
        after = np.asarray(refiner.refine(photo, before, kind="labels", num_classes=len(fine.classes)).labels)
        scores = []
        for labels in (before, after):
            metrics = SegmentationMetrics(len(fine.classes), VOID)
            metrics.update(labels, truth)
            scores.append(metrics.as_dict())
        print(f"{name}: {what}: mIoU {scores[0]['miou']:.1f} -> {scores[1]['miou']:.1f}, "
              f"mBIoU {scores[0]['mbiou']:.1f} -> {scores[1]['mbiou']:.1f}")  # fmt: skip
        palette = default_palette(len(fine.classes))

        def over(labels: np.ndarray, photo: Image.Image = photo, palette: object = palette) -> Image.Image:
            return overlay(photo, np.where(labels == 0, VOID, labels), palette)

        panels = [
            (what, over(before)),
            (f"refined, boundary IoU {scores[0]['mbiou']:.0f} to {scores[1]['mbiou']:.0f}", over(after)),
            ("as it should be", over(truth)),
        ]
        rows.append(side_by_side(panels, 200))
    write_picture(stack(rows), args.out, overwrite=True)


if __name__ == "__main__":
    main()
