import json
import math

import numpy as np
import pytest
from PIL import Image

from ddps.metrics import SegmentationMetrics
from ddps.predictions import load_prediction


@pytest.fixture
def evaluate(run, data_set, tiny_model_dir):
    """Runs `ddps evaluate` on the small data set with the tiny model."""

    def command(*arguments, predictions=data_set.predictions):
        folders = ("--images", data_set.images, "--masks", data_set.masks, "--predictions", predictions)
        return run("evaluate", *folders, "--model", tiny_model_dir, "--device", "cpu", *arguments)

    return command


@pytest.fixture
def classes(tmp_path):
    """Writes a classes.json."""

    def write(**values):
        path = tmp_path / "classes.json"
        path.write_text(json.dumps(values))
        return path

    return write


def read_mask(path):
    with Image.open(path) as mask:
        return np.array(mask)


def test_json_has_the_documented_form(evaluate):
    report = evaluate("--json").json
    assert list(report) == ["images", "without_prediction", "base", "refined", "per_class", "seconds_per_image"]
    assert report["images"] == 3 and report["without_prediction"] == 0 and report["seconds_per_image"] > 0
    for part in ("base", "refined"):
        assert list(report[part]) == ["miou", "mbiou", "accuracy"]
        assert all(0 <= value <= 100 for value in report[part].values())
    assert [row["class"] for row in report["per_class"]] == ["0", "1", "2"]


def test_figures_are_those_of_the_data_set(evaluate, data_set, tiny_model_dir):
    from ddps import DDPSRefiner

    refiner = DDPSRefiner.from_pretrained(tiny_model_dir, device="cpu")
    base, refined = SegmentationMetrics(3), SegmentationMetrics(3)
    for path in sorted(data_set.predictions.iterdir()):
        target = read_mask(data_set.masks / f"{path.stem}.png")
        base.update(load_prediction(path, target.shape).argmax(), target)
        refined.update(refiner.refine(data_set.images / f"{path.stem}.png", path).labels, target)
    report = evaluate("--json").json
    assert report["base"] == pytest.approx(base.as_dict()) and report["refined"] == pytest.approx(refined.as_dict())
    ious = [row["base"]["iou"] for row in report["per_class"]]
    assert ious == pytest.approx(base.confusion.per_class_iou.tolist())
    bious = [row["refined"]["biou"] for row in report["per_class"]]
    assert bious == pytest.approx(refined.boundary.per_class_iou.tolist())


def test_true_masks_as_predictions_are_perfect(evaluate, data_set):
    report = evaluate("--json", predictions=data_set.masks).json
    assert report["base"] == {"miou": 100.0, "mbiou": 100.0, "accuracy": 100.0}


def test_the_table_says_the_same(evaluate):
    outcome = evaluate()
    assert outcome.code == 0 and outcome.err == ""
    assert "3 images," in outcome.out and "refined" in outcome.out and "mBIoU" in outcome.out


def test_classes_give_names_and_void(evaluate, classes, data_set):
    mask = read_mask(data_set.masks / "a.png")
    mask[mask == 2] = 9
    for stem in "abc":
        Image.fromarray(mask).save(data_set.masks / f"{stem}.png")
    path = classes(num_classes=3, classes=["sky", "road", "car"], ignore_index=9)
    report = evaluate("--json", "--classes", path).json
    assert [row["class"] for row in report["per_class"]] == ["sky", "road", "car"]
    outcome = evaluate("--json")
    assert outcome.is_bad_input() and "9" in outcome.err and "a: " in outcome.err


def test_a_class_that_never_occurs_is_null_and_left_out(evaluate, classes, data_set):
    path = classes(num_classes=5, ignore_index=255)
    report = evaluate("--json", "--classes", path, predictions=data_set.masks).json
    assert report["per_class"][4]["base"] == {"iou": None, "biou": None} and report["base"]["miou"] == 100.0


def test_label_maps_give_the_largest_class_of_all(evaluate, data_set, tmp_path):
    (tmp_path / "labels").mkdir()
    for stem, highest in zip("abc", (0, 1, 2), strict=True):
        mask = np.minimum(read_mask(data_set.masks / f"{stem}.png"), highest)
        Image.fromarray(mask).save(tmp_path / "labels" / f"{stem}.png")
    report = evaluate("--json", predictions=tmp_path / "labels").json
    assert len(report["per_class"]) == 3


def test_images_without_a_prediction_are_left_out_and_counted(evaluate, data_set):
    (data_set.predictions / "b.npz").unlink()
    report = evaluate("--json").json
    assert report["images"] == 2 and report["without_prediction"] == 1
    report = evaluate("--json", "--limit", 1).json
    assert report["images"] == 1 and report["without_prediction"] == 1


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_prediction_without_partner_is_an_error(evaluate, data_set, kind):
    (getattr(data_set, kind) / "b.png").unlink()
    outcome = evaluate("--json")
    assert outcome.is_bad_input() and "b.npz" in outcome.err and kind.removesuffix("s") in outcome.err


def test_per_image_figures(evaluate, tmp_path):
    path = tmp_path / "figures.json"
    assert evaluate("--per-image", path).code == 0
    rows = json.loads(path.read_text())["images"]
    assert [row["stem"] for row in rows] == ["a", "b", "c"]
    assert all(set(row) == {"stem", "base", "refined", "changed", "seconds"} for row in rows)
    assert evaluate("--per-image", path).is_bad_input()
    assert evaluate("--per-image", path, "--overwrite").code == 0


def test_one_bad_prediction_ends_it(evaluate, data_set):
    np.savez(data_set.predictions / "b.npz", logits=np.full((3, 10, 14), math.inf))
    outcome = evaluate("--json")
    assert outcome.is_bad_input() and "b: " in outcome.err


def test_predictions_of_different_classes(evaluate, data_set):
    np.savez(data_set.predictions / "b.npz", logits=np.eye(4)[:, :, None] - 1)
    assert evaluate("--json").is_bad_input()


def test_a_mask_of_another_size(evaluate, data_set):
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(data_set.masks / "c.png")
    outcome = evaluate("--json")
    assert outcome.is_bad_input() and "c: " in outcome.err and "(8, 8)" in outcome.err


@pytest.mark.parametrize(
    "text",
    ["not json", "[]", "{}", '{"num_classes": "3"}', '{"num_classes": 0}', '{"num_classes": 3, "classes": ["one"]}'],
)
def test_bad_classes_files(evaluate, tmp_path, text):
    path = tmp_path / "classes.json"
    path.write_text(text)
    assert evaluate("--classes", path).is_bad_input()
    assert evaluate("--classes", tmp_path / "none.json").is_bad_input()


def test_camvid_base_figures_are_reproduced(run, shared, tiny_model_dir, tmp_path):
    """The published segmentor's own row of the first experiments: 67.48 / 52.44 on 39 images."""
    outputs, data = shared / "data" / "segmentor_outputs" / "camvid" / "cgnet" / "test", shared / "data" / "camvid"
    if not outputs.is_dir() or not data.is_dir():
        pytest.skip("the shared folder has no camvid predictions")
    predictions = tmp_path / "labels"
    predictions.mkdir()
    # Argmax as label maps: the same base figures, with no 11 planes to refine 39 times.
    for path in outputs.glob("*.npz"):
        with np.load(path) as arrays:
            Image.fromarray(arrays["probs"].argmax(0).astype(np.uint8)).save(predictions / f"{path.stem}.png")
    folders = ("--images", data / "test" / "images", "--masks", data / "test" / "masks", "--predictions", predictions)
    classes = ("--classes", data / "classes.json", "--model", tiny_model_dir, "--device", "cpu", "--steps", 1)
    report = run("evaluate", *folders, *classes, "--json").json
    assert report["images"] == 39 and report["without_prediction"] == 194
    assert report["base"]["miou"] == pytest.approx(67.48, abs=0.01)
    assert report["base"]["mbiou"] == pytest.approx(52.44, abs=0.01)
