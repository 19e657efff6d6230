"""The embedded weights themselves: what they promise on photos and on predictions that they never saw."""

import json

import numpy as np
import pytest
from PIL import Image

from ddps import DDPSRefiner
from ddps.cli import demo
from ddps.inputs import load_image
from ddps.metrics import SegmentationMetrics
from ddps.predictions import load_prediction, read_prediction_file

SEGMENTORS = ("cgnet", "espnet", "espnetv2_cityscapes")


@pytest.fixture(scope="module")
def universal() -> DDPSRefiner:
    return DDPSRefiner.from_pretrained(device="cpu")


def test_fits_in_the_wheel_and_takes_any_classes(universal):
    folder = demo.resources.files("ddps") / "weights" / "universal"
    assert (folder / "model.safetensors").stat().st_size <= 12 * 2**20
    assert universal.config.name == "universal" and universal.config.labels.num_classes is None
    assert "never trained on" in (folder / "README.md").read_text().lower()


def test_rough_masks_get_better(universal):
    pytest.importorskip("skimage", reason="the demo's photos come with scikit-image: pip install '.[demo]'")
    gains = []
    for name in demo.PHOTOS:
        photo = demo.find_photo(demo.read_mask_outlines("rough", name).image)
        result = demo.refine_photo(universal, name, photo)
        gains.append(result.refined["mbiou"] - result.base["mbiou"])
        assert result.refined["miou"] > result.base["miou"] - 0.5
    assert min(gains) > 0 and np.mean(gains) > 3


def test_careful_masks_are_left_alone(universal):
    pytest.importorskip("skimage", reason="the demo's photos come with scikit-image: pip install '.[demo]'")
    for name in demo.PHOTOS:
        fine = demo.read_mask_outlines("fine", name)
        careful = fine.labels()
        out = universal.refine(demo.find_photo(fine.image), careful, kind="labels")
        assert np.asarray(out.changed).mean() < 0.01


@pytest.mark.parametrize("segmentor", SEGMENTORS)
def test_published_segmentors_on_a_set_it_never_saw(universal, shared, segmentor):
    data, predictions = shared / "data" / "camvid", shared / "data" / "segmentor_outputs" / "camvid" / segmentor
    classes = json.loads((data / "classes.json").read_text())["num_classes"]
    base, refined = SegmentationMetrics(classes), SegmentationMetrics(classes)
    for path in sorted((predictions / "test").iterdir())[::6]:
        image = load_image(data / "test" / "images" / f"{path.stem}.jpg")
        target = np.asarray(Image.open(data / "test" / "masks" / f"{path.stem}.png"))
        values, kind = read_prediction_file(path)
        base.update(load_prediction(values, target.shape, kind).argmax(), target)
        refined.update(universal.refine(image, values, kind=kind, return_probs=False).labels, target)
    before, after = base.as_dict(), refined.as_dict()
    assert after["miou"] > before["miou"] and after["mbiou"] > before["mbiou"]
