"""What `ddps refine` says at its end."""

from collections.abc import Sequence

import numpy as np

from ..review import Row


def summarise(rows: Sequence[Row]) -> dict[str, object]:
    """Means over items, in percent and seconds; nan without any."""
    return {
        "changed": _mean([row.changed for row in rows]),
        "uncertainty": _mean([row.uncertainty for row in rows]),
        "seconds_per_image": _mean([row.seconds for row in rows]),
        "resized": sum(row.resized for row in rows),
    }


def one_line(report: dict[str, object]) -> str:
    """The same for a reader."""
    parts = [f"refined {report['refined']}"]
    if report["skipped"]:
        parts.append(f"skipped {report['skipped']} that existed")
    if isinstance(report["failed"], list) and report["failed"]:
        parts.append(f"failed {len(report['failed'])}")
    if report.get("smaller_tiles"):
        parts.append(f"{report['smaller_tiles']} of them in smaller tiles, as memory ran out")
    if report["without_prediction"]:
        parts.append(f"left out {report['without_prediction']} images without a prediction")
    if report["resized"]:
        parts.append(f"resized {report['resized']} label maps to their images")
    line, changed, seconds = ", ".join(parts), report["changed"], report["seconds_per_image"]
    assert isinstance(changed, float) and isinstance(seconds, float)
    if not np.isnan(seconds):
        share = "" if np.isnan(changed) else f"{changed:.2f} % of the pixels changed, "
        line += f"; {share}{seconds:.2f} s per image"
    review = report.get("review")
    if isinstance(review, dict):
        line += f"; {review['listed']} to look at in {review['page']}"
    return f"{line} -> {report['output']}"


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")
