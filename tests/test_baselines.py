import sys

import numpy as np
import pytest
import torch

from ddps.baselines import CRF_PRESETS, bilinear, dense_crf, guided_filter
from ddps.errors import InputError
from ddps.predictions import load_prediction

SIZE = (40, 56)
PACKAGES = {
    "densecrf": ("pydensecrf", "DenseCRF needs pydensecrf2, of the extra `benchmark`"),
    "guided": ("cv2.ximgproc", "the guided filter needs OpenCV with contrib, of the extra `benchmark`"),
}


def make(name):
    package, reason = PACKAGES[name]
    pytest.importorskip(package, reason=reason)
    return dense_crf(CRF_PRESETS[0]) if name == "densecrf" else guided_filter()


@pytest.fixture(params=list(PACKAGES))
def method(request):
    return make(request.param)


@pytest.fixture
def truth():
    mask = torch.zeros(SIZE, dtype=torch.int64)
    mask[10:30, 14:40] = 2
    return mask


@pytest.fixture
def image(truth):
    """Two flat colours, whose edge is that of the mask."""
    return torch.where(truth == 2, torch.tensor([0.9, 0.2, 0.1])[:, None, None], torch.full((3, 1, 1), 0.3))


def test_outlines_move_to_the_edges_of_the_image(method, image, truth):
    # The prediction's outlines lie two pixels off, and it is unsure.
    probs = torch.full((4, *SIZE), 0.01)
    shifted = truth.roll((2, 2), (0, 1))
    probs[0], probs[2] = torch.where(shifted == 2, 0.39, 0.59), torch.where(shifted == 2, 0.59, 0.39)
    prediction = load_prediction(probs, SIZE, "probs")
    before, answer = prediction.argmax(), method(image, prediction)
    assert answer.dtype == torch.int64 and answer.shape == SIZE
    assert (answer != truth).sum() < 0.5 * (before != truth).sum()


def test_void_stays_and_absent_classes_stay_absent(method, image, truth):
    labels = truth.clone()
    labels[:5] = 255
    answer = method(image, load_prediction(labels, SIZE, "labels", 255, 7))
    assert torch.equal(answer == 255, labels == 255)
    assert set(answer.unique().tolist()) <= {0, 2, 255}


def test_bilinear_smooths_the_blocks_of_a_label_map(image):
    rows, columns = np.mgrid[:40, :56]
    truth = torch.from_numpy(((rows - 20) ** 2 + (columns - 28) ** 2 < 15**2).astype(np.int64)) * 3
    coarse = load_prediction(truth[2::5, 3::7], SIZE, "labels", 255, 5)
    smooth = bilinear(image, coarse)
    assert (smooth != truth).sum() < 0.9 * (coarse.argmax() != truth).sum()
    probs = load_prediction(torch.rand(3, 10, 14).softmax(0), SIZE, "probs")
    assert torch.equal(bilinear(image, probs), probs.argmax())


def test_bilinear_keeps_void_and_a_map_at_full_size(image, truth):
    truth[:5] = 255
    assert torch.equal(bilinear(image, load_prediction(truth, SIZE, "labels", 255, 4)), truth)


def test_one_class_only(method, image):
    answer = method(image, load_prediction(np.full(SIZE, 1), SIZE, "labels", 255, 3))
    assert (answer == 1).all()


def test_inputs_are_not_changed(method, image, truth):
    logits = torch.randn(3, 10, 14)
    prediction = load_prediction(logits, SIZE, "logits")
    before = image.clone(), prediction.native.clone()
    method(image, prediction)
    assert torch.equal(image, before[0]) and torch.equal(prediction.native, before[1])


@pytest.mark.parametrize(
    ("module", "build", "package"),
    [
        ("pydensecrf.densecrf", lambda: dense_crf(CRF_PRESETS[0]), "pydensecrf2"),
        ("cv2", guided_filter, "opencv-contrib-python-headless"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, module, build, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"pip install {package}"):
        build()


def test_presets_are_named_by_their_parameters():
    assert [str(preset) for preset in CRF_PRESETS] == ["50-5-4", "20-8-4", "30-10-8"]
