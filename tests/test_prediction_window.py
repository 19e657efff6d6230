"""Windows of predictions: what they show, and that grouping classes loses nothing that matters."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ddps import prediction_window
from ddps.prediction_window import LabelWindow, ValueWindow
from ddps.predictions import Prediction, load_prediction
from ddps.slots import plan_slots

SIZE = (61, 83)
WINDOWS = [(0, 0, 61, 83), (5, 7, 30, 41), (60, 82, 1, 1), (13, 0, 48, 20)]


def of_few(classes: int, spread: float, kind: str, seed: int = 0) -> Prediction:
    """A prediction in which few of the classes are ever likely, as those of real segmentors are."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(classes, 12, 17, generator=generator) - 6
    logits[:: max(1, classes // 5)] += 8 * torch.randn(logits[:: max(1, classes // 5)].shape, generator=generator)
    values = logits * spread
    return load_prediction(values if kind == "logits" else values.softmax(0), SIZE, kind)


def exact(prediction: Prediction, where, classes: torch.Tensor) -> torch.Tensor:
    every = prediction.crop(*where)
    rest = torch.ones(len(every), dtype=torch.bool)
    rest[classes] = False
    return torch.cat([every[classes], every[rest].sum(0, keepdim=True)]) if rest.any() else every[classes]


@pytest.mark.parametrize("where", WINDOWS)
@pytest.mark.parametrize("kind", ["logits", "probs"])
@pytest.mark.parametrize("classes", [3, 9, 150])
def test_groups_are_the_sums_of_the_whole_prediction(where, kind, classes):
    prediction = of_few(classes, 1.0, kind)
    some = torch.tensor([2, 0])
    grouped = prediction.window(*where).grouped(some)
    torch.testing.assert_close(grouped.sum(0), torch.ones(where[2:]), rtol=0, atol=1e-5)
    # what is negligible is resized as one logit: the difference is a part of little
    error = (grouped - exact(prediction, where, some)).abs()
    assert error.max() < (1e-5 if kind == "probs" else 0.06) and error.mean() < 5e-3


@pytest.mark.parametrize("where", WINDOWS)
def test_all_classes_are_the_whole_prediction(where):
    prediction = of_few(7, 1.0, "logits")
    grouped = prediction.window(*where).grouped(torch.arange(7))
    torch.testing.assert_close(grouped, prediction.crop(*where), rtol=0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    classes=st.integers(2, 40),
    spread=st.floats(0, 3),
    kept=st.integers(1, 6),
    kind=st.sampled_from(["logits", "probs"]),
)
def test_no_other_class_is_likelier_than_the_bound(classes, spread, kept, kind):
    prediction = of_few(classes, spread, kind)
    some = torch.arange(min(kept, classes))
    window = prediction.window(5, 7, 30, 41)
    grouped, bound = window.bounded(some)
    torch.testing.assert_close(grouped, window.grouped(some), rtol=0, atol=1e-5)
    if kept >= classes:
        assert bound is None
        return
    # the others together are overestimated a little where they are resized together
    probs = prediction.crop(5, 7, 30, 41)
    assert bound is not None and (bound > 0.93 * probs[kept:].amax(0) - 1e-5).all()
    # but for classes that are equal to the rounding
    of_bound, of_sum = (
        probs.gather(0, labels[None]) for labels in (window.own(some, grouped, bound), window.own(some, grouped))
    )
    torch.testing.assert_close(of_bound, of_sum, rtol=0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(classes=st.integers(2, 40), spread=st.floats(0, 3), kept=st.integers(1, 6), seed=st.integers(0, 99))
def test_the_segmentors_own_class_is_found_whichever_classes_are_kept(classes, spread, kept, seed):
    prediction = of_few(classes, spread, "logits", seed)
    some = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))[:kept].sort().values
    window = prediction.window(5, 7, 30, 41)
    own = window.own(some, window.grouped(some))
    probs = prediction.crop(5, 7, 30, 41)
    # where two classes are equally likely either may be named
    assert (probs.gather(0, own[None])[0] > probs.amax(0) - 1e-5).all()


@pytest.mark.parametrize("strip", [40, 1 << 17])
def test_shares_are_those_of_the_prediction_at_its_own_resolution(strip, monkeypatch):
    monkeypatch.setattr(prediction_window, "STRIP_VALUES", strip)
    prediction = of_few(9, 1.0, "logits")
    shares, probs = prediction.window(0, 0, *SIZE).shares(), prediction.native.softmax(0)
    torch.testing.assert_close(shares.mass, probs.mean((1, 2)))
    torch.testing.assert_close(shares.peak, probs.amax((1, 2)))
    torch.testing.assert_close(shares.least, probs.amin((1, 2)))
    assert shares.leads.nonzero()[:, 0].tolist() == probs.argmax(0).unique().tolist()


def test_what_is_sure_at_all_pixels_is_so_between_them():
    logits = torch.tensor([[4.0, 9.0], [-1.0, 7.0]])[None].repeat(3, 1, 1)
    logits[1:] -= torch.tensor([[9.0, 5.0], [4.0, 30.0]])
    window = load_prediction(logits, (9, 9), "logits").window(0, 0, 9, 9)
    least = window.shares().least[0]
    assert least > 0.9 and load_prediction(logits, (9, 9), "logits").crop(0, 0, 9, 9)[0].min() >= least - 1e-6


def test_a_huge_logit_stays_finite():
    logits = torch.zeros(12, 4, 4)
    logits[3], logits[5] = 3e38, -3e38
    window = load_prediction(logits, (8, 8), "logits").window(0, 0, 8, 8)
    grouped = window.grouped(torch.tensor([0, 5]))
    assert torch.isfinite(grouped).all() and (grouped[-1] == 1).all()


def label_window(*labels: list[int], classes: int = 6) -> LabelWindow:
    values = torch.tensor(labels)
    window = load_prediction(values, values.shape, "labels", 255, classes).window(0, 0, *values.shape)
    assert isinstance(window, LabelWindow)
    return window


@pytest.mark.parametrize("some", [[0, 1], [1], [2, 5, 0], [0, 1, 2, 3, 4, 5], [4]])
def test_groups_of_a_label_map(some):
    labels = torch.tensor([[0, 0, 2, 255], [2, 3, 3, 0]])
    prediction = load_prediction(labels, (4, 8), "labels", 255, 6)
    for where in ((0, 0, 4, 8), (0, 0, 2, 4), (0, 6, 2, 2)):
        window = prediction.window(*where)
        torch.testing.assert_close(window.grouped(torch.tensor(some)), exact(prediction, where, torch.tensor(some)))
        every, shares = prediction.crop(*where), window.shares()
        torch.testing.assert_close(shares.mass, every.mean((1, 2)))
        torch.testing.assert_close(shares.peak, every.amax((1, 2)))
        torch.testing.assert_close(shares.least, every.amin((1, 2)))


def test_classes_that_a_label_windows_pixels_do_not_have_take_no_slot():
    window = load_prediction(torch.tensor([[1, 3, 2]]), (1, 3), "labels", 255, 5).window(0, 0, 1, 2)
    assert isinstance(window, LabelWindow)
    own = window.own_classes()
    assert own.present.tolist() == [False, True, False, True, False]
    shares = own.shares()
    plan = plan_slots(shares.mass, shares.peak, 8)
    # nothing is left over for an "other" slot, which could only be invented
    assert sorted(plan.classes.tolist()) == [1, 3] and not plan.other
    every = window.grouped(torch.arange(5))
    kept = every[[1, 3]] / every[[1, 3]].sum(0)
    torch.testing.assert_close(own.grouped(torch.tensor([1, 3]), rest=False), kept)


def test_a_window_of_void_has_no_classes():
    own = label_window([255, 255], [255, 255], classes=4).own_classes()
    assert own.shares().peak.max() == 0 and not own.present.any()


def test_void_stays_void_in_the_segmentors_own_answer():
    window = label_window([0, 255, 3])
    some = torch.tensor([0, 1])
    assert window.own(some, window.grouped(some)).tolist() == [[0, 255, 3]]


def test_a_prediction_at_image_size():
    logits = torch.randn(12, 30, 40, generator=torch.Generator().manual_seed(0))
    prediction, where = load_prediction(logits, (30, 40), "logits"), (7, 11, 20, 13)
    window, some = prediction.window(*where), torch.tensor([4])
    assert torch.equal(window.own(some, window.grouped(some)), prediction.argmax()[7:27, 11:24])
    torch.testing.assert_close(window.grouped(some), exact(prediction, where, some), rtol=0, atol=1e-5)


def test_the_best_of_the_rest():
    logits = F.interpolate(torch.randn(9, 3, 3, generator=torch.Generator().manual_seed(3))[None], (6, 6))[0] * 3
    window = load_prediction(logits, (11, 9), "logits").window(0, 0, 11, 9)
    assert isinstance(window, ValueWindow)
    probs = load_prediction(logits, (11, 9), "logits").crop(0, 0, 11, 9)
    where = torch.rand(11, 9, generator=torch.Generator().manual_seed(0)) > 0.4
    classes, share = window.best_of_rest(torch.tensor([1, 4]), where)
    rest = probs.clone()
    rest[[1, 4]] = 0
    assert torch.equal(classes, rest.argmax(0)[where])
    torch.testing.assert_close(share, (rest.amax(0) / rest.sum(0))[where], rtol=1e-4, atol=1e-6)
