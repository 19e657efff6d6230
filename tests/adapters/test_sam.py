"""Stacks of masks: SAM models of transformers with real processors, mask generators, pipelines."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ddps import InputError
from ddps.adapters import adapt
from ddps.adapters.sam import adapt_stack, outputs_logits
from ddps.stacks import refine_masks

from .segmentors import bright_logits, photo, tiny_sam

SIZE = (60, 90)


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="adapts its outputs")


def iou(logits, bright):
    resized = F.interpolate(logits[None, None].float(), bright.shape, mode="bilinear")[0, 0].numpy() > 0
    return (resized & bright).sum() / (resized | bright).sum()


def as_found(output, found):
    """Three masks for each of two prompts, of which the model thinks the second and the third best."""
    nothing = torch.full_like(found, -5.0)
    masks = torch.stack([torch.stack([nothing, found, nothing], 1), torch.stack([nothing, nothing, -found], 1)], 1)
    scores = torch.tensor([[[0.1, 0.9, 0.2], [0.1, 0.2, 0.9]]])
    return output(iou_scores=scores, pred_masks=masks)


@pytest.mark.parametrize(("name", "prefix"), [("sam", "Sam"), ("sam_hq", "SamHQ")])
@pytest.mark.parametrize("size", [(60, 90), (131, 60)])
def test_padding_of_the_first_sams_is_undone(transformers, name, prefix, size):
    image, bright = photo(*size)
    inputs = transformers.SamImageProcessor()(image, return_tensors="pt")
    module = getattr(transformers.models, name)
    output = getattr(getattr(module, f"modeling_{name}"), f"{prefix}ImageSegmentationOutput")
    outputs = as_found(output, bright_logits(inputs["pixel_values"]))
    found = outputs_logits(outputs, size)
    assert iou(found[0], bright) > 0.97 and iou(found[1], ~bright) > 0.97


def test_the_picture_of_sam_2_is_stretched(transformers):
    image, bright = photo(*SIZE)
    inputs = transformers.SegformerImageProcessor(size={"height": 1024, "width": 1024})(image, return_tensors="pt")
    output = transformers.models.sam2.modeling_sam2.Sam2ImageSegmentationOutput
    found = outputs_logits(as_found(output, bright_logits(inputs["pixel_values"])), SIZE)
    assert iou(found[0], bright) > 0.97


def test_a_real_sam_is_refined(transformers, tiny_refiner):
    model = tiny_sam(transformers)
    size = (300, 450)
    image, _ = photo(*size)
    processor = transformers.SamProcessor(transformers.SamImageProcessor())
    inputs = processor(image, input_points=[[[[150, 100]], [[350, 250]], [[400, 50]]]], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    stack = refine_masks(tiny_refiner, image, outputs)
    assert stack.masks.shape == (3, *size) and isinstance(stack.masks, torch.Tensor)
    own = processor.image_processor.post_process_masks(
        outputs.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
    )[0]
    number = torch.arange(3), outputs.iou_scores[0].argmax(1)
    ours, padded = outputs_logits(outputs, size), outputs.pred_masks[0][number]
    right, wrong = (
        float((own[number] == (F.interpolate(masks[None], size, mode="bilinear")[0] > 0)).float().mean())
        for masks in (ours, padded)
    )
    assert right > 0.93 > 0.85 > wrong
    with pytest.raises(InputError, match=r"refine_masks\(refiner, image, masks\)"):
        adapt(image, outputs)


def test_records_of_a_mask_generator(tiny_refiner):
    image, bright = photo(*SIZE)
    records = [{"segmentation": mask, "area": int(mask.sum()), "predicted_iou": 0.9} for mask in (bright, ~bright)]
    stack = refine_masks(tiny_refiner, image, records)
    assert isinstance(stack.masks, np.ndarray) and stack.masks.shape == (2, *SIZE)
    assert np.array_equal(stack.masks, refine_masks(tiny_refiner, image, np.stack([bright, ~bright])).masks)
    with pytest.raises(InputError, match="refine_masks"):
        adapt(image, records)
    with pytest.raises(InputError, match='try output_mode="binary_mask"'):
        adapt_stack([{"segmentation": {"counts": "", "size": [60, 90]}}], "auto", SIZE)


def test_pipelines(tiny_refiner):
    image, bright = photo(*SIZE)
    generated = {"masks": [bright, ~bright], "scores": torch.ones(2)}
    assert refine_masks(tiny_refiner, image, generated).masks.shape == (2, *SIZE)
    pictures = [Image.fromarray(mask.astype(np.uint8) * 255) for mask in (bright, np.ones(SIZE, bool))]
    instances = [{"score": 0.9, "label": "thing", "mask": picture} for picture in pictures]
    masks, kind = adapt_stack(instances, "auto", SIZE)
    assert kind == "masks" and np.array_equal(masks[0], bright) and bool(masks[1].all())
    with pytest.raises(InputError, match="segments that do not overlap"):
        adapt(image, instances)


def test_masks_of_several_images_are_refused(transformers):
    output = transformers.models.sam.modeling_sam.SamImageSegmentationOutput
    with pytest.raises(InputError, match="try one image at a time"):
        outputs_logits(output(iou_scores=torch.zeros(2, 1, 3), pred_masks=torch.zeros(2, 1, 3, 8, 8)), SIZE)
