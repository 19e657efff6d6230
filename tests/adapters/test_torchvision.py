"""torchvision's dict of outputs, from a real DeepLabV3 with random weights."""

import pytest
import torch

from ddps import InputError
from ddps.adapters import adapt

from .segmentors import photo

models = pytest.importorskip("torchvision.models.segmentation", reason="adapts its outputs")


@pytest.fixture(scope="module")
def outputs():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.deeplabv3_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=4, aux_loss=True
        ).eval()
    with torch.no_grad():
        return model(torch.rand(2, 3, 48, 64))


def test_a_batch_of_dicts_with_out_and_aux(outputs, tiny_refiner):
    assert set(outputs) == {"out", "aux"}
    images = [photo(96, 128)[0], photo(48, 64)[0]]
    answers = tiny_refiner.refine(images, outputs)
    for answer, image, logits in zip(answers, images, outputs["out"], strict=True):
        assert answer.labels.shape == (image.height, image.width) and answer.probs.shape[0] == 4
        assert torch.equal(answer.labels, tiny_refiner.refine(image, logits, kind="logits").labels)


def test_one_image(outputs, tiny_refiner):
    image, _ = photo(48, 64)
    one = {"out": outputs["out"][:1]}
    assert tiny_refiner.refine(image, one).labels.shape == (48, 64)
    with pytest.raises(InputError, match="outputs for 1 images; got outputs for 2"):
        tiny_refiner.refine(image, outputs)


def test_values_in_0_to_1_are_logits_unless_told_otherwise(outputs):
    image, _ = photo(48, 64)
    probs = {"out": outputs["out"][:1].softmax(1)}
    assert adapt(image, probs)[1] == "logits"
    assert adapt(image, probs, "probs")[1] == "probs"


def test_another_shape_is_refused(outputs):
    with pytest.raises(InputError, match=r'"out" of shape \(B, K, h, w\)'):
        adapt(photo(4, 4)[0], {"out": outputs["out"][0]})
