"""The picture of a run's log: well-formed, with every figure in its place."""

import json
import xml.etree.ElementTree as ET

import pytest

from ddps.training.curves import HEADER, MARGIN, PANEL_HEIGHT, PANEL_WIDTH, curves, draw_curves

SVG = "{http://www.w3.org/2000/svg}"


def row(step: int, gain: float = 0.0, name: str = "set") -> dict[str, object]:
    report = {"set": name, "images": 2, "base_miou": 50.0, "base_mbiou": 40.0, "miou": 50 + gain, "mbiou": 40 + gain}
    return {"step": step, "validation": {"mix": 1.0, "score": gain, "reports": [report]}}


def parsed(rows) -> ET.Element:
    return ET.fromstring(curves(rows))


def texts(svg: ET.Element) -> list[str]:
    return [element.text or "" for element in svg.iter(f"{SVG}text")]


def test_latest_figures_are_written():
    svg = parsed([{"step": 20, "loss": 2.0}, row(20, 1.5), {"step": 40, "loss": 1.25}, row(40, 3.25)])
    written = texts(svg)
    assert "training loss: 1.25" in written
    assert "set, refined: 53.25" in written and "set, refined: 43.25" in written
    assert "set, alone: 50.00" in written and "set, alone: 40.00" in written


def test_points_lie_where_they_belong():
    svg = parsed([{"step": 10, "loss": 3.0}, {"step": 20, "loss": 1.0}])
    first, last = [(float(c.get("cx")), float(c.get("cy"))) for c in svg.iter(f"{SVG}circle")]
    assert first[0] == pytest.approx(MARGIN + PANEL_WIDTH / 2) and last[0] == pytest.approx(MARGIN + PANEL_WIDTH)
    assert HEADER < first[1] < last[1] < HEADER + PANEL_HEIGHT


@pytest.mark.parametrize(
    "rows", [[], [{"step": 1, "validation": None}], [row(5)], [{"step": 5, "loss": 1.0}], [{"a": 1}]]
)
def test_little_to_draw(rows):
    svg = parsed(rows)
    assert {"loss", "mIoU in %", "mBIoU in %"} <= set(texts(svg))


def test_a_name_with_markup_in_it():
    assert any("<&" in text for text in texts(parsed([row(5, name="<&")])))


def test_a_resumed_run_logs_a_step_twice():
    svg = parsed([{"step": 10, "loss": 3.0}, {"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}])
    assert len(list(svg.iter(f"{SVG}circle"))) == 2


def test_from_a_log_with_a_line_cut_short(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 20, "loss": 2.0}) + '\n{"step": 40, "lo')
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.svg")
    assert "training loss: 2.00" in (tmp_path / "curves.svg").read_text()
