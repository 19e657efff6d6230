"""examples/damaged_labels.py: what it does to labels, and a run with a tiny refiner."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "damaged_labels.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("damaged_labels", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def truth():
    labels = np.zeros((90, 120), dtype=np.int64)
    labels[20:70, 30:60], labels[60:, 70:], labels[:5] = 1, 2, 255
    return labels


@pytest.mark.parametrize("kind", ["shift", "swap", "stride16", "dilate5", "polygon"])
def test_damage_keeps_void_and_invents_no_class(script, truth, kind):
    if kind == "polygon":
        pytest.importorskip("cv2")
    before = truth.copy()
    bad = script.damage(truth, kind, 255, np.random.default_rng(0))
    np.testing.assert_array_equal(truth, before)
    np.testing.assert_array_equal(bad == 255, truth == 255)
    assert set(np.unique(bad)) <= {0, 1, 2, 255}
    assert kind == "polygon" or 0 < (bad != truth).mean() < 0.5


def test_a_shift_is_as_long_as_it_says(script):
    labels = np.arange(100 * 100).reshape(100, 100)
    moved = script.shifted(labels, 10, np.random.default_rng(3))
    down, right = divmod(int(labels[50, 50] - moved[50, 50]), 100)
    down, right = (down + 1, right - 100) if right > 50 else (down, right)
    assert np.hypot(down, right) == pytest.approx(10, abs=1)


def test_nothing_to_swap(script):
    labels = np.zeros((4, 4), dtype=np.int64)
    np.testing.assert_array_equal(script.swapped(labels, 255, np.random.default_rng(0)), labels)


def test_auroc(script):
    assert script.auroc([3, 4], [1, 2]) == 1 and script.auroc([1], [1]) == 0.5 and script.auroc([1, 4], [2, 3]) == 0.5
    assert np.isnan(script.auroc([], [1]))


def test_a_run_and_a_second_one_over_it(tmp_path, tiny_model_dir):
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / "set" / "test" / part).mkdir(parents=True)
    for index in range(4):
        mask = np.zeros((64, 64), np.uint8)
        mask[8 * index : 40, 10:40] = 1
        image = (120 * mask[..., None] + rng.integers(0, 40, (64, 64, 3))).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "set" / "test" / "images" / f"{index}.jpg")
        Image.fromarray(mask).save(tmp_path / "set" / "test" / "masks" / f"{index}.png")
    (tmp_path / "set" / "classes.json").write_text('{"num_classes": 2}')
    folders = (tmp_path / "set" / "test" / "images", tmp_path / "set" / "test" / "masks", tmp_path / "work")
    options = ("--share", 0.5, "--kinds", "shift", "swap", "--model", tiny_model_dir, "--device", "cpu", "--images", 3)
    command = [sys.executable, SCRIPT, *map(str, folders), *map(str, options)]
    reports = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        reports.append(json.loads((tmp_path / "work" / "report.json").read_text()))
    assert reports[0] == reports[1] and reports[0]["files"] == 3
    assert reports[0]["labels"]["undamaged"]["before"]["miou"] == 100
    assert reports[0]["labels"]["all"]["before"]["miou"] < 100
    listing = json.loads((tmp_path / "work" / "damage.json").read_text())
    assert [bool(file["damage"]) == (file["wrong_pixels_percent"] > 0) for file in listing["files"]] == [True] * 3
    assert (tmp_path / "work" / "refined" / "review.html").is_file()
    done = subprocess.run([*command, "--seed", "1"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "another WORK" in done.stderr
