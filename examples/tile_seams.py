"""Do tiles show in the answer? Refines one image as a whole and in tiles, counts what differs, and draws where.

    python examples/tile_seams.py photo.jpg prediction.npz --tiles 512 1024 --picture seams.png

The picture has a row per tile size: the image with the tiles' borders, the labels as a whole, in tiles, and in red
what differs. Any prediction will do that `refine` takes: logits or probabilities in .npz or .npy, label maps in .png.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from ddps import DDPSRefiner, Refinement
from ddps.cli.report import write_picture
from ddps.inputs import load_image
from ddps.tiling import plan_tiles

WHOLE = 8192
RED, WHITE = (230, 30, 30), (255, 255, 255)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("prediction", type=Path)
    parser.add_argument("--tiles", type=int, nargs="+", default=[512, 1024], metavar="PIXELS")
    parser.add_argument("--model", default="universal")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--width", type=int, default=480, help="of a panel, in pixels")
    args = parser.parse_args()
    refiner = DDPSRefiner.from_pretrained(args.model)
    whole = refine(refiner, args, WHOLE)
    print(f"whole: {100 * share(whole.changed):.2f} % of the labels changed, {whole.seconds:.1f} s")
    rows = []
    for tile in args.tiles:
        tiled = refine(refiner, args, tile)
        differs = tiled.labels != whole.labels
        plan = plan_tiles(differs.shape, tile, refiner.config.inference.overlap)
        print(f"{len(plan)} tiles of at most {tile}: {100 * share(differs):.2f} % differ, {tiled.seconds:.1f} s")
        rows.append((plan, tiled, differs))
    if args.picture:
        write_picture(draw(args, whole, rows), args.picture, overwrite=True)


def refine(refiner: DDPSRefiner, args: argparse.Namespace, tile: int) -> Refinement:
    answer = refiner.refine(args.image, args.prediction, tile=tile, return_probs=False)
    assert isinstance(answer, Refinement)
    return answer


def share(where: np.ndarray | torch.Tensor) -> float:
    return float(np.asarray(where).mean())


def draw(args: argparse.Namespace, whole: Refinement, rows: list) -> Image.Image:
    photo = Image.fromarray((load_image(args.image).permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    size = args.width, round(args.width * photo.height / photo.width)
    sheet = Image.new("RGB", (4 * size[0], len(rows) * size[1]), WHITE)
    for row, (plan, tiled, differs) in enumerate(rows):
        outlined = photo.copy()
        pen = ImageDraw.Draw(outlined)
        for tile in plan:
            box = (tile.left, tile.top, tile.left + tile.width - 1, tile.top + tile.height - 1)
            pen.rectangle(box, outline=WHITE, width=max(2, photo.width // 300))
        labels = [answer.to_pil().convert("RGB") for answer in (whole, tiled)]
        marked = np.array(labels[0].convert("L").convert("RGB"))
        marked[np.asarray(differs)] = RED
        for column, panel in enumerate([outlined, *labels, Image.fromarray(marked)]):
            sheet.paste(panel.resize(size, Image.Resampling.LANCZOS), (column * size[0], row * size[1]))
    return sheet


if __name__ == "__main__":
    main()
