"""The figures of `ddps evaluate` as text and as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..metrics import SegmentationMetrics
from .evaluate_data import EvaluationSet
from .report import percent, table

BASE, REFINED = "base", "refined"
"""Names of the rows that there always are: the predictions, and what the last step makes of them."""
_KEYS = ("miou", "mbiou", "accuracy")


@dataclass(frozen=True)
class Score:
    """One image's figures.

    Attributes:
        stem: of the image.
        figures: name of a row → mIoU, mBIoU and accuracy in percent.
        changed: share of the pixels that refinement changed, in percent; nan without predictions.
        seconds: of refinement.
    """

    stem: str
    figures: Mapping[str, Mapping[str, float]]
    changed: float
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """Every row under its own name, as in the file of --per-image."""
        return {"stem": self.stem, **self.figures, "changed": self.changed, "seconds": self.seconds}


def as_json(totals: Mapping[str, SegmentationMetrics], data: EvaluationSet, seconds: float) -> dict[str, object]:
    """Everything that was measured; `base` is null without predictions, `rows` is there with several answers.

    Args:
        totals: name of a row → its figures over the data set.
        data: what was measured on.
        seconds: per image.
    """
    report: dict[str, object] = {
        "images": len(data.items),
        "without_prediction": data.without_prediction,
        BASE: totals[BASE].as_dict() if BASE in totals else None,
        REFINED: totals[REFINED].as_dict(),
    }
    others = [name for name in totals if name not in (BASE, REFINED)]
    if others:
        report["rows"] = {name: metrics.as_dict() for name, metrics in totals.items()}
    report["per_class"] = [_of_class(totals, data.space.names, index) for index in range(data.num_classes or 0)]
    report["seconds_per_image"] = seconds
    return report


def as_text(totals: Mapping[str, SegmentationMetrics], data: EvaluationSet, seconds: float, per_class: bool) -> str:
    """What the terminal shows; arguments as for `as_json`, and whether every class gets a line."""
    rows = [["%", "mIoU", "mBIoU", "accuracy"]]
    for name, metrics in totals.items():
        figures = metrics.as_dict()
        rows.append([name, *(percent(figures[key]) for key in _KEYS)])
    if list(totals) == [BASE, REFINED]:
        before, after = totals[BASE].as_dict(), totals[REFINED].as_dict()
        rows.append(["change", *(percent(after[key] - before[key], signed=True) for key in _KEYS)])
    left_out = f", {data.without_prediction} without a prediction" if data.without_prediction else ""
    parts = [f"{len(data.items)} images{left_out}, {seconds:.2f} s per image", table(rows)]
    if per_class:
        parts.append(table(_class_rows(totals, data)))
    return "\n\n".join(parts)


def _class_rows(totals: Mapping[str, SegmentationMetrics], data: EvaluationSet) -> list[list[str]]:
    columns = [(f"IoU {name}", metrics.confusion.per_class_iou) for name, metrics in totals.items()]
    columns += [(f"BIoU {name}", metrics.boundary.per_class_iou) for name, metrics in totals.items()]
    rows = [["class", *(name for name, _ in columns)]]
    for index in range(data.num_classes or 0):
        figures = [float(values[index]) for _, values in columns]
        if not all(np.isnan(figures)):
            rows.append([_class_name(data.space.names, index), *map(percent, figures)])
    return rows


def _of_class(totals: Mapping[str, SegmentationMetrics], names: tuple[str, ...], index: int) -> dict[str, object]:
    figures: dict[str, object] = {"class": _class_name(names, index)}
    for name, metrics in totals.items():
        iou, biou = metrics.confusion.per_class_iou[index], metrics.boundary.per_class_iou[index]
        figures[name] = {"iou": float(iou), "biou": float(biou)}
    return figures


def _class_name(names: tuple[str, ...], index: int) -> str:
    return names[index] if names else str(index)
