"""The frames of a video refined one by one and with the frames before as a prior, and how much both flicker.

    python examples/video.py FRAMES PREDICTIONS OUT
    python examples/video.py FRAMES PREDICTIONS OUT --masks MASKS --classes classes.json

FRAMES holds images, in the order of their names, PREDICTIONS a segmentor's answers of the same stems (.npz, .npy or
.png). OUT/frame_by_frame and OUT/with_prior get the masks, OUT/report.json the figures: flicker, the share of the
pixels that get another class from a frame to the next although the picture does not change there, and with true MASKS
the mIoU.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

from ddps.atomic import atomic_write
from ddps.cli.pairs import PREDICTION_SUFFIXES
from ddps.config import LabelSpace
from ddps.datasets import IMAGE_SUFFIXES, MASK_SUFFIXES, files_by_stem, read_classes
from ddps.errors import InputError
from ddps.inputs import load_image
from ddps.metrics import ConfusionMatrix
from ddps.outputs import Refinement
from ddps.predictions import load_prediction, read_prediction_file
from ddps.refiner import DDPSRefiner
from ddps.video import VideoRefiner, flicker

SEGMENTOR, SINGLE, PRIOR, TRUTH = "segmentor", "frame by frame", "with the prior", "truth"
Figures = dict[str, dict[str, float]]


def measure_video(
    refiner: DDPSRefiner,
    frames: Path,
    predictions: Path,
    masks: Path | None,
    space: LabelSpace,
    out: Path | None = None,
) -> Figures:
    """Flicker and, with true masks, mIoU of every method, in percent.

    Args:
        refiner: of predictions.
        frames, predictions, masks: folders of files that pair up by their stem.
        space: classes; `num_classes` is needed with masks, and with label maps as predictions.
        out: folder for the refined masks.
    """
    images = files_by_stem(frames, IMAGE_SUFFIXES, "images")
    given = files_by_stem(predictions, PREDICTION_SUFFIXES, "predictions")
    truths = {} if masks is None else files_by_stem(masks, MASK_SUFFIXES, "masks")
    stems = sorted(set(images) & set(given))
    if len(stems) < 2:
        raise InputError("at least two frames with predictions", str(len(stems)), "files that share their stems")
    video = VideoRefiner(refiner)
    methods = [SEGMENTOR, SINGLE, PRIOR] + ([TRUTH] if truths else [])
    flickers: dict[str, list[float]] = {method: [] for method in methods}
    confusion = {method: ConfusionMatrix(space.num_classes or 1, space.ignore_index) for method in methods}
    before: dict[str, np.ndarray] = {}
    last = images[stems[0]]
    for number, stem in enumerate(stems):
        pixels = load_image(images[stem])
        values, kind = read_prediction_file(given[stem])
        settings = {"kind": kind, "num_classes": space.num_classes, "ignore_index": space.ignore_index}
        known = load_prediction(values, (pixels.shape[-2], pixels.shape[-1]), **settings)
        refined = {SINGLE: refiner.refine(pixels, values, **settings), PRIOR: video.refine(pixels, values, **settings)}
        labels = {SEGMENTOR: known.argmax().numpy()} | {method: answer.labels for method, answer in refined.items()}
        if truths:
            labels[TRUTH] = read_prediction_file(truths[stem])[0].astype(np.int64)
        for method in methods:
            if truths:
                confusion[method].update(labels[method], labels[TRUTH])
            if number:
                flickers[method].append(flicker(labels[method], before[method], pixels, last))
        if out is not None:
            save(refined, out, stem)
        last, before = images[stem], labels
    figures = {method: {"flicker": 100 * float(np.nanmean(flickers[method]))} for method in methods}
    if truths:
        for method in methods:
            figures[method]["miou"] = confusion[method].miou
    return figures


def save(refined: dict[str, Refinement], out: Path, stem: str) -> None:
    for method, answer in refined.items():
        folder = out / method.replace("the ", "").replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        answer.save(folder / f"{stem}.png", overwrite=True)


def show(figures: Figures) -> None:
    for method, row in figures.items():
        miou = row.get("miou", math.nan)
        print(f"{method:15} flicker {row['flicker']:6.3f} %" + ("" if math.isnan(miou) else f"   mIoU {miou:6.2f}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=Path, metavar="FRAMES")
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--masks", type=Path, help="true label maps, .png; needs --classes")
    parser.add_argument("--classes", type=Path, help="classes.json; needed for label maps as predictions, too")
    for option in ("model", "device"):
        parser.add_argument(f"--{option}", help="as for `ddps refine`")
    args = parser.parse_args()
    try:
        space = LabelSpace() if args.classes is None else read_classes(args.classes)
        if args.masks is not None and space.num_classes is None:
            raise InputError("--classes with --masks", "none", "a classes.json with num_classes")
        refiner = DDPSRefiner.from_pretrained(args.model or "universal", device=args.device)
        figures = measure_video(refiner, args.frames, args.predictions, args.masks, space, args.out)
    except InputError as error:
        sys.exit(f"error: {error}")
    with atomic_write(args.out / "report.json", overwrite=True) as file:
        file.write((json.dumps(figures, indent=2) + "\n").encode())
    show(figures)


if __name__ == "__main__":
    main()
