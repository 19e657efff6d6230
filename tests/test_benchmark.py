import math
import time

import numpy as np
import pytest
import torch

from ddps.benchmark import Case, Comparison, refined, segmentor_alone
from ddps.metrics import SegmentationMetrics
from ddps.predictions import load_prediction

SIZE, CLASSES = (24, 32), 3


@pytest.fixture
def cases():
    """Three images with probabilities at half their size; the last one's mask is void everywhere."""
    rng = np.random.default_rng(0)
    made = []
    for stem in ("a", "b", "void"):
        truth = np.zeros(SIZE, dtype=np.int64)
        truth[6:18, 8:20], truth[12:, 16:] = 1, 2
        logits = rng.normal(size=(CLASSES, 12, 16)).astype(np.float32)
        logits += 2 * (truth[::2, ::2] == np.arange(CLASSES)[:, None, None])
        if stem == "void":
            truth[:] = 255
        image = torch.from_numpy(rng.random((3, *SIZE), dtype=np.float32))
        made.append(Case(stem, image, load_prediction(logits, SIZE, "logits"), truth))
    return made


def compare(cases, **methods):
    comparison = Comparison({"segmentor": segmentor_alone, **methods}, CLASSES)
    for case in cases:
        comparison.add(case)
    return comparison.figures()


def test_the_segmentor_alone_is_the_metrics_of_its_argmax(cases):
    figures = compare(cases)["segmentor"]
    metrics = SegmentationMetrics(CLASSES)
    for case in cases:
        metrics.update(case.prediction.argmax(), case.truth)
    assert {"miou": figures.miou, "mbiou": figures.mbiou, "accuracy": figures.accuracy} == metrics.as_dict()
    assert np.array_equal(figures.per_class_iou, metrics.confusion.per_class_iou)
    assert figures.worst_change == 0 and figures.worse == 0 and figures.unchanged == 100


def test_the_worst_image_is_named_and_counted(cases):
    truths = {id(case.image): torch.from_numpy(case.truth) for case in cases}

    def knows_all_but_b(image, prediction):
        if image is cases[1].image:
            return torch.zeros(SIZE, dtype=torch.int64)
        return truths[id(image)]

    figures = compare(cases, other=knows_all_but_b)["other"]
    singles = []
    for labels in (cases[1].prediction.argmax(), torch.zeros(SIZE, dtype=torch.int64)):
        metrics = SegmentationMetrics(CLASSES)
        metrics.update(labels, cases[1].truth)
        singles.append(metrics.confusion.miou)
    assert figures.worst_stem == "b" and figures.worst_change == pytest.approx(singles[1] - singles[0])
    assert figures.worse == 50  # of the two images with a truth


def test_unchanged_leaves_out_the_void_of_the_input():
    own = torch.zeros(SIZE, dtype=torch.int64)
    own[:, :8], own[:6, 8:] = 255, 1
    case = Case("a", torch.rand(3, *SIZE), load_prediction(own, SIZE, "labels", 255, CLASSES), np.zeros(SIZE, np.int64))
    figures = compare([case], zeros=lambda image, prediction: torch.where(own == 255, 255, 0))["zeros"]
    assert figures.unchanged == pytest.approx(75.0)


def test_seconds_leave_out_the_first_call(cases):
    calls = []

    def slow_at_first(image, prediction):
        calls.append(image)
        time.sleep(0.3 if len(calls) == 1 else 0)
        return prediction.argmax()

    figures = compare(cases, slow=slow_at_first)["slow"]
    assert len(calls) == len(cases) + 1 and figures.seconds < 0.1


def test_nothing_to_measure_is_nan(cases):
    figures = compare(cases[2:])["segmentor"]
    assert all(math.isnan(value) for value in (figures.miou, figures.worst_change, figures.worse))
    assert figures.worst_stem == "" and figures.unchanged == 100
    assert math.isnan(compare([])["segmentor"].seconds)


@pytest.mark.parametrize("sampler", [None, "single"])
def test_refined_is_what_the_refiner_says(cases, tiny_refiner, sampler):
    case = cases[0]
    expected = tiny_refiner.refine(case.image, case.prediction.native, kind="logits", sampler=sampler).labels
    assert torch.equal(refined(tiny_refiner, sampler)(case.image, case.prediction), expected)


def test_refined_takes_label_maps_and_a_sigmoid_foreground(tiny_refiner):
    image, run = torch.rand(3, *SIZE), refined(tiny_refiner)
    own = torch.zeros(SIZE, dtype=torch.int64)
    own[:4] = 255
    answer = run(image, load_prediction(own, SIZE, "labels", 255, 5))
    assert torch.equal(answer == 255, own == 255)
    foreground = torch.randn(1, 6, 8)
    known = load_prediction(foreground, SIZE, "logits")
    assert torch.equal(run(image, known), tiny_refiner.refine(image, foreground, kind="logits").labels)
