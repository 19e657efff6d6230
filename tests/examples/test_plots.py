"""The scripts that draw what `ddps evaluate` and `ddps refine` have written."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
steps_plot = runpy.run_path(str(EXAMPLES / "steps_plot.py"))
confusion_plot = runpy.run_path(str(EXAMPLES / "confusion_plot.py"))


def report() -> dict:
    def row(miou):
        return {"miou": miou, "mbiou": miou - 10, "accuracy": 90.0}

    rows = {"base": row(60.0), "step 1": row(61.0), "step 10": row(62.5), "refined": row(62.0), "average": row(1.0)}
    return {"base": rows["base"], "refined": rows["refined"], "rows": rows}


def run(script: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, EXAMPLES / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_gains_are_over_the_predictions_in_the_order_of_steps():
    gains = steps_plot["gains"](report(), None)
    assert gains == {1: {"miou": 1.0, "mbiou": 1.0}, 10: {"miou": 2.5, "mbiou": 2.5}}
    assert list(steps_plot["gains"](report(), 20)) == [1, 10, 20]
    assert steps_plot["gains"](report(), 20)[20]["miou"] == 2.0
    with pytest.raises(ValueError, match="after step 10"):
        steps_plot["gains"](report(), 10)


def test_a_report_without_steps_is_refused_in_one_line(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"base": None, "refined": {}}))
    done = run("steps_plot.py", tmp_path / "a.json", "--plot", tmp_path / "a.png")
    assert done.returncode == 1 and done.stderr.startswith("expected a report of") and done.stderr.count("\n") == 1
    assert not (tmp_path / "a.png").exists()


def test_steps_are_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="plots need it: pip install matplotlib")
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(json.dumps(report()))
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    done = run("steps_plot.py", *files, "--last", 20, "--plot", tmp_path / "steps.png")
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "steps.png").width > 800


@pytest.fixture
def folders(tmp_path):
    """Two pairs of 8 x 12 over three classes; the first half of class 1 is predicted as class 2, then mended."""
    for name in ("masks", "before", "after"):
        (tmp_path / name).mkdir()
    mask = np.zeros((8, 12), np.uint8)
    mask[:, 4:8], mask[:, 8:] = 1, 2
    mask[0] = 255
    wrong = np.where(mask == 255, 0, mask)
    wrong[1:, 4:6] = 2
    for stem in ("a", "b"):
        Image.fromarray(mask).save(tmp_path / "masks" / f"{stem}.png")
        probs = np.eye(3, dtype=np.float32)[wrong].transpose(2, 0, 1)
        np.savez(tmp_path / "before" / f"{stem}.npz", probs=probs)
        Image.fromarray(mask).save(tmp_path / "after" / f"{stem}.png")
    (tmp_path / "before" / "notes.txt").write_text("no prediction")
    about = {"classes": ["wall", "box", "floor"], "num_classes": 3, "ignore_index": 255}
    (tmp_path / "classes.json").write_text(json.dumps(about))
    return tmp_path


def test_confusion_counts_pairs_without_void(folders):
    counted = confusion_plot["confusion"](folders / "masks", folders / "before", 3, 255)
    assert counted.counts.tolist() == [[56, 0, 0, 0], [0, 28, 28, 0], [0, 0, 56, 0]]
    assert confusion_plot["shares"](counted)[1].tolist() == [0, 50, 50, 0]
    mended = confusion_plot["confusion"](folders / "masks", folders / "after", 3, 255)
    assert mended.miou == 100


def test_confusion_is_drawn(folders):
    pytest.importorskip("matplotlib", reason="plots need it: pip install matplotlib")
    places = [folders / name for name in ("masks", "before", "after")]
    done = run("confusion_plot.py", *places, "--classes", folders / "classes.json", "--plot", folders / "c.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "mIoU 72.22 before, 100.00 after\n"
    # The classes' own colours lie along the axes.
    colours = {colour for _, colour in Image.open(folders / "c.png").convert("RGB").getcolors(1 << 24)}
    assert set(confusion_plot["default_palette"](3)) <= colours


def test_folders_without_pairs_are_refused_in_one_line(folders):
    (folders / "none").mkdir()
    places = [folders / "masks", folders / "none", folders / "after"]
    done = run("confusion_plot.py", *places, "--classes", folders / "classes.json", "--plot", folders / "c.png")
    assert done.returncode == 1 and done.stderr.startswith("expected predictions in") and done.stderr.count("\n") == 1
