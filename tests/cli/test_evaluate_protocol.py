"""`ddps evaluate` with data sets in their own layouts and with the options of the protocol."""

import json

import numpy as np
import pytest
from PIL import Image

from ddps import DDPSRefiner
from ddps.metrics import SegmentationMetrics
from ddps.predictions import load_prediction

from .conftest import STEMS


@pytest.fixture
def evaluate(run, data_set, tiny_model_dir):
    def command(*arguments):
        folders = ("--images", data_set.images, "--masks", data_set.masks, "--predictions", data_set.predictions)
        return run("evaluate", *folders, "--model", tiny_model_dir, "--device", "cpu", *arguments)

    return command


@pytest.fixture
def ade20k(tmp_path, data_set):
    """The same images and masks in ADE20K's layout, where class k is k + 1 and 0 is void."""
    root = tmp_path / "ADEChallengeData2016"
    images, masks = root / "images" / "validation", root / "annotations" / "validation"
    for folder in (images, masks):
        folder.mkdir(parents=True)
    for stem in STEMS:
        (images / f"{stem}.png").write_bytes((data_set.images / f"{stem}.png").read_bytes())
        mask = read_mask(data_set.masks / f"{stem}.png") + 1
        mask[:4] = 0
        Image.fromarray(mask).save(masks / f"{stem}.png")
    return root


def read_mask(path):
    with Image.open(path) as mask:
        return np.array(mask)


def labels_of_150(data_set, folder):
    folder.mkdir()
    for stem in STEMS:
        Image.fromarray(read_mask(data_set.masks / f"{stem}.png")).save(folder / f"{stem}.png")
    return folder


# Rows


def test_steps_of_one_chain_are_rows_of_their_own(evaluate, data_set, tiny_model_dir):
    refiner = DDPSRefiner.from_pretrained(tiny_model_dir, device="cpu")
    after, last = SegmentationMetrics(3), SegmentationMetrics(3)
    for path in sorted(data_set.predictions.iterdir()):
        target = read_mask(data_set.masks / f"{path.stem}.png")
        out = refiner.refine(data_set.images / f"{path.stem}.png", path, steps=5, after=(2,))
        after.update(out.after[2].labels, target)
        last.update(out.labels, target)
    report = evaluate("--steps", "2,5", "--json").json
    assert list(report["rows"]) == ["base", "step 2", "refined"]
    assert report["rows"]["step 2"] == pytest.approx(after.as_dict())
    assert report["refined"] == report["rows"]["refined"] == pytest.approx(last.as_dict())
    assert report["rows"]["step 2"] != report["refined"]
    text = evaluate("--steps", "2,5").out
    assert "step 2" in text and "change" not in text and "IoU step 2" in text


def test_averages_over_steps_and_with_the_base(evaluate, data_set, tiny_model_dir):
    refiner = DDPSRefiner.from_pretrained(tiny_model_dir, device="cpu")
    names = ["base", "step 1", "step 1 + base", "refined", "refined + base", "average", "average + base"]
    totals = {name: SegmentationMetrics(3) for name in names}
    for path in sorted(data_set.predictions.iterdir()):
        target = read_mask(data_set.masks / f"{path.stem}.png")
        out = refiner.refine(data_set.images / f"{path.stem}.png", path, steps=3, after=(1, 2))
        base = load_prediction(path, target.shape).probs().numpy()
        mean = (out.after[1].probs + out.after[2].probs + out.probs) / 3
        for name, probs in (("step 1", out.after[1].probs), ("refined", out.probs), ("average", mean)):
            totals[name].update(probs.argmax(0), target)
            totals[f"{name} + base"].update((probs + base).argmax(0), target)
        totals["base"].update(base.argmax(0), target)
    report = evaluate("--steps", "1,3", "--average-steps", "--average-base", "--json").json
    assert list(report["rows"]) == names
    for name in names:
        assert report["rows"][name] == pytest.approx(totals[name].as_dict(), abs=0.02), name
    assert list(report["per_class"][0]) == ["class", *names]


def test_a_protocol_reaches_the_model(evaluate):
    plain = evaluate("--json").json["refined"]
    for options in (["--flip"], ["--scales", "multi"], ["--mode", "slide", "--crop", "24", "--stride", "16x12"]):
        report = evaluate("--json", *options).json
        assert report["refined"] != plain and report["refined"]["miou"] > 10, options
        assert "rows" not in report


def test_guidance_reaches_the_model(evaluate):
    assert evaluate("--guidance-scale", "3", "--json").json["refined"] != evaluate("--json").json["refined"]
    for wrong in ("-1", "nan", "much"):
        assert evaluate("--guidance-scale", wrong).is_bad_input()


def test_void_of_label_maps_stays_void_under_a_protocol(evaluate, data_set, tmp_path):
    for stem in STEMS:
        (data_set.predictions / f"{stem}.npz").unlink()
        labels = read_mask(data_set.masks / f"{stem}.png")
        labels[:, :30] = 255
        Image.fromarray(labels).save(data_set.predictions / f"{stem}.png")
    for options in ([], ["--flip"]):
        report = evaluate("--json", *options).json
        assert report["base"]["accuracy"] < 50 and report["refined"]["accuracy"] <= report["base"]["accuracy"], options


# Layouts


def test_ade20k_with_its_preset(run, data_set, ade20k, tiny_model_dir, tmp_path):
    predictions = labels_of_150(data_set, tmp_path / "labels")
    options = ("--predictions", predictions, "--model", tiny_model_dir, "--device", "cpu", "--protocol", "ade20k")
    outcome = run("evaluate", "--data", ade20k, *options, "--limit", 1, "--json")
    report = outcome.json
    assert report["images"] == 1 and report["base"]["miou"] == report["base"]["accuracy"] == 100
    assert len(report["per_class"]) == 150 and report["per_class"][1]["class"] == "building"
    assert report["per_class"][3]["base"] == {"iou": None, "biou": None}


def test_every_class_is_printed_when_asked(run, data_set, ade20k, tiny_model_dir, tmp_path):
    predictions = labels_of_150(data_set, tmp_path / "labels")
    options = ("--data", tmp_path, "--predictions", predictions, "--model", tiny_model_dir, "--device", "cpu")
    assert "building" not in run("evaluate", *options).out
    text = run("evaluate", *options, "--per-class").out
    assert "building" in text and "IoU refined" in text and "flag" not in text


def test_a_split_of_plain_folders(run, data_set, tiny_model_dir):
    root = data_set.root / "set"
    (root / "test").mkdir(parents=True)
    data_set.images.rename(root / "test" / "images")
    data_set.masks.rename(root / "test" / "masks")
    (root / "classes.json").write_text(json.dumps({"num_classes": 3, "classes": ["sky", "road", "car"]}))
    (data_set.predictions / "b.npz").unlink()
    options = ("--predictions", data_set.predictions, "--model", tiny_model_dir, "--device", "cpu", "--json")
    report = run("evaluate", "--data", root, "--split", "test", *options).json
    assert report["images"] == 2 and report["without_prediction"] == 1
    assert [row["class"] for row in report["per_class"]] == ["sky", "road", "car"]


# Bad input


@pytest.mark.parametrize(
    "options",
    [
        ["--steps", "3,2"],
        ["--steps", "1,x"],
        ["--steps", "1,99"],
        ["--steps", "0"],
        ["--average-steps"],
        ["--steps", "1,2", "--sampler", "single"],
        ["--crop", "32"],
        ["--protocol", "ade20k", "--stride", "32"],
        ["--mode", "slide", "--crop", "32", "--stride", "33"],
        ["--mode", "slide", "--crop", "32x32x32"],
        ["--mode", "slide", "--crop", "4"],
        ["--scales", "0"],
        ["--scales", "1,nan"],
        ["--scales", "one"],
        ["--protocol", "pascal"],
        ["--resize", "-1"],
        ["--data", "."],
    ],
)
def test_options_that_do_not_fit(evaluate, tmp_path, options):
    outcome = evaluate("--per-image", tmp_path / "figures.json", *options)
    assert outcome.is_bad_input() and not (tmp_path / "figures.json").exists(), outcome


def test_what_is_missing_is_named(run, data_set, ade20k, tiny_model_dir, tmp_path):
    model = ("--model", tiny_model_dir, "--device", "cpu")
    cases = [
        ((), "--images and --masks"),
        (("--images", data_set.images, "--masks", data_set.masks), "--predictions, which"),
        (("--data", ade20k), "--predictions"),
        (("--predictions", data_set.predictions), "--images and --masks"),
        (("--predictions", data_set.predictions, "--images", data_set.images), "no --masks"),
        (("--predictions", data_set.predictions, "--data", ade20k, "--split", "test"), "only validation"),
        (("--predictions", data_set.predictions, "--data", ade20k, "--layout", "cityscapes"), "leftImg8bit"),
        (("--data", ade20k, "--average-base"), "--predictions to average with"),
        # three classes where the data set has 150
        (("--predictions", data_set.predictions, "--data", ade20k), "a: "),
    ]
    for options, message in cases:
        outcome = run("evaluate", *options, *model)
        assert outcome.is_bad_input() and message in outcome.err, (options, outcome)
    (ade20k / "annotations" / "validation" / "b.png").unlink()
    outcome = run("evaluate", "--data", ade20k, "--predictions", data_set.predictions, *model)
    assert outcome.is_bad_input() and "a mask for every image" in outcome.err and "b.png" in outcome.err


def test_a_model_of_other_classes_is_refused_at_once(run, data_set, ade20k, tiny_model_of_5_dir):
    options = ("--data", ade20k, "--predictions", data_set.predictions, "--model", tiny_model_of_5_dir)
    outcome = run("evaluate", *options, "--device", "cpu")
    assert outcome.is_bad_input() and "5 classes" in outcome.err and "got 150" in outcome.err
