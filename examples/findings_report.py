"""Table and plot of what `examples/findings.py` has measured.

    python examples/findings_report.py WORK/camvid WORK/dsb2018_nuclei --table findings.md --plot findings.png

Every figure is the mean over the seeds with the standard deviation between them; in brackets likewise the difference,
seed by seed, from the first row of the same number of steps under a question. The plot needs matplotlib.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

from ddps.atomic import atomic_write

Row = dict[str, object]
Chain = tuple[str, str, int, float]  # variant, sampler, steps, guidance
Figures = dict[Chain, dict[int, dict]]  # figures by chain and seed

MAIN = "first_prediction"
QUESTIONS: tuple[tuple[str, tuple[tuple[str, Chain], ...]], ...] = (
    (
        "(a) noise is added to",
        (
            ("the network's first prediction (the paper), 5 steps", (MAIN, "free", 5, 0.0)),
            ("the ground truth, 5 steps", ("ground_truth", "free", 5, 0.0)),
            ("a segmentor's prediction, 5 steps", ("segmentor", "free", 5, 0.0)),
            ("the network's first prediction, 20 steps", (MAIN, "free", 20, 0.0)),
            ("the ground truth, 20 steps", ("ground_truth", "free", 20, 0.0)),
            ("a segmentor's prediction, 20 steps", ("segmentor", "free", 20, 0.0)),
        ),
    ),
    (
        "(b) kernel",
        (
            ("uniform, 5 steps", (MAIN, "free", 5, 0.0)),
            ("absorbing, 5 steps", ("absorbing", "free", 5, 0.0)),
            ("uniform, 20 steps", (MAIN, "free", 20, 0.0)),
            ("absorbing, 20 steps", ("absorbing", "free", 20, 0.0)),
        ),
    ),
    (
        "(c) schedule",
        (
            ("linear, 5 steps", (MAIN, "free", 5, 0.0)),
            ("cosine, 5 steps", ("cosine", "free", 5, 0.0)),
            ("linear, 20 steps", (MAIN, "free", 20, 0.0)),
            ("cosine, 20 steps", ("cosine", "free", 20, 0.0)),
        ),
    ),
    (
        "(d) sampler",
        (
            ("single pass, trained for nothing else", ("single_step", "free", 1, 0.0)),
            ("free re-noising, 5 steps", (MAIN, "free", 5, 0.0)),
            ("right posterior, 5 steps", (MAIN, "posterior", 5, 0.0)),
            ("posterior as released, 5 steps", (MAIN, "released", 5, 0.0)),
            ("free re-noising, 20 steps", (MAIN, "free", 20, 0.0)),
            ("right posterior, 20 steps", (MAIN, "posterior", 20, 0.0)),
            ("posterior as released, 20 steps", (MAIN, "released", 20, 0.0)),
            ("ground truth noised, right posterior, 20 steps", ("ground_truth", "posterior", 20, 0.0)),
            ("ground truth noised, posterior as released, 20 steps", ("ground_truth", "released", 20, 0.0)),
        ),
    ),
    (
        "(e) steps, free re-noising",
        tuple((f"{steps}", (MAIN, "free", steps, 0.0)) for steps in (1, 2, 3, 5, 10, 20)),
    ),
    (
        "(f) guidance, condition dropped for 15 % of the images, 5 steps",
        tuple((f"scale {scale:g}", ("dropout", "free", 5, scale)) for scale in (0.0, 0.5, 1.0, 2.0)),
    ),
)


def read(work: Path) -> tuple[list[Row], Figures]:
    """The segmentors alone, and every chain's figures."""
    figures: Figures = {}
    for path in sorted((work / "measured").glob("*_*.json")):
        variant, seed = path.stem.rsplit("_", 1)
        for row in json.loads(path.read_text()):
            key = (variant, row["sampler"], row["steps"], row["guidance"])
            figures.setdefault(key, {})[int(seed)] = row
    return json.loads((work / "measured" / "base.json").read_text()), figures


def spread(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def cell(rows: dict[int, dict], reference: dict[int, dict] | None, figure: str) -> str:
    if not rows:
        return "-"
    values = [row[figure] for row in rows.values()]
    text = f"{mean(values):.2f} ± {spread(values):.2f}"
    if reference:
        gaps = [row[figure] - reference[seed][figure] for seed, row in rows.items() if seed in reference]
        text += f" ({mean(gaps):+.2f} ± {spread(gaps):.2f})"
    return text


def table(sets: dict[str, tuple[list[Row], Figures]]) -> str:
    seeds = {len(rows) for _, figures in sets.values() for rows in figures.values()}
    head = "".join(f" {name} mIoU | {name} mBIoU |" for name in sets)
    lines = [f"| {min(seeds)} to {max(seeds)} seeds |{head}", "|---|" + "---|---|" * len(sets)]
    if len(seeds) == 1:
        lines[0] = f"| {seeds.pop()} seeds |{head}"
    for segmentor, label in (
        ("frozen", "the frozen segmentor alone"),
        ("predictions", "the published segmentor alone"),
    ):
        cells = []
        for base, _ in sets.values():
            found = [row for row in base if row["segmentor"] == segmentor]
            cells += [f"{found[0]['miou']:.2f}", f"{found[0]['mbiou']:.2f}"] if found else ["", ""]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    for question, rows in QUESTIONS:
        lines.append(f"| **{question}** |" + " | |" * len(sets))
        firsts: dict[int, Chain] = {}
        for label, key in rows:
            # steps and guidance have one reference for all; the other questions one per number of steps
            first = firsts.setdefault(key[2] if question[1] in "abcd" else 0, key)
            cells = []
            for _, figures in sets.values():
                reference = None if first == key else figures.get(first)
                cells += [cell(figures.get(key, {}), reference, figure) for figure in ("miou", "mbiou")]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(sets: dict[str, tuple[list[Row], Figures]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    curves = (
        ("free re-noising", MAIN, "free", "#1f5fa8", "o-"),
        ("right posterior", MAIN, "posterior", "#c2571a", "s--"),
        ("posterior as released", MAIN, "released", "#8a8a8a", "^:"),
        ("ground truth noised, free", "ground_truth", "free", "#2e8b57", "D-"),
    )
    fig, axes = plt.subplots(2, len(sets), figsize=(4.6 * len(sets), 6.2), sharex=True, squeeze=False)
    for column, (name, (base, figures)) in enumerate(sets.items()):
        for row, figure in enumerate(("miou", "mbiou")):
            ax = axes[row][column]
            for label, variant, sampler, colour, style in curves:
                points = sorted(k[2] for k in figures if k[:2] == (variant, sampler) and k[3] == 0.0)
                values = [[r[figure] for r in figures[variant, sampler, steps, 0.0].values()] for steps in points]
                bars = [spread(v) for v in values]
                ax.errorbar(points, [mean(v) for v in values], bars, fmt=style, color=colour, label=label, capsize=3)
            single = figures.get(("single_step", "free", 1, 0.0))
            if single:
                ax.axhline(mean(r[figure] for r in single.values()), color="#c2571a", lw=1, label="single-step model")
            alone = next(r for r in base if r["segmentor"] == "frozen")
            ax.axhline(alone[figure], color="black", lw=1, ls="-.", label="frozen segmentor alone")
            ax.set_xscale("log")
            ax.set_xticks([1, 2, 3, 5, 10, 20], ["1", "2", "3", "5", "10", "20"])
            ax.minorticks_off()
            ax.set_ylabel("mIoU" if figure == "miou" else "mBIoU")
            ax.grid(alpha=0.25)
            if row == 0:
                ax.set_title(name)
            else:
                ax.set_xlabel("steps")
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="lower center", ncol=3, frameon=False, fontsize=9)
    fig.tight_layout(rect=(0, 0.09, 1, 1))
    with atomic_write(path, overwrite=True) as file:
        fig.savefig(file, format=Path(path).suffix[1:] or None, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, nargs="+", help="folders of `examples/findings.py`")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    sets = {work.name: read(work) for work in args.work}
    if args.table:
        with atomic_write(args.table, overwrite=True) as file:
            file.write(table(sets).encode())
    else:
        print(table(sets), end="")
    if args.plot:
        plot(sets, args.plot)


if __name__ == "__main__":
    main()
