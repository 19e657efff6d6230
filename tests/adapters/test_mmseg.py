"""mmsegmentation 1.x: data samples of a real model with random weights, and what its Inferencer returns."""

import numpy as np
import pytest
import torch

from ddps import InputError
from ddps.adapters import adapt

from .segmentors import photo

pytest.importorskip("mmseg", reason="adapts its outputs")
mmengine = pytest.importorskip("mmengine", reason="builds mmseg's models")

STEPS = [
    {"type": "LoadImageFromFile"},
    {"type": "Resize", "scale": (96, 96), "keep_ratio": True},
    {"type": "PackSegInputs"},
]


def config_of(**head):
    sizes = {"embed_dims": 8, "num_layers": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    places = {"in_channels": [8, 8, 16, 16], "in_index": [0, 1, 2, 3], "channels": 8}
    pad = {"size_divisor": 32}
    return {
        "model": {
            "type": "EncoderDecoder",
            "data_preprocessor": {"type": "SegDataPreProcessor", "bgr_to_rgb": True, **pad, "test_cfg": pad},
            "backbone": {"type": "MixVisionTransformer", **sizes},
            "decode_head": {"type": "SegformerHead", "norm_cfg": {"type": "BN"}, **places, **head},
            "test_cfg": {"mode": "whole"},
        },
        "visualizer": {"type": "SegLocalVisualizer", "vis_backends": [{"type": "LocalVisBackend"}], "name": "shows"},
        "test_pipeline": STEPS,
        "test_dataloader": {"dataset": {"pipeline": STEPS}},
    }


def model_of(**head):
    from mmseg.apis import init_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return init_model(mmengine.Config(config_of(**head)), None, device="cpu")


@pytest.fixture(scope="module")
def five():
    return model_of(num_classes=5)


@pytest.fixture
def image():
    return photo(60, 90)[0]


def bgr(image):
    return np.array(image)[:, :, ::-1].copy()


def test_data_samples(five, image, tiny_refiner):
    from mmseg.apis import inference_model
    from mmseg.structures import SegDataSample

    sample = inference_model(five, bgr(image))
    assert isinstance(sample, SegDataSample) and sample.seg_logits.data.shape == (5, 60, 90)
    answer = tiny_refiner.refine(image, sample)
    assert answer.labels.shape == (60, 90) and answer.probs.shape[0] == 5
    own = tiny_refiner.refine(image, sample.seg_logits.data, kind="logits")
    assert torch.equal(answer.labels, own.labels)
    samples = inference_model(five, [bgr(image), bgr(image)])
    assert len(tiny_refiner.refine([image, image], samples)) == 2
    assert tiny_refiner.refine(image, samples[:1]).labels.shape == (60, 90)


def test_the_sigmoid_of_one_class_is_undone(image, tiny_refiner):
    from mmseg.apis import inference_model

    loss = {"type": "CrossEntropyLoss", "use_sigmoid": True}
    model = model_of(num_classes=2, out_channels=1, threshold=0.5, loss_decode=loss)
    sample = inference_model(model, bgr(image))
    probs = sample.seg_logits.data
    assert len(probs) == 1 and float(probs.min()) > 0 and float(probs.max()) < 1
    logits, kind = adapt(image, sample)
    assert kind == "logits" and torch.allclose(logits.sigmoid(), probs, atol=1e-4)
    answer = tiny_refiner.refine(image, sample, steps=1)
    assert torch.equal((answer.labels.bool() ^ answer.changed).float(), sample.pred_sem_seg.data[0])


def test_a_sample_with_labels_only(image):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    labels = torch.randint(0, 4, (1, 60, 90))
    found, kind = adapt(image, SegDataSample(pred_sem_seg=PixelData(data=labels)))
    assert kind == "labels" and torch.equal(found, labels[0])
    with pytest.raises(InputError, match=r"seg_logits \(K, H, W\)"):
        adapt(image, SegDataSample(pred_sem_seg=PixelData(data=labels.expand(2, 60, 90))))
    with pytest.raises(InputError, match="got mmseg.structures"):
        adapt(image, SegDataSample())


def test_the_inferencer(image, tiny_refiner):
    from mmseg.apis import MMSegInferencer

    names = {"classes": list("abcde"), "palette": [[20 * k] * 3 for k in range(5)]}
    inferencer = MMSegInferencer(mmengine.Config(config_of(num_classes=5)), device="cpu", **names)
    found = inferencer(bgr(image))
    answer = tiny_refiner.refine(image, found)
    assert isinstance(answer.labels, np.ndarray) and answer.labels.shape == (60, 90)
    several = inferencer([bgr(image), bgr(image)], return_datasamples=False)
    assert len(tiny_refiner.refine([image, image], several)) == 2
    with pytest.raises(InputError, match="return_datasamples=True"):
        adapt(image, {"predictions": "mask.png"})
