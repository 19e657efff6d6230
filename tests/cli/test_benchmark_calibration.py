import json

import numpy as np
import pytest
from PIL import Image

from ddps.calibration import Calibration
from ddps.predictions import load_prediction

FIGURES = ("error", "confidence", "ece", "auroc", "aurc", "error_at_90", "caught_by_10")


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
def calibration(run, tiny_model_dir):
    def command(path, *arguments):
        where = ("--model", tiny_model_dir, "--device", "cpu")
        return run("benchmark", "calibration", "--sets", path, *where, *arguments)

    return command


def only(outcome):
    (found,) = outcome.json["inputs"]
    return found


def test_figures_are_those_of_the_data_set(calibration, sets, data_set, tiny_model_dir):
    from ddps import DDPSRefiner

    refiner = DDPSRefiner.from_pretrained(tiny_model_dir, device="cpu")
    own, refined = Calibration(), Calibration()
    for path in sorted(data_set.predictions.iterdir()):
        with Image.open(data_set.masks / f"{path.stem}.png") as mask:
            truth = np.array(mask)
        probs = load_prediction(path, truth.shape).probs().numpy()
        top = np.sort(probs, 0)
        own.update(probs.argmax(0), top[-1], (1 - top[-1] + top[-2]).clip(0, 1), truth)
        out = refiner.refine(data_set.images / f"{path.stem}.png", path)
        refined.update(out.labels, out.probs.max(0), out.uncertainty, truth)
    found = only(calibration(sets(), "--json"))
    assert (found["set"], found["input"], found["images"]) == ("tiny", "net", 3)
    for name, one in (("segmentor", own), ("refined", refined)):
        expected = one.as_dict()
        assert {key: found[name][key] for key in FIGURES} == pytest.approx(expected, abs=1e-3)
        assert len(found[name]["coverage"]) == len(found[name]["error_by_coverage"])
        assert sum(share for _, _, share in found[name]["reliability"]) == pytest.approx(1)


def test_a_hedge_changes_confidence_and_no_answer(calibration, sets):
    plain, hedged = (only(calibration(sets(), "--hedge", hedge, "--json")) for hedge in ("0", "40"))
    assert plain["segmentor"] == hedged["segmentor"]
    assert plain["refined"]["error"] == hedged["refined"]["error"]
    assert plain["refined"]["confidence"] != pytest.approx(hedged["refined"]["confidence"], abs=1e-3)


def test_rough_masks_by_themselves_are_taken_as_certain(calibration, sets):
    found = only(calibration(sets(predictions=None), "--rough", "dilate5", "--json"))["segmentor"]
    assert found["confidence"] == 100 and found["auroc"] == 50
    assert found["ece"] == pytest.approx(found["error"]) and found["error"] > 0


def test_table_and_plot(calibration, sets, tmp_path):
    target = tmp_path / "plot.png"
    outcome = calibration(sets(), "--plot", target)
    assert outcome.code == 0 and outcome.err == ""
    assert "tiny, net (3)" in outcome.out and "AUROC" in outcome.out and "refined" in outcome.out
    with Image.open(target) as picture:
        assert picture.format == "PNG" and picture.width > picture.height > 100
    again = calibration(sets(), "--plot", target)
    assert again.is_bad_input() and "--overwrite" in again.err
    assert calibration(sets(), "--plot", target, "--overwrite").code == 0


def test_val_every_and_limit(calibration, sets):
    val = {"images": "images", "masks": "masks", "predictions": {"other": "predictions"}}
    found = calibration(sets(val=val), "--val", "--every", 2, "--json").json
    assert found["split"] == "val"
    assert [(part["input"], part["images"]) for part in found["inputs"]] == [("other", 2)]
    assert only(calibration(sets(), "--limit", 1, "--json"))["images"] == 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--val",), "a val in the set tiny"),
        (("--plot", "plot.svg"), "a picture ending in"),
        (("--plot", "nowhere/plot.png"), "existing folder"),
        (("--hedge", "101"), "percentage"),
        (("--num-samples", "0"), "whole number"),
    ],
)
def test_bad_input_is_one_line(calibration, sets, arguments, hint):
    outcome = calibration(sets(), *arguments)
    assert outcome.code == 2 and hint in outcome.err and outcome.out == ""


def test_nothing_to_refine(calibration, sets):
    outcome = calibration(sets(predictions=None))
    assert outcome.is_bad_input() and "something to refine" in outcome.err


def test_a_damaged_prediction_is_named(calibration, sets, data_set):
    next(iter(sorted(data_set.predictions.iterdir()))).write_bytes(b"no archive")
    outcome = calibration(sets())
    assert outcome.is_bad_input() and "tiny, net, a" in outcome.err
