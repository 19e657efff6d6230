"""Confusion matrices of predictions before and after refinement, and their difference, with the classes' colours.

    ddps refine images predictions -o refined --classes classes.json
    python examples/confusion_plot.py masks predictions refined --classes classes.json --plot confusion.png

Files pair up by their stem; a prediction is an .npz, .npy or .png at any resolution, as for `ddps evaluate`. Rows are
true classes and sum to 100 %, void left out. Needs matplotlib.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ddps.atomic import atomic_write
from ddps.errors import InputError
from ddps.metrics import ConfusionMatrix
from ddps.predictions import load_prediction, read_prediction_file
from ddps.visualize import default_palette


def confusion(masks: Path, predictions: Path, num_classes: int, ignore_index: int) -> ConfusionMatrix:
    """Counts over all predictions that have a mask.

    Raises:
        InputError: no pair of files, or one that does not fit.
    """
    counted, pairs = ConfusionMatrix(num_classes, ignore_index), 0
    for path in sorted(predictions.iterdir()):
        mask = masks / f"{path.stem}.png"
        if path.suffix in (".npz", ".npy", ".png") and mask.exists():
            target = np.asarray(Image.open(mask))
            values, kind = read_prediction_file(path)
            known = load_prediction(values, target.shape, kind or "auto", ignore_index, num_classes)
            counted.update(known.argmax(), target)
            pairs += 1
    if not pairs:
        raise InputError(f"predictions in {predictions} with masks of their stems", "none", "checking both folders")
    return counted


def shares(counted: ConfusionMatrix) -> np.ndarray:
    """(K, K + 1) in percent of the true class's pixels; the last column is "predicted void"; nan without pixels."""
    total = counted.counts.sum(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return 100.0 * counted.counts / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("masks", type=Path, help="true label maps, .png")
    parser.add_argument("before", type=Path, help="the segmentor's predictions")
    parser.add_argument("after", type=Path, help="what ddps refine made of them")
    parser.add_argument("--classes", type=Path, required=True, help='{"num_classes", "classes", "ignore_index"}')
    parser.add_argument("--plot", type=Path, required=True, help="picture to write, of a type that matplotlib knows")
    args = parser.parse_args()
    about = json.loads(args.classes.read_text())
    count, void = about["num_classes"], about.get("ignore_index", 255)
    try:
        before, after = (confusion(args.masks, folder, count, void) for folder in (args.before, args.after))
    except (InputError, OSError) as error:
        sys.exit(str(error))
    draw(shares(before), shares(after), about.get("classes") or [str(index) for index in range(count)], args.plot)
    print(f"mIoU {before.miou:.2f} before, {after.miou:.2f} after")


def draw(before: np.ndarray, after: np.ndarray, names: list[str], target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    count = len(names)
    # Void is no class that a mask has; its column shows only where something was predicted void.
    width = count + bool(np.nansum(before[:, count]) or np.nansum(after[:, count]))
    change = (after - before)[:, :width]
    most = max(0.1, float(np.nanmax(np.abs(change))))
    colours = [tuple(channel / 255 for channel in colour) for colour in default_palette(count)] + [(0, 0, 0)]
    side = max(2.4, 0.26 * count)
    fig, axes = plt.subplots(1, 3, figsize=(3 * side + 1.8, side + 1.3), constrained_layout=True)
    panels = (("before, %", before[:, :width], "Blues", 0, 100), ("after, %", after[:, :width], "Blues", 0, 100),
              ("after - before, points", change, "RdBu", -most, most))  # fmt: skip
    for ax, (title, values, colour_map, low, high) in zip(axes, panels, strict=True):
        shown = ax.imshow(values, cmap=colour_map, vmin=low, vmax=high)
        if ax is not axes[0]:
            fig.colorbar(shown, ax=ax, shrink=0.7, pad=0.02).ax.tick_params(labelsize=7)
        ax.set_title(title, fontsize=9, loc="left")
        ax.set_xticks(range(width), [*names, "void"][:width], rotation=60, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(count), names if ax is axes[0] else [""] * count)
        ax.tick_params(length=0, pad=14, labelsize=8)
        ax.spines[:].set_visible(False)
        # Beside every class the colour that it has in masks.
        frame = {"transform": ax.transData, "clip_on": False}
        for index in range(width):
            ax.add_patch(plt.Rectangle((index - 0.4, count - 0.4), 0.8, 0.35, color=colours[index], **frame))
            if index < count:
                ax.add_patch(plt.Rectangle((-0.95, index - 0.4), 0.35, 0.8, color=colours[index], **frame))
        if count <= 30:
            write(ax, values, signed=ax is axes[2], dark=0.6 * high)
    axes[0].set_ylabel("true")
    fig.supxlabel("predicted", fontsize=9)
    with atomic_write(target, overwrite=True) as file:
        fig.savefig(file, format=Path(target).suffix[1:] or None, dpi=150)


def write(ax, values: np.ndarray, signed: bool, dark: float) -> None:
    """Figures of 0.5 and more into their cells."""
    for row, column in zip(*np.nonzero(np.abs(np.nan_to_num(values)) >= 0.5), strict=True):
        value = values[row, column]
        text = f"{value:+.0f}" if signed else f"{value:.0f}"
        if text in ("+0", "-0"):
            continue
        colour = "white" if abs(value) > dark else "#202020"
        ax.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)


if __name__ == "__main__":
    main()
