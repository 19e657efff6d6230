"""segmentation_models_pytorch: plain logits, one channel as a sigmoid, and pairs with labels of the image."""

import pytest
import torch

from ddps import InputError

from .segmentors import photo

smp = pytest.importorskip("segmentation_models_pytorch", reason="adapts its outputs")


def outputs_of(classes, images=2, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small = {"encoder_name": "mobilenet_v2", "encoder_weights": None, "decoder_channels": (16, 16, 8, 8, 8)}
        model = smp.Unet(classes=classes, **small, **options).eval()
    with torch.no_grad():
        return model(torch.rand(images, 3, 64, 96))


@pytest.mark.parametrize("classes", [1, 4])
def test_plain_logits(classes, tiny_refiner):
    images = [photo(64, 96)[0], photo(60, 90)[0]]
    answers = tiny_refiner.refine(images, outputs_of(classes), kind="logits")
    assert [tuple(one.probs.shape) for one in answers] == [(max(2, classes), 64, 96), (max(2, classes), 60, 90)]


def test_one_channel_is_a_sigmoid_foreground(tiny_refiner):
    image, _ = photo(64, 96)
    logits = outputs_of(1, 1)
    shifted = logits - logits.median()
    answer = tiny_refiner.refine(image, shifted, kind="logits", steps=1)
    own = answer.labels.bool() ^ answer.changed
    assert torch.equal(own, shifted[0, 0] > 0)


def test_pairs_with_labels_of_the_image(tiny_refiner):
    pair = outputs_of(4, aux_params={"classes": 3})
    assert isinstance(pair, tuple)
    images = [photo(64, 96)[0], photo(60, 90)[0]]
    answers = tiny_refiner.refine(images, pair)
    alone = tiny_refiner.refine(images[1], pair[0][1], kind="logits")
    assert torch.equal(answers[1].labels, alone.labels)
    first = pair[0][:1], pair[1][:1]
    assert tiny_refiner.refine(images[0], first).labels.shape == (64, 96)


def test_what_looks_like_probabilities_has_to_be_named(tiny_refiner):
    image, _ = photo(64, 96)
    with pytest.raises(InputError, match="kind='probs' or kind='logits'"):
        tiny_refiner.refine(image, outputs_of(1, 1).sigmoid())
