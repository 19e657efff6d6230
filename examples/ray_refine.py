"""Rough masks of a folder refined on a Ray cluster, or on all cores of one machine.

    pip install ddps "ray[data]"
    python examples/ray_refine.py images/ predictions/ -o masks/ --workers 8 --gpus 1
    python examples/ray_refine.py images/ predictions/ -o masks/ --address ray://head:10001

Images and predictions (.npz, .npy or .png) pair up by their stem, and lie where all machines see them. Every worker
loads the refiner once and takes what is left to do, item by item: none waits for another. Masks that exist are
skipped, so the same line goes on after a stop.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import ray

from ddps.datasets import IMAGE_SUFFIXES, files_by_stem

PREDICTION_SUFFIXES = {".npz", ".npy", ".png"}


class Refine:
    """What runs in a worker: one refiner, kept from item to item."""

    def __init__(self, model: str, steps: int | None, num_classes: int | None):
        import torch

        from ddps import DDPSRefiner

        if not torch.cuda.is_available():
            torch.set_num_threads(1)
        self.refiner = DDPSRefiner.from_pretrained(model)
        self.options: dict[str, Any] = {"steps": steps, "num_classes": num_classes}

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Refines one item and writes its mask, whole or not at all; an item that fails does not stop the others."""
        name = Path(item["image"]).stem
        try:
            refined = self.refiner.refine(item["image"], item["prediction"], return_probs=False, **self.options)
            refined.save(item["mask"], overwrite=True)
        except (ValueError, OSError) as error:
            return {"name": name, "changed": float("nan"), "error": " ".join(str(error).split())}
        return {"name": name, "changed": 100 * float(refined.changed.mean()), "error": ""}


def find_items(images: Path, predictions: Path, output: Path) -> tuple[list[dict[str, str]], int]:
    """What is to do, and how many masks there are already."""
    pictures = files_by_stem(images, IMAGE_SUFFIXES, "images")
    rough = files_by_stem(predictions, PREDICTION_SUFFIXES, "predictions")
    pairs = [(pictures[stem], rough[stem], output / f"{stem}.png") for stem in rough if stem in pictures]
    left = [pair for pair in pairs if not pair[2].exists()]
    names = ("image", "prediction", "mask")
    return [dict(zip(names, map(str, map(Path.resolve, pair)), strict=True)) for pair in left], len(pairs) - len(left)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the masks")
    parser.add_argument("--model", default="universal", help="embedded weights, a folder or a Hub id")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--num-classes", type=int, help="of label maps")
    parser.add_argument("--workers", type=int, default=1, help="refiners at a time, over all machines")
    parser.add_argument("--gpus", type=float, default=0, help="of each worker; 0.5 puts two on a GPU")
    parser.add_argument("--address", help="of the cluster; without, Ray starts on this machine")
    args = parser.parse_args()
    items, skipped = find_items(args.images, args.predictions, args.output)
    args.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    if items:
        ray.init(address=args.address, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = sys.stderr.isatty()
        work = ray.data.from_items(items, override_num_blocks=len(items)).map(
            Refine,
            fn_constructor_args=(args.model, args.steps, args.num_classes),
            compute=ray.data.ActorPoolStrategy(size=args.workers),
            num_gpus=args.gpus or None,
        )
        rows = work.take_all()
    failed = sorted((row["name"], row["error"]) for row in rows if row["error"])
    for name, error in failed:
        print(f"{name}: {error}", file=sys.stderr)
    changed = [row["changed"] for row in rows if not row["error"]]
    share = f"; {sum(changed) / len(changed):.2f} % of the pixels changed" if changed else ""
    print(f"refined {len(changed)}, skipped {skipped} that existed, failed {len(failed)}{share} -> {args.output}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
