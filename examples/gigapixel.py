"""Time, memory and skipped tiles of `refine_large`, on a mosaic of real photos of any size (Linux and macOS).

    python examples/gigapixel.py --side 20000 --folder /tmp/gigapixel

The mosaic is made on disk, band by band: the photos of `ddps demo`, enlarged, mirrored and made lighter or darker from
place to place, and their rough masks, drawn by hand, as the prediction. Needs the extras `demo` and `large`; an image
of 20,000 x 20,000 pixels takes 0.6 GB on disk as .tif, 1.6 GB as .npy, and up to 4 GB more while it is refined.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ddps import DDPSRefiner
from ddps.cli.demo import PHOTOS, find_photo, read_mask_outlines
from ddps.large import peak_memory, refine_large
from ddps.large_sources import import_tifffile

VOID = 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20000, help="of the square image, in pixels")
    parser.add_argument("--folder", type=Path, required=True, help="for the image, its prediction and the answer")
    parser.add_argument("--photo", type=int, default=1600, help="height of one photo of the mosaic, in pixels")
    parser.add_argument("--format", choices=("tif", "npy"), default="tif")
    parser.add_argument("--memory", type=float, metavar="GIB", help="fail where the peak is above this")
    parser.add_argument("--model", default="universal")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    image, prediction = (args.folder / f"{name}.{args.format}" for name in ("image", "prediction"))
    write_mosaic(image, prediction, args.side, args.photo)
    refiner = DDPSRefiner.from_pretrained(args.model, device=args.device)
    before = peak_memory() or 0
    summary = refine_large(
        refiner,
        image,
        prediction,
        args.folder / f"labels.{args.format}",
        changed=args.folder / f"changed.{args.format}",
        kind="labels",
        steps=args.steps,
        overwrite=True,
        progress=True,
    )
    peak = (summary.peak_memory or 0) / 2**30
    figures = {
        "size": summary.size,
        "tiles": summary.tiles,
        "skipped_percent": round(summary.skipped, 2),
        "changed_percent": round(summary.changed, 3),
        "seconds_per_megapixel": round(summary.seconds / (args.side**2 / 1e6), 3),
        "seconds": round(summary.seconds, 1),
        "peak_memory_gib": round(peak, 3),
        "before_gib": round(before / 2**30, 3),
    }
    print(json.dumps(figures))
    if args.memory is not None and peak > args.memory:
        raise SystemExit(f"peak memory {peak:.2f} GiB is above {args.memory:.2f}")


def write_mosaic(image: Path, prediction: Path, side: int, height: int) -> None:
    """Writes the image and the label map, .tif or .npy, with no more than one row of photos in memory."""
    for path, channels in ((image, (3,)), (prediction, ())):
        rows = mosaic_rows(side, height, labels=not channels)
        if path.suffix == ".npy":
            file = np.lib.format.open_memmap(path, "w+", np.uint8, (side, side, *channels))
            top = 0
            for band in rows:
                file[top : top + len(band)] = band
                top += len(band)
        else:
            import_tifffile("tifffile").imwrite(
                path,
                tiles_of(rows, side),
                shape=(side, side, *channels),
                dtype=np.uint8,
                tile=(512, 512),
                photometric="rgb" if channels else "minisblack",
                compression="zlib",
                bigtiff=True,
                metadata=None,
            )


def mosaic_rows(side: int, height: int, labels: bool) -> Iterator[np.ndarray]:
    """Bands of the image (h, side, 3), or of the label map (h, side), from top to bottom."""
    rng = np.random.default_rng(0)
    pieces, first = [], 0
    for name in PHOTOS:
        outlines = read_mask_outlines("rough", name)
        with Image.open(find_photo(outlines.image)) as photo:
            size = (round(height * photo.width / photo.height), height)
            if labels:
                ids = outlines.labels()
                ids = np.where(ids == VOID, VOID, ids + first).astype(np.uint8)
                pieces.append(np.asarray(Image.fromarray(ids).resize(size, Image.Resampling.NEAREST)))
            else:
                pieces.append(np.asarray(photo.convert("RGB").resize(size, Image.Resampling.BICUBIC)))
        first += len(outlines.classes)
    for top in range(0, side, height):
        row: list[np.ndarray] = []
        while sum(piece.shape[1] for piece in row) < side:
            # drawn alike for the image and its labels
            piece, mirror, light = pieces[rng.integers(len(pieces))], rng.random() < 0.5, rng.uniform(0.7, 1.2)
            piece = piece[:, ::-1] if mirror else piece
            row.append(piece if labels else np.clip(piece * light, 0, 255).astype(np.uint8))
        yield np.concatenate(row, 1)[: side - top, :side]


def tiles_of(bands: Iterator[np.ndarray], side: int) -> Iterator[np.ndarray]:
    """Tiles of 512 x 512 pixels, padded, in the order in which a TIFF holds them."""
    waiting = next(bands)
    for top in range(0, side, 512):
        tall = min(512, side - top)
        while len(waiting) < tall:
            waiting = np.concatenate([waiting, next(bands)])
        band, waiting = waiting[:tall], waiting[tall:]
        rest = ((0, 512 - tall), (0, -side % 512), (0, 0))[: band.ndim]
        band = np.pad(band, rest)
        for left in range(0, side, 512):
            yield np.ascontiguousarray(band[:, left : left + 512])


if __name__ == "__main__":
    main()
