"""The benchmark's figures as text, Markdown and JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..benchmark import Figures
from .report import percent, table

COLUMNS = (
    "input",
    "method",
    "mIoU",
    "mBIoU",
    "accuracy",
    "Δ mIoU",
    "Δ mBIoU",
    "Δ accuracy",
    "worst image",
    "got worse",
    "unchanged",
    "s/image",
)
LEGEND = (
    "All in percent or points but the seconds. Δ: against the segmentor alone. worst image: the lowest change of any "
    "image's own mIoU. got worse: share of the images whose own mIoU fell. unchanged: share of the pixels that keep "
    "the input's class."
)


@dataclass(frozen=True, eq=False)
class InputResult:
    """The figures of all methods on one input of one set.

    Attributes:
        set_name, input_name: which input.
        images: how many were measured.
        figures: method → figures, the segmentor alone first.
        labels: method → its name in a table.
        thin: id → name of the classes that are reported one by one.
    """

    set_name: str
    input_name: str
    images: int
    figures: Mapping[str, Figures]
    labels: Mapping[str, str]
    thin: Mapping[int, str]

    @property
    def base(self) -> Figures:
        return next(iter(self.figures.values()))


def as_text(head: Mapping[str, object], results: Sequence[InputResult]) -> str:
    """What the terminal shows."""
    parts = [_title(head), table(_rows(results)), LEGEND]
    if any(result.thin for result in results):
        parts.append(table(_thin_rows(results)))
    return "\n\n".join(parts)


def as_markdown(head: Mapping[str, object], results: Sequence[InputResult]) -> str:
    """The same for a document."""
    parts = [_title(head), _markdown(_rows(results), 2), LEGEND]
    if any(result.thin for result in results):
        parts.append(_markdown(_thin_rows(results), 2))
    return "\n\n".join(parts) + "\n"


def as_json(head: Mapping[str, object], results: Sequence[InputResult]) -> dict[str, object]:
    """All figures, with the worst image by name."""
    return {**head, "inputs": [_json_input(result) for result in results]}


def _json_input(result: InputResult) -> dict[str, object]:
    methods = {}
    for method, one in result.figures.items():
        methods[method] = {
            "label": result.labels[method],
            "miou": one.miou,
            "mbiou": one.mbiou,
            "accuracy": one.accuracy,
            "change": {
                "miou": one.miou - result.base.miou,
                "mbiou": one.mbiou - result.base.mbiou,
                "accuracy": one.accuracy - result.base.accuracy,
            },
            "worst_image": {"stem": one.worst_stem, "miou_change": one.worst_change},
            "images_worse": one.worse,
            "unchanged": one.unchanged,
            "seconds_per_image": one.seconds,
            "thin": {name: float(one.per_class_iou[index]) for index, name in result.thin.items()},
        }
    return {"set": result.set_name, "input": result.input_name, "images": result.images, "methods": methods}


def _title(head: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in head.items())


def _rows(results: Sequence[InputResult]) -> list[list[str]]:
    rows = [list(COLUMNS)]
    for result in results:
        for position, (method, one) in enumerate(result.figures.items()):
            # Named once: a name in every row hides where the next input starts.
            name = f"{result.set_name}, {result.input_name} ({result.images})" if position == 0 else ""
            figures = [percent(one.miou), percent(one.mbiou), percent(one.accuracy)]
            rows.append([name, result.labels[method], *figures, *_changes(result, one, position), _seconds(one)])
    return rows


def _changes(result: InputResult, one: Figures, position: int) -> list[str]:
    if position == 0:
        return [""] * 6
    base = result.base
    return [
        percent(one.miou - base.miou, signed=True),
        percent(one.mbiou - base.mbiou, signed=True),
        percent(one.accuracy - base.accuracy, signed=True),
        percent(one.worst_change, signed=True),
        _share(one.worse),
        percent(one.unchanged),
    ]


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0f}"


def _seconds(one: Figures) -> str:
    return "-" if math.isnan(one.seconds) else f"{one.seconds:.3f}"


def _thin_rows(results: Sequence[InputResult]) -> list[list[str]]:
    """IoU of the thin classes before, and after every method."""
    methods = list(results[0].figures)
    rows = [["input", "thin class, IoU", "before", *methods[1:]]]
    for result in results:
        for index, name in result.thin.items():
            before = float(result.base.per_class_iou[index])
            cells = [percent(before)]
            for method in methods[1:]:
                after = float(result.figures[method].per_class_iou[index])
                cells.append(f"{percent(after)} ({percent(after - before, signed=True)})")
            rows.append([f"{result.set_name}, {result.input_name}", name, *cells])
    return rows


def _markdown(rows: Sequence[Sequence[str]], left: int) -> str:
    """A table whose first `left` columns are text, and the others figures."""
    rule = ["---"] * left + ["---:"] * (len(rows[0]) - left)
    lines = [rows[0], rule, *rows[1:]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
