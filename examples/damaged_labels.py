"""Does `ddps refine --review` find the bad labels of a folder? Some are damaged on purpose, and then looked for.

    python examples/damaged_labels.py DATA/camvid/test/images DATA/camvid/test/masks WORK/camvid --images 100
    python examples/damaged_labels.py DATA/dubai_aerial/test/images DATA/dubai_aerial/test/masks WORK/dubai --share 0.5

A share of the label files is damaged, every kind of damage in turn; void stays void:

- shift: the whole map moved by 1 % of the image diagonal, in a random direction;
- swap: a class of 1 to 40 % of the labelled pixels painted as another class of the image;
- polygon: outlines simplified as a hasty annotator draws them (needs OpenCV);
- stride16: the class at the centre of every 16 x 16 pixels;
- dilate5: every class grown by 5 pixels into the others.

WORK/labels gets the label files, WORK/damage.json the list, WORK/refined what `ddps refine` writes, with its page, and
WORK/report.json the figures: where the damaged files stand in the order of the page (AUROC: how often a damaged file
stands before one that is not; precision at k: how many of the first k are damaged, with k damaged files in all), and
how good the labels are, held against the true ones, before and after. What is in WORK already is not done again.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddps.atomic import atomic_write
from ddps.cli.main import main as ddps
from ddps.datasets import IMAGE_SUFFIXES, MASK_SUFFIXES, files_by_stem, read_classes
from ddps.errors import InputError
from ddps.metrics import SegmentationMetrics
from ddps.predictions import read_prediction_file
from ddps.resize import nearest_index
from ddps.review_rows import read_rows
from ddps.rough import dilated, fill, polygonised, strided

Labels = NDArray[np.int64]
KINDS = ("shift", "swap", "polygon", "stride16", "dilate5")
SCORES = ("changed", "uncertainty")


def damage(truth: Labels, kind: str, void: int, rng: np.random.Generator) -> Labels:
    """A damaged copy of a true label map; see the module."""
    if kind == "swap":
        return swapped(truth, void, rng)
    whole = fill(truth, truth == void)
    if kind == "shift":
        bad = shifted(whole, 0.01 * math.hypot(*truth.shape), rng)
    elif kind == "polygon":
        bad = polygonised(whole, void)
    elif kind == "dilate5":
        bad = dilated(whole, 5, void, rng)
    else:
        bad = enlarged(strided(whole, 16), truth.shape)
    return np.where(truth == void, void, bad)


def shifted(labels: Labels, distance: float, rng: np.random.Generator) -> Labels:
    """Moved by so many pixels; what comes in at the border repeats it."""
    angle = rng.uniform(0, 2 * math.pi)
    down, right = round(distance * math.sin(angle)), round(distance * math.cos(angle))
    height, width = labels.shape
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return labels[np.ix_(rows, columns)]


def swapped(labels: Labels, void: int, rng: np.random.Generator) -> Labels:
    """One class painted as another that the image shows, too; a map without two such classes stays."""
    classes, counts = np.unique(labels[labels != void], return_counts=True)
    share = counts / max(1, counts.sum())
    fitting = classes[(share >= 0.01) & (share <= 0.4)]
    if len(classes) < 2 or not len(fitting):
        return labels.copy()
    loses = rng.choice(fitting)
    wins = rng.choice(classes[classes != loses])
    return np.where(labels == loses, wins, labels)


def enlarged(coarse: Labels, size: tuple[int, ...]) -> Labels:
    rows, columns = (
        nearest_index(0, side, count, side).numpy() for side, count in zip(size, coarse.shape, strict=True)
    )
    return coarse[np.ix_(rows, columns)]


def make_labels(args: argparse.Namespace, masks: dict[str, Path], void: int) -> dict[str, str]:
    """Writes the label folder; name of every file → kind of its damage, or "" for none."""
    settings = {key: getattr(args, key) for key in ("share", "seed", "kinds", "images")}
    listing, folder = args.work / "damage.json", args.work / "labels"
    if listing.is_file():
        known = json.loads(listing.read_text())
        if known["settings"] != settings:
            raise InputError(f"the settings that {listing} holds", str(settings), "another WORK for another experiment")
        return {file["name"]: file["damage"] for file in known["files"]}
    rng = np.random.default_rng(args.seed)
    names = sorted(masks)
    if args.images is not None:
        # spread over the folder: neighbours are often frames of one film
        names = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, args.images).round().astype(int))]
    chosen = rng.permutation(names)[: max(1, round(args.share * len(names)))].tolist()
    kind_of = {name: args.kinds[i % len(args.kinds)] for i, name in enumerate(chosen)}
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in names:
        truth, kind = read_prediction_file(masks[name])[0], kind_of.get(name, "")
        labels = damage(truth, kind, void, rng) if kind else truth
        with atomic_write(folder / f"{name}.png", overwrite=True) as file:
            Image.fromarray(labels.astype(np.uint8)).save(file, format="PNG")
        wrong = 100 * float((labels != truth)[truth != void].mean()) if (truth != void).any() else 0.0
        files.append({"name": name, "damage": kind, "wrong_pixels_percent": wrong})
    write_json({"settings": settings, "files": files}, listing)
    return {name: kind_of.get(name, "") for name in names}


def refine(args: argparse.Namespace) -> None:
    command = ["refine", args.images_folder, args.work / "labels", "-o", args.work / "refined"]
    command += ["--classes", args.classes, "--review", 0, "--review-most", args.review_most, "--resume"]
    for option in ("model", "device", "steps", "workers"):
        if getattr(args, option) is not None:
            command += [f"--{option}", getattr(args, option)]
    if ddps([str(part) for part in command]):
        raise SystemExit("ddps refine failed")


def auroc(bad: list[float], good: list[float]) -> float:
    """How often a bad file has the higher score; equal ones count half."""
    if not bad or not good:
        return math.nan
    difference = np.array(bad)[:, None] - np.array(good)
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def find(kind_of: dict[str, str], rows: Path) -> dict[str, dict[str, float]]:
    """AUROC of every kind of damage and of all, and precision at k, for every score."""
    scores = {name: row.as_dict() for name, row in read_rows(rows).items()}
    found = {}
    for score in SCORES:
        value = {name: float(scores[name][score] or 0.0) for name in kind_of}
        good = [value[name] for name, kind in kind_of.items() if not kind]
        every = [name for name, kind in kind_of.items() if kind]
        first = sorted(value, key=lambda name: -value[name])[: len(every)]
        found[score] = {"precision_at_k": 100 * sum(bool(kind_of[name]) for name in first) / len(every)}
        found[score]["all"] = auroc([value[name] for name in every], good)
        for kind in sorted(set(kind_of.values()) - {""}):
            found[score][kind] = auroc([value[name] for name in every if kind_of[name] == kind], good)
    return found


def measure(args: argparse.Namespace, kind_of: dict[str, str], masks: dict[str, Path]) -> dict[str, dict[str, object]]:
    """Figures of the labels against the true ones: of all files, of the undamaged, and of every kind of damage."""
    space = read_classes(args.classes)
    groups = ["all", "undamaged", *sorted(set(kind_of.values()) - {""})]
    totals = {
        (group, when): SegmentationMetrics(space.num_classes, space.ignore_index)
        for group in groups
        for when in ("before", "after")
    }
    for name, kind in kind_of.items():
        truth = read_prediction_file(masks[name])[0]
        for when, folder in (("before", "labels"), ("after", "refined")):
            one = SegmentationMetrics(space.num_classes, space.ignore_index)
            one.update(read_prediction_file(args.work / folder / f"{name}.png")[0], truth)
            totals["all", when].add(one)
            totals[kind or "undamaged", when].add(one)
    counts = {group: sum(group in ("all", kind or "undamaged") for kind in kind_of.values()) for group in groups}
    return {
        group: {"files": counts[group]} | {when: totals[group, when].as_dict() for when in ("before", "after")}
        for group in groups
    }


def show(report: dict) -> None:
    print(f"\n{'labels':10} files   mIoU before → after   boundary mIoU before → after")
    for group, row in report["labels"].items():
        pairs = [(row["before"][key], row["after"][key]) for key in ("miou", "mbiou")]
        (a, b), (c, d) = pairs
        print(f"{group:10} {row['files']:5}   {a:6.2f} → {b:6.2f} ({b - a:+.2f})   {c:6.2f} → {d:6.2f} ({d - c:+.2f})")
    for score, row in report["found"].items():
        kinds = ", ".join(f"{kind} {value:.3f}" for kind, value in row.items() if kind != "precision_at_k")
        print(f"\nordered by {score}: AUROC {kinds}; {row['precision_at_k']:.0f} % of the first k are damaged")


def write_json(value: object, path: Path) -> None:
    with atomic_write(path, overwrite=True) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images_folder", type=Path, metavar="IMAGES")
    parser.add_argument("labels_folder", type=Path, metavar="LABELS", help="true label maps, .png")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--classes", type=Path, help="default: classes.json two folders above the label files")
    parser.add_argument("--share", type=float, default=0.25, help="of the files to damage (default: 0.25)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--images", type=int, metavar="N", help="as many files, spread over the folder (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--review-most", type=int, default=200, metavar="N", help="items on the page")
    for option, what in (("model", str), ("device", str), ("steps", int), ("workers", int)):
        parser.add_argument(f"--{option}", type=what, help="as for `ddps refine`")
    args = parser.parse_args()
    args.classes = args.classes or args.labels_folder.parent.parent / "classes.json"
    try:
        images = files_by_stem(args.images_folder, IMAGE_SUFFIXES, "images")
        masks = files_by_stem(args.labels_folder, MASK_SUFFIXES, "label maps")
        masks = {name: path for name, path in masks.items() if name in images}
        kind_of = make_labels(args, masks, read_classes(args.classes).ignore_index)
    except InputError as error:
        sys.exit(f"error: {error}")
    refine(args)
    report = {
        "files": len(kind_of),
        "labels": measure(args, kind_of, masks),
        "found": find(kind_of, args.work / "refined" / "summary.jsonl"),
    }
    write_json(report, args.work / "report.json")
    show(report)


if __name__ == "__main__":
    main()
