"""Sequences made from still photographs, and what `VideoRefiner` does on them.

    python examples/still_sequence.py DATA/camvid/test/images DATA/camvid/test/masks \\
        DATA/segmentor_outputs/camvid/cgnet/test WORK --images 4 --motion static pan zoom object

Real videos with a label for every frame are rare. Here a window moves over a photo, by parts of a pixel per frame, and
every frame gets noise as a sensor's. Its prediction is the segmentor's real one of that photo, moved along, with smooth
noise on the logits and bent outlines, anew for every frame; its truth is the photo's, moved along.

- static: the camera stands still;
- pan: 0.75 pixels to the right and 0.25 down per frame;
- zoom: 0.3 % closer per frame;
- object: the camera stands still, and a thing of another photo passes through at 5 pixels per frame.

What a film shows besides, parallax, motion blur, changing light, mistakes that come and go with what is seen, is not
there: real segmentors flicker otherwise than this. The figures compare methods, and tell nothing of your film.

WORK/MOTION/STEM gets frames, predictions and masks; WORK/report.json the means of the figures of examples/video.py.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from video import measure_video, show

from ddps.atomic import atomic_write
from ddps.datasets import IMAGE_SUFFIXES, MASK_SUFFIXES, files_by_stem, read_classes
from ddps.errors import InputError
from ddps.inputs import load_image
from ddps.motion import blurred
from ddps.predictions import load_prediction, read_prediction_file
from ddps.refiner import DDPSRefiner

MOTIONS = ("static", "pan", "zoom", "object")
WINDOW = 5 / 6
PAN = (0.25, 0.75)
ZOOM = 0.003
SPEED = 5
LEAST = 1e-3
SENSOR = 2 / 255
"""Noise of the frames, for values in [0, 1]."""
LOGITS, GRAIN = 0.7, 3.0
"""Noise of the logits, and how many pixels wide it is blurred."""
BEND, BEND_GRAIN = 1.0, 6.0
"""The same of the displacement of the prediction, in pixels."""


def smooth_noise(shape: tuple[int, int, int], grain: float, generator: torch.Generator) -> Tensor:
    """(C, h, w) Gaussian noise of standard deviation 1, blurred by `grain` pixels."""
    noise = blurred(torch.randn(shape, generator=generator), grain)
    return noise / noise.std()


def sample(values: Tensor, rows: Tensor, columns: Tensor, how: str) -> Tensor:
    """(C, H, W) values at (h, w) places, in pixels."""
    height, width = values.shape[-2:]
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1)
    return F.grid_sample(values[None], grid[None], how, "border", align_corners=False)[0]


def places(size: tuple[int, int], frame: int, motion: str) -> tuple[Tensor, Tensor]:
    """(h, w) rows and columns of the photo that a frame shows."""
    side = [round(WINDOW * length) for length in size]
    step = frame if motion == "pan" else 0
    scale = 1 - ZOOM * frame if motion == "zoom" else 1.0
    axes = []
    for length, count, speed in zip(size, side, PAN, strict=True):
        start = (length - count) / 4 if motion == "pan" else (length - count) / 2
        centre = start + (count - 1) / 2 + speed * step
        axes.append(centre + scale * (torch.arange(count) - (count - 1) / 2))
    rows, columns = torch.meshgrid(axes[0], axes[1], indexing="ij")
    return rows, columns


class Photo:
    """A photo with its prediction's logits and its truth."""

    def __init__(self, image: Path, mask: Path, prediction: Path):
        self.pixels = load_image(image)
        self.size = (self.pixels.shape[-2], self.pixels.shape[-1])
        values, kind = read_prediction_file(prediction)
        self.logits = load_prediction(values, self.size, kind).probs().clamp(min=LEAST).log()
        self.truth = torch.from_numpy(read_prediction_file(mask)[0].astype(np.int64))

    def with_thing(self, other: "Photo", thing: Tensor, shift: int) -> "Photo":
        """A copy with what `thing`, (H, W) bool, shows of another photo, moved to the right."""
        copy: Photo = object.__new__(Photo)
        here = torch.roll(thing, shift, 1)
        if shift >= 0:
            here[:, :shift] = False
        copy.size = self.size
        copy.pixels = torch.where(here, torch.roll(other.pixels, shift, 2), self.pixels)
        copy.logits = torch.where(here, torch.roll(other.logits, shift, 2), self.logits)
        copy.truth = torch.where(here, torch.roll(other.truth, shift, 1), self.truth)
        return copy


def find_thing(photo: Photo, classes: list[int]) -> Tensor:
    """(H, W) bool: the largest of some classes in a photo, in its left half: there it starts."""
    found = [photo.truth == index for index in classes]
    best = max(found, key=lambda mask: int(mask[:, : mask.shape[1] // 2].sum()))
    best = best.clone()
    best[:, best.shape[1] // 2 :] = False
    return best


def make_frame(photo: Photo, frame: int, motion: str, seed: int) -> tuple[NDArray, NDArray, NDArray]:
    """(h, w, 3) uint8 frame, (K, h, w) float16 logits, (h, w) uint8 truth."""
    generator = torch.Generator().manual_seed(seed * 100003 + frame)
    rows, columns = places(photo.size, frame, motion)
    size = (rows.shape[0], rows.shape[1])
    pixels = sample(photo.pixels, rows, columns, "bicubic")
    pixels = (pixels + SENSOR * torch.randn(pixels.shape, generator=generator)).clamp(0, 1)
    bend = BEND * smooth_noise((2, *size), BEND_GRAIN, generator)
    logits = sample(photo.logits, rows + bend[0], columns + bend[1], "bilinear")
    logits = logits + LOGITS * smooth_noise((len(logits), *size), GRAIN, generator)
    truth = sample(photo.truth[None].float(), rows, columns, "nearest")[0]
    image = (pixels * 255).round().byte().permute(1, 2, 0)
    return image.numpy(), logits.half().numpy(), truth.byte().numpy()


def make_sequence(photo: Photo, other: Photo, motion: str, folder: Path, frames: int, classes: list[int]) -> None:
    """Writes a sequence that is not there yet."""
    parts = [folder / name for name in ("frames", "predictions", "masks")]
    for part in parts:
        part.mkdir(parents=True, exist_ok=True)
    thing = find_thing(other, classes) if motion == "object" else None
    for frame in range(frames):
        seen = photo if thing is None else photo.with_thing(other, thing, SPEED * frame)
        image, logits, truth = make_frame(seen, frame, motion, seed=len(folder.name) + ord(folder.name[-1]))
        for part, suffix, write in (
            (parts[0], "png", lambda file, image=image: Image.fromarray(image).save(file, "PNG")),
            (parts[1], "npz", lambda file, logits=logits: np.savez(file, logits=logits)),
            (parts[2], "png", lambda file, truth=truth: Image.fromarray(truth).save(file, "PNG")),
        ):
            with atomic_write(part / f"{frame:03}.{suffix}", overwrite=True) as file:
                write(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images_folder", type=Path, metavar="IMAGES")
    parser.add_argument("masks_folder", type=Path, metavar="MASKS", help="true label maps, .png")
    parser.add_argument("predictions_folder", type=Path, metavar="PREDICTIONS", help="of the photos, .npz")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--classes", type=Path, help="default: classes.json two folders above the masks")
    parser.add_argument("--motion", nargs="+", choices=MOTIONS, default=list(MOTIONS))
    parser.add_argument("--frames", type=int, default=16, help="of a sequence (default: 16)")
    parser.add_argument("--images", type=int, default=4, help="photos, spread over the folder (default: 4)")
    parser.add_argument("--things", type=int, nargs="+", default=[8, 9, 10], help="classes that may pass (camvid's)")
    for option in ("model", "device"):
        parser.add_argument(f"--{option}", help="as for `ddps refine`")
    args = parser.parse_args()
    try:
        space = read_classes(args.classes or args.masks_folder.parent.parent / "classes.json")
        images = files_by_stem(args.images_folder, IMAGE_SUFFIXES, "images")
        masks = files_by_stem(args.masks_folder, MASK_SUFFIXES, "masks")
        predictions = files_by_stem(args.predictions_folder, (".npz",), "predictions")
    except InputError as error:
        sys.exit(f"error: {error}")
    names = sorted(set(images) & set(masks) & set(predictions))
    chosen = np.unique(np.linspace(0, len(names) - 1, args.images).round().astype(int))
    refiner = DDPSRefiner.from_pretrained(args.model or "universal", device=args.device)
    report: dict[str, dict] = {}
    for motion in args.motion:
        rows = []
        for index in chosen:
            stems = names[index], names[(index + 1) % len(names)]
            photo, other = (Photo(images[stem], masks[stem], predictions[stem]) for stem in stems)
            folder = args.work / motion / stems[0]
            make_sequence(photo, other, motion, folder, args.frames, args.things)
            rows.append(measure_video(refiner, folder / "frames", folder / "predictions", folder / "masks", space))
        report[motion] = {
            method: {key: float(np.nanmean([row[method][key] for row in rows])) for key in rows[0][method]}
            for method in rows[0]
        }
        print(f"\n{motion}, {len(rows)} sequences of {args.frames} frames")
        show(report[motion])
    with atomic_write(args.work / "report.json", overwrite=True) as file:
        file.write((json.dumps(report, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
