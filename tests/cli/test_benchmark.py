import json
import sys

import numpy as np
import pytest
from PIL import Image

from ddps.metrics import SegmentationMetrics
from ddps.predictions import load_prediction

METHODS = ("--methods", "single,refined")


@pytest.fixture
def sets(data_set):
    """Writes a file of sets; what is given as None is left out."""
    (data_set.root / "classes.json").write_text(json.dumps({"classes": ["land", "sea", "pole"], "num_classes": 3}))

    def write(**values):
        entry = {
            "name": "tiny",
            "images": "images",
            "masks": "masks",
            "classes": "classes.json",
            "predictions": {"net": "predictions"},
        } | values
        path = data_set.root / "sets.json"
        path.write_text(json.dumps({"sets": [{key: value for key, value in entry.items() if value is not None}]}))
        return path

    return write


@pytest.fixture
def quality(run, tiny_model_dir):
    def command(path, *arguments):
        return run("benchmark", "quality", "--sets", path, "--model", tiny_model_dir, "--device", "cpu", *arguments)

    return command


def only(report):
    assert len(report["inputs"]) == 1
    return report["inputs"][0]


def test_figures_are_those_of_the_data_set(quality, sets, data_set, tiny_model_dir):
    from ddps import DDPSRefiner

    refiner = DDPSRefiner.from_pretrained(tiny_model_dir, device="cpu")
    own = {"segmentor": {}, "single": {"sampler": "single"}, "refined": {}}
    metrics = {name: SegmentationMetrics(3) for name in own}
    for path in sorted(data_set.predictions.iterdir()):
        with Image.open(data_set.masks / f"{path.stem}.png") as mask:
            truth = np.array(mask)
        for name, options in own.items():
            image = data_set.images / f"{path.stem}.png"
            labels = refiner.refine(image, path, **options).labels
            metrics[name].update(load_prediction(path, truth.shape).argmax() if name == "segmentor" else labels, truth)
    found = only(quality(sets(), *METHODS, "--json").json)
    assert (found["set"], found["input"], found["images"]) == ("tiny", "net", 3)
    for name, expected in metrics.items():
        part = found["methods"][name]
        assert {key: part[key] for key in expected.as_dict()} == pytest.approx(expected.as_dict())
        change = expected.confusion.miou - metrics["segmentor"].confusion.miou
        assert part["change"]["miou"] == pytest.approx(change)
        assert part["seconds_per_image"] > 0


def test_the_tables_say_the_same(quality, sets, tmp_path):
    target = tmp_path / "table.md"
    arguments = (*METHODS, "--thin", "pole,sea", "--markdown", target)
    outcome = quality(sets(), *arguments)
    assert outcome.code == 0 and outcome.err == ""
    assert "tiny, net (3)" in outcome.out and "segmentor alone" in outcome.out and "ddps, single pass" in outcome.out
    lines = target.read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert len({row.count("|") for row in rows[:5]}) == 1
    cell = rows[2].split(" | ")[2]
    assert cell in outcome.out and float(cell) > 0
    thin = [row for row in rows if row.startswith("| tiny, net | ")]
    assert [row.split(" | ")[1] for row in thin] == ["sea", "pole"]
    again = quality(sets(), *arguments)
    assert again.is_bad_input() and "--overwrite" in again.err
    assert quality(sets(), *arguments, "--overwrite").code == 0


def test_perfect_masks_are_reported_as_the_share_of_unchanged_pixels(quality, sets):
    found = only(quality(sets(predictions=None), "--rough", "perfect", *METHODS, "--json").json)
    assert found["methods"]["segmentor"]["miou"] == 100
    assert found["methods"]["segmentor"]["unchanged"] == 100
    part = found["methods"]["refined"]
    # nothing is void here: what is unchanged is what is right
    assert part["unchanged"] == pytest.approx(part["accuracy"])


def test_rough_masks_join_the_predictions_of_the_same_images(quality, sets, data_set):
    (data_set.predictions / "b.npz").unlink()
    report = quality(sets(), "--rough", "dilate5,stride8", *METHODS, "--json").json
    assert [(part["input"], part["images"]) for part in report["inputs"]] == [
        ("net", 2),
        ("stride8", 2),
        ("dilate5", 2),
    ]
    assert all(part["methods"]["segmentor"]["miou"] < 100 for part in report["inputs"])


def test_every_and_limit(quality, sets):
    arguments = ("--methods", "single", "--json")
    assert only(quality(sets(), "--every", 2, *arguments).json)["images"] == 2
    assert only(quality(sets(), "--limit", 1, *arguments).json)["images"] == 1


def test_guided_filter_needs_no_weights(run, sets):
    pytest.importorskip("cv2.ximgproc", reason="the guided filter needs OpenCV with contrib, of the extra `benchmark`")
    report = run("benchmark", "quality", "--sets", sets(), "--model", "nowhere", "--methods", "guided", "--json").json
    assert list(only(report)["methods"]) == ["segmentor", "guided"] and "model" not in report


@pytest.mark.parametrize(
    ("with_val", "options", "label"),
    [
        (True, (), "best of 3 on val"),
        (False, (), "DenseCRF 50-5-4 (default)"),
        (True, ("--densecrf", "20-8-4"), "DenseCRF 20-8-4 (given)"),
    ],
)
def test_the_parameters_of_densecrf_are_named(run, sets, with_val, options, label):
    pytest.importorskip("pydensecrf", reason="DenseCRF needs pydensecrf2, of the extra `benchmark`")
    val = {"images": "images", "masks": "masks", "predictions": {"net": "predictions"}} if with_val else None
    arguments = ("--methods", "densecrf", "--rough", "stride8", "--val-limit", 1, *options, "--json")
    report = run("benchmark", "quality", "--sets", sets(val=val), *arguments).json
    for part in report["inputs"]:
        assert label in part["methods"]["densecrf"]["label"]


@pytest.mark.parametrize(
    ("method", "module", "package"),
    [("densecrf", "pydensecrf.densecrf", "pydensecrf2"), ("guided", "cv2", "opencv-contrib-python-headless")],
)
def test_a_missing_package_ends_in_one_line(run, sets, monkeypatch, method, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    outcome = run("benchmark", "quality", "--sets", sets(), "--methods", method)
    assert outcome.is_bad_input() and f"pip install {package}" in outcome.err


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"images": None}, "with the keys name, images, masks, classes"),
        ({"surprise": 1}, "surprise"),
        ({"images": "nowhere"}, "a folder of images"),
        ({"predictions": ["predictions"]}, "segmentor → folder"),
        ({"predictions": {"net": 3}}, "net as text"),
        ({"predictions": None}, "--rough"),
        ({"classes": "sets.json"}, "num_classes"),
        ({"val": {"images": "images"}}, "val with the keys images, masks"),
        ({"predictions": {"perfect": "predictions"}}, "another name"),
    ],
)
def test_a_wrong_file_of_sets_ends_in_one_line(quality, sets, values, words):
    rough = ("--rough", "perfect") if "perfect" in str(values) else ()
    outcome = quality(sets(**values), *rough)
    assert outcome.is_bad_input() and words in outcome.err


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sets": []}', '{"sets": 3}', '{"sets": [1]}', "[" * 100000])
def test_what_is_no_file_of_sets(quality, tmp_path, content):
    path = tmp_path / "sets.json"
    path.write_text(content)
    assert quality(path).is_bad_input()
    assert quality(tmp_path / "none.json").is_bad_input()


def test_an_image_that_does_not_fit_is_named(quality, sets, data_set):
    Image.new("L", (5, 5)).save(data_set.masks / "b.png")
    outcome = quality(sets(), *METHODS)
    assert outcome.is_bad_input() and "tiny, net, b" in outcome.err


def test_a_mask_without_image_is_an_error_where_nothing_was_predicted(quality, sets, data_set):
    (data_set.images / "c.png").unlink()
    outcome = quality(sets(predictions=None), "--rough", "perfect", *METHODS)
    assert outcome.is_bad_input() and "c.png" in outcome.err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--rough", "perfekt"), ("--methods", ""), ("--densecrf", "1-2"), ("--thin", "ufo"), ("--every", "0")],
)
def test_wrong_options_end_in_one_line(quality, sets, option, value):
    assert quality(sets(), option, value).is_bad_input()


def test_segmentors_without_a_common_image(quality, sets, data_set):
    for name, stem in (("one", "a"), ("two", "b")):
        (data_set.root / name).mkdir()
        (data_set.predictions / f"{stem}.npz").rename(data_set.root / name / f"{stem}.npz")
    outcome = quality(sets(predictions={"one": "one", "two": "two"}), *METHODS)
    assert outcome.is_bad_input() and "in common" in outcome.err
