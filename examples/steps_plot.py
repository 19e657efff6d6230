"""Gain in mIoU and mBIoU against the number of steps, from what `ddps evaluate` has measured along its chain.

    ddps evaluate --images images --masks masks --classes classes.json --predictions predictions \
        --steps 1,2,3,5,10 --json > cgnet.json
    python examples/steps_plot.py cgnet.json espnet.json --last 10 --plot steps.png

A line for every file, named as it is. Needs matplotlib.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from ddps.atomic import atomic_write

COLOURS = ("#4f46e5", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8a6d00")
MEASURES = (("miou", "mIoU"), ("mbiou", "boundary mIoU"))


def gains(report: dict[str, Any], last: int | None) -> dict[int, dict[str, float]]:
    """Steps → gain over the predictions, in points.

    Args:
        report: JSON object of `ddps evaluate --steps A,B,C`.
        last: C, which the report calls "refined"; None leaves it out.

    Raises:
        ValueError: a report without predictions, or of a single number of steps.
    """
    base, rows = report.get("base"), report.get("rows", {})
    found = {int(match[1]): row for name, row in rows.items() if (match := re.fullmatch(r"step (\d+)", name))}
    if not base or not found:
        raise ValueError("expected a report of 'ddps evaluate --predictions ... --steps A,B,C --json'")
    if last is not None:
        if last <= max(found):
            raise ValueError(f"expected --last after step {max(found)}; got {last}")
        found[last] = report["refined"]
    return {step: {key: row[key] - base[key] for key, _ in MEASURES} for step, row in sorted(found.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", type=Path, nargs="+", help="JSON that ddps evaluate printed")
    parser.add_argument("--last", type=int, metavar="C", help="also the chain's end, after C steps")
    parser.add_argument("--plot", type=Path, required=True, help="picture to write, of a type that matplotlib knows")
    args = parser.parse_args()
    try:
        lines = {path.stem: gains(json.loads(path.read_text()), args.last) for path in args.reports}
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.2), sharex=True)
    for ax, (key, title) in zip(axes, MEASURES, strict=True):
        for index, (name, line) in enumerate(lines.items()):
            steps = list(line)
            ax.plot(steps, [line[step][key] for step in steps], "os^Dv"[index % 5] + "-", label=name,
                    color=COLOURS[index % len(COLOURS)])  # fmt: skip
        steps = sorted({step for line in lines.values() for step in line})
        ax.set_xscale("log")
        ax.set_xticks(steps, [str(step) for step in steps])
        ax.minorticks_off()
        ax.axhline(0, color="#202020", lw=0.8)
        ax.set_xlabel("steps")
        ax.set_title(f"gain in {title}, points", fontsize=10, loc="left")
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=9, frameon=False)
    fig.tight_layout()
    with atomic_write(args.plot, overwrite=True) as file:
        fig.savefig(file, format=Path(args.plot).suffix[1:] or None, dpi=130)


if __name__ == "__main__":
    main()
