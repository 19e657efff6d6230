"""Protocols over callables whose answers are known, and over tiny random networks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ddps.errors import InputError
from ddps.predictions import load_prediction
from ddps.protocol import (
    MULTI_SCALE,
    PRESETS,
    EvaluationProtocol,
    Passes,
    as_logits,
    infer,
    plan_windows,
    resize,
    resized,
    slide,
    whole,
)

WEIGHTS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def image():
    return torch.rand(3, 37, 53, generator=torch.Generator().manual_seed(1))


def by_pixel(image, prediction=None):
    """Looks at nothing but the pixel itself, so it does not matter which window it is in, or whether in a mirror."""
    return [torch.einsum("kc,chw->khw", WEIGHTS, image)]


def by_column(image, prediction=None):
    """Class 0 on the left of what it is shown, class 1 on the right."""
    right = (torch.arange(image.shape[-1]) >= image.shape[-1] / 2).float().expand(image.shape[-2:])
    return [torch.stack([1 - right, right])]


def sizes_of(calls):
    def segmentor(image, prediction=None):
        calls.append(tuple(image.shape[-2:]))
        return [image]

    return segmentor


def sliding(crop, stride, **others):
    return EvaluationProtocol(mode="slide", crop=crop, stride=stride, **others)


# Windows


@pytest.mark.parametrize(("crop", "stride"), [((16, 16), (16, 16)), ((16, 24), (7, 11)), ((37, 16), (1, 5))])
def test_windows_make_no_difference_to_a_model_that_looks_at_pixels(image, crop, stride):
    (answer,) = slide(by_pixel, image, None, sliding(crop, stride))
    torch.testing.assert_close(answer, by_pixel(image)[0])


def test_windows_of_cityscapes():
    windows = plan_windows((1024, 2048), (1024, 1024), (768, 768))
    assert [(w.top, w.left, w.height, w.width) for w in windows] == [
        (0, 0, 1024, 1024),
        (0, 768, 1024, 1024),
        (0, 1024, 1024, 1024),
    ]


@pytest.mark.parametrize(("size", "crop", "stride"), [((40, 50), (16, 20), (10, 7)), ((9, 64), (16, 16), (16, 5))])
def test_windows_cover_the_picture_stay_inside_and_are_as_large_as_they_can(size, crop, stride):
    seen = torch.zeros(size)
    for window in plan_windows(size, crop, stride):
        assert (window.height, window.width) == (min(crop[0], size[0]), min(crop[1], size[1]))
        assert window.top >= 0 and window.left >= 0
        assert window.top + window.height <= size[0] and window.left + window.width <= size[1]
        seen[window.top : window.top + window.height, window.left : window.left + window.width] += 1
    assert bool((seen > 0).all())


def test_overlaps_are_the_mean_of_the_windows_logits():
    """Each window answers with a number of its own: 1 for the first, 2 for the second, ..."""
    calls = []

    def segmentor(image, prediction):
        calls.append(image)
        return [torch.full((2, *image.shape[-2:]), float(len(calls)))]

    (answer,) = slide(segmentor, torch.rand(3, 16, 40), None, sliding((16, 16), (12, 12)))
    # windows at 0, 12 and 24
    row = [1.0] * 12 + [1.5] * 4 + [2.0] * 8 + [2.5] * 4 + [3.0] * 12
    assert answer[0, 3].tolist() == row and len(calls) == 3


def test_a_picture_smaller_than_the_window_is_one_window(image):
    calls = []
    slide(sizes_of(calls), image, None, sliding((64, 64), (32, 32)))
    assert calls == [(37, 53)]


def test_windows_of_a_prediction_are_those_of_the_whole(image):
    """The prediction that a window comes with is the part of the resized prediction that lies there."""
    logits = torch.randn(4, 10, 14)
    known = load_prediction(logits, (37, 53), "logits")

    def segmentor(image, prediction):
        return [as_logits(prediction.probs())]

    (answer,) = slide(segmentor, image, known, sliding((16, 20), (9, 9)))
    torch.testing.assert_close(answer.softmax(0), known.probs())
    labels = load_prediction(torch.randint(0, 4, (10, 14)), (37, 53), "labels")

    def own(image, prediction):
        return [F.one_hot(prediction.argmax(), 4).permute(2, 0, 1)]

    (answer,) = slide(own, image, labels, sliding((16, 20), (9, 9)))
    assert torch.equal(answer.argmax(0), labels.argmax())


# Padding


def test_a_model_sees_multiples_and_its_answer_is_cut_back(image):
    calls = []
    (answer,) = whole(sizes_of(calls), image, None, EvaluationProtocol(multiple=16))
    assert calls == [(48, 64)]
    torch.testing.assert_close(answer, image)
    calls.clear()
    slide(sizes_of(calls), image, None, sliding((20, 20), (20, 20), multiple=16))
    assert set(calls) == {(32, 32)}


def test_padding_is_the_mean_colour_at_the_bottom_and_on_the_right(image):
    seen = []

    def segmentor(image, prediction):
        seen.append(image)
        return [image]

    whole(segmentor, image, None, EvaluationProtocol(multiple=32))
    mean = torch.tensor([123.675, 116.28, 103.53]) / 255
    torch.testing.assert_close(seen[0][:, :37, :53], image)
    for border in (seen[0][:, 37:], seen[0][:, :, 53:]):
        torch.testing.assert_close(border, mean[:, None, None].expand_as(border))


# Flip, scales


def test_a_flip_is_undone(image):
    size = (37, 53)
    once = infer(by_pixel, image, EvaluationProtocol(), size)["1"]
    twice = infer(by_pixel, image, EvaluationProtocol(flip=True), size)["1"]
    torch.testing.assert_close(once, by_pixel(image)[0].softmax(0))
    torch.testing.assert_close(twice, once)


def test_a_flip_really_looks_into_the_mirror():
    image = torch.rand(3, 8, 16)
    probs = infer(by_column, image, EvaluationProtocol(flip=True), (8, 16))["1"]
    # what it says of the left in the mirror belongs to the right: its preference cancels out
    torch.testing.assert_close(probs, torch.full_like(probs, 0.5))


def test_a_prediction_is_mirrored_with_the_image(image):
    known = load_prediction(torch.randn(4, 10, 14), (37, 53), "logits")

    def segmentor(image, prediction):
        return [as_logits(prediction.probs())]

    probs = infer(segmentor, image, EvaluationProtocol(flip=True), (37, 53), prediction=known)["1"]
    torch.testing.assert_close(probs, known.probs())


@pytest.mark.parametrize("scales", [(1.0,), MULTI_SCALE, (0.5, 2.0)])
def test_a_constant_image_has_one_answer_at_every_scale(scales):
    image = torch.full((3, 30, 44), 0.25)
    probs = infer(by_pixel, image, EvaluationProtocol(scales=scales, flip=True), (31, 17))["1"]
    torch.testing.assert_close(probs, (WEIGHTS.sum(1) * 0.25).softmax(0)[:, None, None].expand(5, 31, 17))


def test_probabilities_not_logits_are_averaged_over_scales():
    """The model answers by the size of what it is shown: class 0 in small pictures, class 1 in large ones."""

    def by_size(image, prediction):
        small = image.shape[-1] < 32
        logits = torch.tensor([9.0, 0.0] if small else [0.0, 1.0])
        return [logits[:, None, None].expand(2, *image.shape[-2:])]

    probs = infer(by_size, torch.rand(3, 32, 32), EvaluationProtocol(scales=(0.5, 1.0)), (32, 32))["1"]
    expected = (torch.tensor([9.0, 0.0]).softmax(0) + torch.tensor([0.0, 1.0]).softmax(0)) / 2
    torch.testing.assert_close(probs[:, 0, 0], expected)


def test_answers_come_at_the_true_masks_size_by_logits(image):
    """Resized as logits, then softmax; the other order gives other numbers."""
    probs = infer(by_pixel, image, EvaluationProtocol(resize=(30, 20)), (40, 60))["1"]
    small = F.interpolate(image[None], resized((37, 53), (30, 20)), mode="bilinear", align_corners=False)[0]
    logits = F.interpolate(by_pixel(small)[0][None], (40, 60), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(probs, logits.softmax(0))


def test_log_probabilities_are_as_good_as_logits(image):
    def other(image, prediction):
        return [as_logits(by_pixel(image)[0].softmax(0))]

    protocol = sliding((16, 16), (9, 9), resize=(61, 40), scales=(0.75, 1.25), flip=True)
    ours, theirs = (infer(model, image, protocol, (45, 33))["1"] for model in (by_pixel, other))
    torch.testing.assert_close(ours, theirs)


# Presets


@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 683), (512, 683)), ((683, 512), (683, 512)), ((256, 256), (512, 512)), ((300, 1500), (410, 2048))],
)
def test_ade20k_images_get_a_short_side_of_512_unless_the_long_one_passes_2048(size, expected):
    assert PRESETS["ade20k"].sizes(size) == [expected] and PRESETS["ade20k"].mode == "whole"


def test_cityscapes_images_keep_their_size_and_are_looked_at_in_windows():
    preset = PRESETS["cityscapes"]
    assert preset.sizes((1024, 2048)) == [(1024, 2048)] and preset.sizes((512, 1024)) == [(1024, 2048)]
    assert (preset.mode, preset.crop, preset.stride) == ("slide", (1024, 1024), (768, 768))


def test_scales_are_of_the_rule():
    assert [resized((512, 683), (2048, 512), scale) for scale in MULTI_SCALE] == [
        (256, 342),
        (384, 512),
        (512, 683),
        (640, 854),
        (768, 1025),
        (896, 1195),
    ]
    assert resized((100, 60), None, 0.5) == (50, 30) and resized((1, 400), None, 0.5)[0] == 1


def test_the_presets_reach_the_model(image):
    calls = []
    infer(sizes_of(calls), torch.rand(3, 64, 85), PRESETS["ade20k"], (64, 85))
    assert calls == [(512, 704)]


# Passes of one chain


def chain(image, prediction=None):
    """Three passes, each surer than the one before."""
    return [by_pixel(image)[0] * number for number in (1, 2, 3)]


def test_several_passes_and_their_average(image):
    size = (37, 53)
    each = [logits.softmax(0) for logits in chain(image)]
    answers = infer(chain, image, EvaluationProtocol(), size, Passes((1, 3), average=True))
    assert list(answers) == ["1", "3", "average"]
    torch.testing.assert_close(answers["1"], each[0])
    torch.testing.assert_close(answers["3"], each[2])
    torch.testing.assert_close(answers["average"], sum(each) / 3)


def test_passes_say_what_has_to_be_recorded():
    assert Passes().recorded == (1,) and Passes((1, 10, 20)).recorded == (1, 10, 20)
    assert Passes((2, 4), average=True).recorded == (1, 2, 3, 4)
    for at in ((), (0, 1), (3, 2), (2, 2)):
        with pytest.raises(InputError):
            Passes(at)
    with pytest.raises(InputError, match="--average-steps"):
        Passes(None, average=True)


def test_a_model_that_answers_otherwise_is_refused(image):
    with pytest.raises(InputError, match="expected 2 answers of the model; got 3"):
        infer(chain, image, EvaluationProtocol(), (37, 53), Passes((1, 2)))
    with pytest.raises(InputError, match=r"logits \(K, 37, 53\).*\(3, 18, 26\)"):
        infer(lambda image, _: [image[:, ::2, ::2][:, :18, :26]], image, EvaluationProtocol(), (37, 53))


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": (8, 64)},
        {"crop": (64, 64), "stride": (65, 64)},
        {"stride": (0, 1)},
        {"scales": ()},
        {"scales": (1.0, 0.0)},
        {"scales": (float("nan"),)},
        {"multiple": 0},
        {"resize": (0, 512)},
    ],
)
def test_protocols_out_of_bounds(wrong):
    with pytest.raises(InputError):
        EvaluationProtocol(**wrong)


def test_resize_leaves_its_own_size_alone():
    values = torch.from_numpy(np.arange(12.0).reshape(1, 3, 4))
    assert resize(values, (3, 4)).dtype == torch.float32 and torch.equal(resize(values, (3, 4)), values.float())
