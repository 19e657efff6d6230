import numpy as np
import pytest
import torch

from ddps import InputError
from ddps.motion import blurred
from ddps.video import VideoRefiner, flicker

SIZE = (64, 80)


def frame(seed, noise=0.01):
    """(3, H, W) a textured scene, with noise of its own."""
    scene = torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(0))
    grain = noise * torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(seed))
    return (0.5 + 0.5 * blurred(scene, 2.0) + grain).clamp(0, 1)


def logits(seed, box=(20, 45, 20, 50), noise=1.0, height=3.0):
    """(2, H, W): a box of class 1, with noise of its own."""
    values = torch.full((2, *SIZE), 0.0)
    values[0] = height
    top, bottom, left, right = box
    values[:, top:bottom, left:right] = torch.tensor([0.0, height])[:, None, None]
    smooth = blurred(torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(seed)), 1.5)
    return blurred(values, 2.0) + noise * smooth / smooth.std()


def play(refiner, count=6, **keywords):
    return [refiner.refine(frame(i), logits(i), kind="logits", **keywords).labels for i in range(1, count + 1)]


def flicker_of(answers):
    pairs = zip(answers[1:], answers, strict=False)
    return np.mean([flicker(now, before, frame(i + 2), frame(i + 1)) for i, (now, before) in enumerate(pairs)])


def test_less_flicker_than_frame_by_frame(tiny_refiner):
    single, video = play(tiny_refiner), play(VideoRefiner(tiny_refiner))
    assert flicker_of(single) > 0
    assert flicker_of(video) < 0.5 * flicker_of(single)


def test_without_a_past_it_is_the_refiner_itself(tiny_refiner):
    image, given = frame(1), logits(1)
    expected = tiny_refiner.refine(image, given, kind="logits")
    video = VideoRefiner(tiny_refiner)
    first = video.refine(image, given, kind="logits")
    np.testing.assert_array_equal(first.labels, expected.labels)
    np.testing.assert_allclose(first.probs, expected.probs, atol=1e-3)
    np.testing.assert_allclose(first.uncertainty, expected.uncertainty, atol=2e-3)
    np.testing.assert_array_equal(first.changed, expected.changed)
    assert video.carried == 0
    video.refine(image, given, kind="logits")
    assert video.carried > 0.9
    video.reset()
    np.testing.assert_array_equal(video.refine(image, given, kind="logits").labels, expected.labels)
    for single, other in zip(play(tiny_refiner), play(VideoRefiner(tiny_refiner, weight=0, hold=0)), strict=True):
        np.testing.assert_array_equal(single, other)


@pytest.mark.parametrize("as_labels", [False, True])
def test_what_the_segmentor_says_steadily_gets_through(tiny_refiner, as_labels):
    """The picture never changes: only the segmentor's mind does, after it was sure for long."""
    video, single = VideoRefiner(tiny_refiner), []
    shares = []
    appears = (30, 55, 45, 75)
    inside = (slice(34, 51), slice(49, 71))
    for index in range(1, 17):
        box = (0, 0, 0, 0) if index <= 10 else appears
        given = logits(index, box, noise=0.3, height=6.0 if index <= 10 else 3.0)
        given, kind = (given.argmax(0), "labels") if as_labels else (given, "logits")
        labels = video.refine(frame(index), given, kind=kind, num_classes=2).labels
        single.append(tiny_refiner.refine(frame(index), given, kind=kind, num_classes=2).labels)
        shares.append(float((labels[inside] == 1).float().mean()))
    reached = float((single[-1][inside] == 1).float().mean())
    assert reached > 0.9  # else the network, not memory, would be at fault
    assert shares[9] < 0.05 and shares[10] < 0.5 * reached
    assert shares[15] > 0.95 * reached


def test_an_answer_does_not_hold_itself_up(tiny_refiner):
    """Two pasts whose answers differ are forgotten alike."""
    one, other = VideoRefiner(tiny_refiner), VideoRefiner(tiny_refiner)
    one.refine(frame(1), logits(1, height=9.0), kind="logits")
    other.refine(frame(1), -logits(1, height=9.0), kind="logits")
    differ = []
    for index in range(2, 18):
        answers = [video.refine(frame(index), logits(index), kind="logits").labels for video in (one, other)]
        differ.append(float((answers[0] != answers[1]).float().mean()))
    assert differ[0] > 0.2 and differ[-1] < 0.005


def test_a_change_in_the_picture_is_seen_at_once(tiny_refiner):
    video = VideoRefiner(tiny_refiner)
    for index in range(1, 5):
        video.refine(frame(index), logits(index, (0, 0, 0, 0), height=5.0), kind="logits")
    image, given = frame(6), logits(6, (20, 45, 20, 50), height=3.0)
    image[:, 16:49, 16:54] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    labels = video.refine(image, given, kind="logits").labels
    single = tiny_refiner.refine(image, given, kind="logits").labels
    # the network sees a little of what memory says around it
    assert float((labels != single)[20:45, 20:50].float().mean()) < 0.02
    assert float((labels != single)[:, 60:].float().mean()) > 0.02
    assert 0.5 < video.carried < 0.9


def test_a_cut_starts_anew(tiny_refiner):
    video = VideoRefiner(tiny_refiner)
    video.refine(frame(1), logits(1), kind="logits")
    other = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(9))
    expected = tiny_refiner.refine(other, logits(2), kind="logits").labels
    np.testing.assert_array_equal(video.refine(other, logits(2), kind="logits").labels, expected)
    assert video.carried == 0
    half = other[:, :32, :40], logits(2)[:, :32, :40]
    assert video.refine(*half, kind="logits").labels.shape == (32, 40) and video.carried == 0


def test_a_moving_camera_is_followed(tiny_refiner):
    scene = (0.5 + 0.5 * blurred(torch.randn(3, 64, 120, generator=torch.Generator().manual_seed(0)), 2.0)).clamp(0, 1)
    for align, least, most in ((True, 0.8, 1), (False, 0, 0)):
        video = VideoRefiner(tiny_refiner, align=align)
        for index in range(2):
            video.refine(scene[:, :, 4 * index :][:, :, :80], logits(index), kind="logits")
        assert least <= video.carried <= most


def test_label_maps_keep_void_and_may_name_new_classes(tiny_refiner):
    video = VideoRefiner(tiny_refiner)
    labels = np.zeros(SIZE, np.int64)
    labels[10:40, 10:40], labels[:4] = 1, 255
    for classes in (2, 3, 2):
        labels[45:, 50:] = classes - 1
        answer = video.refine(frame(classes), labels)
        assert isinstance(answer.labels, np.ndarray)
        np.testing.assert_array_equal(answer.labels == 255, labels == 255)
        assert not answer.changed[:4].any() and set(np.unique(answer.labels)) <= {0, 1, 2, 255}


def test_frames_that_do_not_fit(tiny_refiner):
    video = VideoRefiner(tiny_refiner)
    video.refine(frame(1), logits(1), kind="logits")
    with pytest.raises(InputError, match="2 classes"):
        video.refine(frame(2), torch.cat([logits(2), logits(3)]), kind="logits")
    with pytest.raises(InputError):
        video.refine(frame(2), None)
    assert video.refine(frame(2), logits(2), kind="logits", return_probs=False).probs is None
    assert video.carried > 0.9


@pytest.mark.parametrize("bad", [{"weight": 1}, {"weight": -0.1}, {"hold": float("nan")}, {"cut": 2}, {"hold": "a"}])
def test_numbers_out_of_range(tiny_refiner, bad):
    with pytest.raises(InputError):
        VideoRefiner(tiny_refiner, **bad)


class TestFlicker:
    def test_counts_only_where_the_picture_stays(self):
        before, after = frame(1), frame(2)
        after[:, 20:50, :40] = 0.95
        labels = np.zeros(SIZE, np.int64)
        moved = labels.copy()
        moved[25:45, 5:35] = 1  # the new thing
        assert flicker(moved, labels, after, before) == 0
        moved[:, 60:] = 2
        assert 0.2 < flicker(moved, labels, after, before) < 0.5
        assert flicker(labels, labels, after, before) == 0

    def test_bad_input(self):
        labels = np.zeros(SIZE, np.int64)
        with pytest.raises(InputError, match="one size"):
            flicker(labels[1:], labels, frame(1), frame(2))
        for threshold in (0, 1.5):
            with pytest.raises(InputError, match="threshold"):
                flicker(labels, labels, frame(1), frame(2), threshold)

    def test_nothing_unchanged(self):
        labels = np.zeros(SIZE, np.int64)
        assert np.isnan(flicker(labels, labels, torch.zeros(3, *SIZE), torch.ones(3, *SIZE)))
