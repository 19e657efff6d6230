"""Plots of what `ddps benchmark speed -o FILE` has measured: time and memory over pixels and over classes.

    ddps benchmark speed --model universal --sizes 256,512,768,1024,1024x2048,2160x3840 --classes 19 -o pixels.json
    ddps benchmark speed --model universal --sizes 512 --classes 2,8,21,150,1000 -o classes.json
    python examples/speed_plots.py pixels.json classes.json --plot scale.png

Needs matplotlib.
"""

import argparse
import json
from pathlib import Path

from ddps.atomic import atomic_write

BLUE, ORANGE = "#1f5fa8", "#c2571a"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pixels", type=Path, help="several sizes, one number of classes")
    parser.add_argument("classes", type=Path, help="one size, several numbers of classes")
    parser.add_argument("--plot", type=Path, required=True)
    args = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.8))
    for ax, path, what in zip(axes, (args.pixels, args.classes), ("megapixels", "classes"), strict=True):
        cases = json.loads(path.read_text())["cases"]
        size = [case["size"][0] * case["size"][1] / 1e6 if what == "megapixels" else case["classes"] for case in cases]
        figures = [case["timings"]["refine"] for case in cases]
        seconds = [figure["seconds"] for figure in figures]
        median = [one["median"] for one in seconds]
        ax.fill_between(
            size, [one["shortest"] for one in seconds], [one["longest"] for one in seconds], color=BLUE, alpha=0.15
        )
        ax.plot(size, median, "o-", color=BLUE)
        ax.set_xscale("log")
        ax.set_xlabel(what)
        ax.set_ylabel("seconds", color=BLUE)
        ax.grid(alpha=0.25)
        beside = ax.twinx()
        beside.plot(size, [figure["peak_memory_bytes"] / 2**20 for figure in figures], "s--", color=ORANGE)
        beside.set_ylabel("MiB, beyond the loaded model", color=ORANGE)
        beside.set_ylim(bottom=0)
        if what == "megapixels":
            ax.set_yscale("log")
            rate = median[-1] / size[-1]
            ax.plot(size, [rate * one for one in size], ":", color="black", lw=1)
            ax.set_title(f"{cases[0]['classes']} classes (dotted: {rate:.1f} s a megapixel)", fontsize=10)
        else:
            ax.set_ylim(bottom=0)
            ax.set_title("{} x {} pixels".format(*cases[0]["size"]), fontsize=10)
    fig.tight_layout()
    with atomic_write(args.plot, overwrite=True) as file:
        fig.savefig(file, format=Path(args.plot).suffix[1:] or None, dpi=130)


if __name__ == "__main__":
    main()
