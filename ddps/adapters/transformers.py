"""Hugging Face transformers (tested with 5.23): dense logits, mask and class queries, pipelines' segments.

Dense segmentors (SegFormer, BEiT, UperNet, ...) give `.logits` (B, K, h, w), often at stride 4. Query segmentors
(MaskFormer, Mask2Former, OneFormer, EoMT) give a class, or "no object", for each of Q masks; `class_logits` makes them
dense.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..batches import is_batch
from ..errors import InputError
from ..inputs import ImageLike
from .geometry import from_mask, image_size, join_patches, proportional, upper_left

LEAST = 1e-6
"""Score that every class has at least, so that pixels which no query claims get equal classes, not NaN."""
VOID = 255

Size = tuple[int, int]


def class_logits(class_queries_logits: Tensor, masks_queries_logits: Tensor) -> Tensor:
    """What queries say about every class and pixel, as the logarithms of probabilities that sum to 1.

    The score of a class is that of the library's own post-processing, the sum over queries q of softmax(class_q)[k] *
    sigmoid(mask_q), without "no object" (Cheng et al., MaskFormer, arXiv 2107.06278, section 3.4). Scores do not sum to
    1: several queries may claim a pixel, or none. Dividing by their sum is the probability of a class given that the
    pixel shows one of the K classes at all, which a semantic mask takes for granted, and leaves the likeliest class and
    all odds as they are. A softmax over scores would make nearly equal probabilities of them, and a share of "no
    object" spread over the classes would make the sum of unlikely classes the likeliest answer between two masks.

    Logarithms, since these are what may be resized: between two queries their difference is nearly that of the mask
    logits, so that outlines stay close to those of the library, which resizes mask logits.

    Args:
        class_queries_logits: (B, Q, K + 1), the last one "no object".
        masks_queries_logits: (B, Q, h, w).

    Returns:
        (B, K, h, w) float32; `.exp()` sums to 1 over K.

    Raises:
        InputError: shapes that do not fit.
    """
    return _scores(class_queries_logits, masks_queries_logits).log().log_softmax(1)


def to_logits(
    outputs: object,
    inputs: Mapping[str, object] | None,
    images: ImageLike | Sequence[ImageLike],
    *,
    padded: bool | None = None,
) -> Tensor | list[Tensor]:
    """Outputs of a segmentor with its processor's padding and patches undone, for `refine(image, ..., kind="logits")`.

    Args:
        outputs: of the model, for B images.
        inputs: what the processor gave the model, or None. Its `pixel_mask` tells padding.
        images: one image or a list of B, as the processor got them.
        padded: True if the processor kept proportions and filled up on the right or below without giving a
            `pixel_mask`; False if it stretched the image; None for what `inputs` say, and otherwise True for EoMT,
            whose processor never stretches, and False for all others.

    Returns:
        (K, h, w) for one image, a list of them for a list.

    Raises:
        InputError: another object, or numbers of images that do not fit.
    """
    if not recognises(outputs):
        raise InputError("outputs with logits, or class and mask queries", type(outputs).__name__, "model(**inputs)")
    several = is_batch(images)
    sizes = [image_size(one) for one in (cast(Sequence[ImageLike], images) if several else [cast(ImageLike, images)])]
    given = inputs if inputs is not None else {}
    mask = given.get("pixel_mask") if padded is None else None
    found = _per_image(outputs, sizes, given.get("patch_offsets"), mask if isinstance(mask, Tensor) else None, padded)
    return found if several else found[0]


def recognises(outputs: object) -> bool:
    logits = getattr(outputs, "logits", None)
    return isinstance(logits, Tensor) or isinstance(getattr(outputs, "class_queries_logits", None), Tensor)


def values(outputs: object, sizes: Sequence[Size]) -> list[Tensor]:
    """(K, h, w) logits for every image, as far as outputs alone tell.

    Raises:
        InputError: shapes or numbers of images that do not fit, or queries over images of several proportions.
    """
    queries = not isinstance(getattr(outputs, "logits", None), Tensor)
    if queries and not _from_eomt(outputs) and len({h / w for h, w in sizes}) > 1:
        raise InputError(
            "to be told how the processor made images of different proportions one batch",
            f"query outputs of {len(sizes)} images, which do not say",
            "refine(images, ddps.adapters.transformers.to_logits(outputs, inputs, images))",
        )
    return _per_image(outputs, sizes)


def is_segments(outputs: object) -> bool:
    """Whether it is what pipeline("image-segmentation") gives."""
    return (
        isinstance(outputs, list)
        and len(outputs) > 0
        and all(isinstance(part, dict) and isinstance(part.get("mask"), Image.Image) for part in outputs)
    )


def label_map(segments: Sequence[Mapping[str, object]]) -> np.ndarray:
    """(H, W) int64: the segments of pipeline("image-segmentation") by their place in the list; 255 where there is none.

    Raises:
        InputError: masks of several sizes, or that overlap.
    """
    masks = segment_masks(segments)
    if len(masks) > VOID:
        raise InputError(f"at most {VOID} segments", str(len(masks)), "the model's outputs in place of the pipeline's")
    if int(masks.sum(0).max()) > 1:
        hint = "ddps.stacks.refine_masks, which takes them as they are"
        raise InputError("segments that do not overlap", "masks of instances that do", hint)
    return np.where(masks.any(0), masks.argmax(0), VOID)


def segment_masks(segments: Sequence[Mapping[str, object]]) -> np.ndarray:
    """(N, H, W) bool: the masks of the segments of pipeline("image-segmentation").

    Raises:
        InputError: masks of several sizes.
    """
    masks = [np.asarray(part["mask"]) for part in segments]
    if len({mask.shape for mask in masks}) > 1 or masks[0].ndim != 2:
        shapes = ", ".join(str(mask.shape) for mask in masks[:3])
        raise InputError("segments of one image", f"masks of shapes {shapes}", "the pipeline's answer for one image")
    return np.stack(masks) != 0


def _per_image(
    outputs: object,
    sizes: Sequence[Size],
    offsets: object = None,
    mask: Tensor | None = None,
    padded: bool | None = None,
) -> list[Tensor]:
    offsets = getattr(outputs, "patch_offsets", None) or offsets
    dense = getattr(outputs, "logits", None)
    if isinstance(dense, Tensor):
        if dense.ndim != 4:
            hint = "a semantic segmentor; ddps.stacks.refine_masks for masks of prompts"
            raise InputError("logits (B, K, h, w) of a segmentor", f"logits of shape {tuple(dense.shape)}", hint)
        maps = dense.detach()
    else:
        maps = _scores(outputs.class_queries_logits, outputs.masks_queries_logits).log()  # type: ignore[attr-defined]
        if offsets:
            return [merged.log_softmax(0) for merged in _merge(maps, offsets, sizes)]  # type: ignore[arg-type]
        maps = maps.log_softmax(1)
    if len(maps) != len(sizes):
        hint = "the outputs for exactly these images"
        if _from_eomt(outputs):
            hint = "model(**inputs), so that the outputs know the processor's patches"
        raise InputError(f"outputs for {len(sizes)} images", f"outputs for {len(maps)}", hint)
    if mask is not None and len(mask) != len(maps):
        raise InputError(f"the inputs of {len(maps)} outputs", f"a pixel mask of {len(mask)}", "those of these outputs")
    if padded is None and mask is None:
        padded = _from_eomt(outputs)
    found = []
    for index, (one, size) in enumerate(zip(maps, sizes, strict=True)):
        grid = (one.shape[-2], one.shape[-1])
        if mask is not None:
            one = upper_left(one, *from_mask(mask[index], grid))
        elif padded:
            one = upper_left(one, *proportional(grid, size))
        found.append(one)
    return found


def _scores(classes: Tensor, masks: Tensor) -> Tensor:
    """(B, K, h, w), above 0."""
    if classes.ndim != 3 or masks.ndim != 4 or classes.shape[:2] != masks.shape[:2] or classes.shape[2] < 2:
        expected = "class queries (B, Q, K + 1) and mask queries (B, Q, h, w)"
        raise InputError(expected, f"{tuple(classes.shape)} and {tuple(masks.shape)}", "the outputs as they come")
    shares = classes.detach().float().softmax(-1)[..., :-1]
    return torch.einsum("bqk,bqhw->bkhw", shares, masks.detach().float().sigmoid()) + LEAST


def _merge(maps: Tensor, offsets: Sequence[Sequence[int]], sizes: Sequence[Size]) -> list[Tensor]:
    """EoMT's patches, windows of the longer side of every image, put together."""
    patches: list[list[tuple[Tensor, int, int]]] = [[] for _ in sizes]
    places = [tuple(int(number) for number in offset) for offset in offsets]
    count = 1 + max(image for image, _, _ in places)
    if count != len(sizes) or len(places) != len(maps):
        got = f"{len(maps)} patches of {count}"
        raise InputError(f"the patches of {len(sizes)} images", got, "the outputs for exactly these images")
    for one, (image, start, end) in zip(maps, places, strict=True):
        patches[image].append((one, start, end))
    return [join_patches(of, -2 if size[0] > size[1] else -1) for of, size in zip(patches, sizes, strict=True)]


def _from_eomt(outputs: object) -> bool:
    return ".eomt" in type(outputs).__module__
