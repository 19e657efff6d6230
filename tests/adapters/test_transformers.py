"""transformers' outputs: real models, real processors, and what their own post-processing says."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ddps import InputError, Refinement
from ddps.adapters import adapt
from ddps.adapters.transformers import class_logits, label_map, to_logits

from . import segmentors
from .segmentors import CLASSES, SIDES, agreement, bright_logits, bright_queries, photo

transformers = pytest.importorskip("transformers", reason="adapts its outputs")
pytest.importorskip("scipy", reason="Mask2Former's module imports it")


def outputs_of(name, inputs):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(segmentors, name)(transformers)
    with torch.no_grad():
        return model(**inputs)


@pytest.mark.parametrize("name", ["segformer", "beit", "upernet"])
def test_dense_logits_are_taken_as_they_are(name, tiny_refiner):
    image, _ = photo(60, 90)
    inputs = transformers.SegformerImageProcessor(size={"height": 64, "width": 64})(image, return_tensors="pt")
    outputs = outputs_of(name, inputs)
    answer = tiny_refiner.refine(image, outputs)
    assert isinstance(answer, Refinement) and answer.labels.shape == (60, 90) and answer.probs.shape[0] == CLASSES
    assert torch.equal(answer.labels, tiny_refiner.refine(image, outputs.logits[0], kind="logits").labels)


@pytest.mark.parametrize("name", ["mask2former", "maskformer", "oneformer", "eomt"])
def test_query_outputs_become_probabilities(name, tiny_refiner):
    image, _ = photo(64, 64)
    inputs = {"pixel_values": torch.rand(1, 3, 64, 64)}
    if name == "oneformer":
        inputs["task_inputs"] = torch.ones(1, 4)
    outputs = outputs_of(name, inputs)
    answer = tiny_refiner.refine(image, outputs)
    assert answer.labels.shape == (64, 64) and answer.probs.shape == (CLASSES, 64, 64)
    probs = class_logits(outputs.class_queries_logits, outputs.masks_queries_logits).exp()
    assert probs.shape == (1, CLASSES, 16, 16)
    assert torch.allclose(probs.sum(1), torch.ones(1, 16, 16), atol=1e-5)


def test_a_batch_gives_a_list(tiny_refiner):
    images = [photo(60, 90)[0], photo(40, 50)[0]]
    inputs = transformers.SegformerImageProcessor(size={"height": 64, "width": 64})(images, return_tensors="pt")
    outputs = outputs_of("segformer", inputs)
    answers = tiny_refiner.refine(images, outputs)
    assert [tuple(one.labels.shape) for one in answers] == [(60, 90), (40, 50)]
    alone = tiny_refiner.refine(images[1], outputs.logits[1], kind="logits")
    assert torch.equal(answers[1].labels, alone.labels)
    one_by_one = [outputs_of("segformer", {"pixel_values": inputs["pixel_values"][i : i + 1]}) for i in range(2)]
    assert len(tiny_refiner.refine(images, one_by_one)) == 2
    with pytest.raises(InputError, match=r"outputs for 1 images; got outputs for 2"):
        tiny_refiner.refine(images[0], outputs)


def parting_queries(queries=20, side=96):
    """Of which at most pixels one is sure, as trained ones are."""
    generator = torch.Generator().manual_seed(0)
    classes = 3 * torch.randn(1, queries, CLASSES + 1, generator=generator)
    coarse = torch.randn(1, queries, side // 8, side // 8, generator=generator)
    masks = F.interpolate(coarse, (side, side), mode="bicubic")
    masks = 10 * (masks - masks.topk(2, 1).values.mean(1, keepdim=True))
    cls = transformers.models.mask2former.modeling_mask2former.Mask2FormerForUniversalSegmentationOutput
    return cls(class_queries_logits=classes, masks_queries_logits=masks)


def test_outlines_lie_nearly_where_the_library_has_them():
    outputs = parting_queries()
    own = transformers.Mask2FormerImageProcessor().post_process_semantic_segmentation(outputs, [(384, 384)])[0]
    ours = class_logits(outputs.class_queries_logits, outputs.masks_queries_logits)
    as_logits, as_probs = (F.interpolate(x, (384, 384), mode="bilinear")[0].argmax(0) for x in (ours, ours.exp()))
    right, blunt = (float((own == labels).float().mean()) for labels in (as_logits, as_probs))
    assert right > 0.98 and right > blunt
    assert len(own.unique()) == CLASSES


def test_what_no_query_claims_is_open_and_nothing_is_nan():
    classes = torch.tensor([[[9.0, 0, 0], [0, 9, 0]]])
    masks = torch.full((1, 2, 2, 2), -200.0)
    probs = class_logits(classes, masks).exp()
    assert torch.allclose(probs, torch.full_like(probs, 0.5))


def test_no_object_is_no_class():
    classes = torch.tensor([[[0.0, 1.0, 9.0], [2.0, 0.0, -9.0]]])  # the first query is nearly surely nothing
    probs = class_logits(classes, torch.full((1, 2, 1, 1), 5.0)).exp()[0, :, 0, 0]
    assert float(probs[0]) == pytest.approx(float(torch.tensor(2.0).sigmoid()), abs=1e-3)


def test_a_stretching_processor_is_undone():
    image, bright = photo(60, 120)
    inputs = transformers.SegformerImageProcessor(size={"height": 64, "width": 64})(image, return_tensors="pt")
    found = bright_logits(inputs["pixel_values"])
    outputs = transformers.modeling_outputs.SemanticSegmenterOutput(logits=torch.stack([-found, found], 1))
    (logits, kind) = adapt(image, outputs)
    assert kind == "logits" and agreement(logits, bright) > 0.97


def mask2former_like(pixel_values):
    cls = transformers.models.mask2former.modeling_mask2former.Mask2FormerForUniversalSegmentationOutput
    classes, masks = bright_queries(pixel_values)
    return cls(class_queries_logits=classes, masks_queries_logits=masks)


def test_one_image_of_a_query_segmentor_is_stretched_to_whole_strides():
    image, bright = photo(60, 90)
    inputs = transformers.Mask2FormerImageProcessor(size=SIDES)(image, return_tensors="pt")
    assert bool(inputs["pixel_mask"].all())  # 64 x 96, without padding
    assert agreement(adapt(image, mask2former_like(inputs["pixel_values"]))[0], bright) > 0.97


def test_padding_of_a_batch_is_undone_by_the_pixel_mask():
    pairs = [photo(60, 90), photo(90, 60), photo(50, 50)]
    images = [image for image, _ in pairs]
    inputs = transformers.Mask2FormerImageProcessor(size=SIDES)(images, return_tensors="pt")
    assert not bool(inputs["pixel_mask"].all())
    outputs = mask2former_like(inputs["pixel_values"])
    for logits, (_, bright) in zip(to_logits(outputs, inputs, images), pairs, strict=True):
        assert agreement(logits, bright) > 0.97
    stretched = to_logits(outputs, inputs, images, padded=False)
    assert agreement(stretched[0], pairs[0][1]) < 0.8
    with pytest.raises(InputError, match=r"to_logits\(outputs, inputs, images\)"):
        adapt(images, outputs)


def test_padding_that_the_processor_is_silent_about_is_undone_when_asked_for():
    image, bright = photo(64, 96)
    square = torch.zeros(1, 3, 96, 96)
    square[:, :, :64] = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    found = bright_logits(square)
    outputs = transformers.modeling_outputs.SemanticSegmenterOutput(logits=torch.stack([-found, found], 1))
    assert agreement(to_logits(outputs, None, image, padded=True), bright) > 0.97
    assert agreement(to_logits(outputs, None, image), bright) < 0.8


@pytest.mark.parametrize("size", [(60, 90), (131, 60), (64, 64), (50, 203)])
def test_patches_of_eomt_are_joined(size):
    image, bright = photo(*size, 0.4, 0.4)
    sides = {"shortest_edge": 64, "longest_edge": None}
    processor = transformers.EomtImageProcessor(size=sides, do_split_image=True)
    inputs = processor(image, return_tensors="pt")
    cls = transformers.models.eomt.modeling_eomt.EomtForUniversalSegmentationOutput
    classes, masks = bright_queries(inputs["pixel_values"])
    outputs = cls(class_queries_logits=classes, masks_queries_logits=masks, patch_offsets=inputs["patch_offsets"])
    logits, _ = adapt(image, outputs)
    assert agreement(logits, bright) > 0.95
    assert torch.allclose(logits.exp().sum(0), torch.ones(logits.shape[1:]), atol=1e-5)
    ours = F.interpolate(logits[None], size, mode="bilinear")[0].argmax(0)
    own = processor.post_process_semantic_segmentation(outputs, [size])[0]
    assert float((own == ours).float().mean()) > 0.97
    if len(masks) > 1:
        outputs.patch_offsets = None
        assert torch.equal(to_logits(outputs, inputs, image), logits)
        with pytest.raises(InputError, match=r"try model\(\*\*inputs\)"):
            adapt(image, outputs)


def test_eomt_runs_with_patches_of_two_images(tiny_refiner):
    images = [photo(60, 90)[0], photo(90, 60)[0]]
    sides = {"shortest_edge": 64, "longest_edge": None}
    inputs = transformers.EomtImageProcessor(size=sides, do_split_image=True)(images, return_tensors="pt")
    answers = tiny_refiner.refine(images, outputs_of("eomt", inputs))
    assert [tuple(one.labels.shape) for one in answers] == [(60, 90), (90, 60)]


def test_eomt_without_patches_is_padded():
    image, bright = photo(60, 90)
    sides = {"shortest_edge": 64, "longest_edge": 64}
    inputs = transformers.EomtImageProcessor(size=sides, do_pad=True)(image, return_tensors="pt")
    cls = transformers.models.eomt.modeling_eomt.EomtForUniversalSegmentationOutput
    classes, masks = bright_queries(inputs["pixel_values"])
    logits, _ = adapt(image, cls(class_queries_logits=classes, masks_queries_logits=masks))
    assert agreement(logits, bright) > 0.93


def test_the_pipeline_from_nothing(tiny_refiner, tmp_path):
    """Five lines of the documentation: a pipeline's model run, and its outputs refined; or its segments."""
    model = segmentors.segformer(transformers)
    processor = transformers.SegformerImageProcessor(size={"height": 64, "width": 64})
    segmentor = transformers.pipeline("image-segmentation", model=model, image_processor=processor)
    image, _ = photo(60, 90)
    image.save(tmp_path / "photo.png")
    outputs = segmentor.forward(segmentor.preprocess(str(tmp_path / "photo.png")))
    better = tiny_refiner.refine(tmp_path / "photo.png", outputs)
    assert better.labels.shape == (60, 90) and better.probs.shape[0] == CLASSES
    segments = segmentor(str(tmp_path / "photo.png"))
    labels = label_map(segments)
    for index, segment in enumerate(segments):
        assert np.array_equal(labels == index, np.array(segment["mask"]) > 0)
    assert tiny_refiner.refine(image, segments).labels.shape == (60, 90)


def test_wrong_shapes_are_refused_in_a_line():
    image, _ = photo(20, 30)
    with pytest.raises(InputError, match=r"logits \(B, K, h, w\)"):
        adapt(image, transformers.modeling_outputs.ImageClassifierOutput(logits=torch.zeros(1, 10)))
    with pytest.raises(InputError, match=r"class queries \(B, Q, K \+ 1\)"):
        class_logits(torch.zeros(1, 3, 4), torch.zeros(1, 2, 5, 5))
    outputs = parting_queries()
    with pytest.raises(InputError, match="the inputs of 1 outputs; got a pixel mask of 2"):
        to_logits(outputs, {"pixel_mask": torch.ones(2, 8, 8)}, image)
    with pytest.raises(InputError, match="class and mask queries; got dict"):
        to_logits({}, None, image)
    holes = {"pixel_mask": torch.eye(8)[None]}
    with pytest.raises(InputError, match="padding on the right or below"):
        to_logits(outputs, holes, image)
