"""Segment Anything: what finds masks without classes → a stack for `stacks.refine_masks`.

Tested with transformers 5.23 (SAM, SAM-HQ, SAM 2, pipeline("mask-generation")); the lists of dicts are those of
segment_anything's and sam2's SamAutomaticMaskGenerator.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..outputs import Array
from ..stack_inputs import MaskKind, Masks
from . import transformers
from .geometry import upper_left

PADDED = ("sam", "sam_hq")
"""Models of transformers whose processor scales the longer side to that of a square and fills the rest; the later ones
stretch the image."""


def is_outputs(masks: object) -> bool:
    """Whether it is what a SAM model of transformers returns."""
    return isinstance(getattr(masks, "pred_masks", None), Tensor)


def is_records(masks: object) -> bool:
    """Whether it is the list of an automatic mask generator, one dict a mask."""
    return (
        isinstance(masks, list | tuple)
        and len(masks) > 0
        and all(isinstance(record, Mapping) and "segmentation" in record for record in masks)
    )


def is_generated(masks: object) -> bool:
    """Whether it is what pipeline("mask-generation") returns."""
    return isinstance(masks, Mapping) and "masks" in masks


def adapt_stack(masks: object, kind: MaskKind, size: tuple[int, int]) -> tuple[Masks, MaskKind]:
    """Another library's masks as a stack; everything else as it is.

    Args:
        masks: whatever `refine_masks` was given.
        kind: what the values are.
        size: (H, W) of the image, in pixels.

    Raises:
        InputError: masks of several images, or encoded ones.
    """
    if is_outputs(masks):
        return outputs_logits(masks, size), "logits"
    if is_records(masks):
        return [_plane(record["segmentation"]) for record in masks], kind  # type: ignore[attr-defined]
    if transformers.is_segments(masks):
        return transformers.segment_masks(masks), "masks"  # type: ignore[arg-type]
    if is_generated(masks):
        found: Sequence[Array] = masks["masks"]  # type: ignore[index]
        return list(found), kind
    return masks, kind  # type: ignore[return-value]


def outputs_logits(outputs: object, size: tuple[int, int]) -> Tensor:
    """(N, h, w) logits: for each of N prompts the mask that the model thinks best, its processor's padding cut off.

    Args:
        outputs: of a SAM model of transformers, for one image: `pred_masks` (1, N, M, h, w), `iou_scores` (1, N, M).
        size: (H, W) of the image, in pixels.

    Raises:
        InputError: several images, or other shapes.
    """
    masks, scores = outputs.pred_masks, getattr(outputs, "iou_scores", None)  # type: ignore[attr-defined]
    if not isinstance(scores, Tensor) or masks.ndim != 5 or len(masks) != 1 or scores.shape != masks.shape[:3]:
        got = f"pred_masks of shape {tuple(masks.shape)}"
        raise InputError("pred_masks (1, N, M, h, w) with iou_scores, of one image", got, "one image at a time")
    best = scores[0].argmax(1)
    chosen: Tensor = masks[0, torch.arange(len(best), device=best.device), best]
    name = type(outputs).__module__.split(".models.")[-1].split(".")[0]
    if name not in PADDED:
        return chosen
    # as the processor rounds: whole pixels of the square, of which the masks have a part
    longest = max(size)
    return upper_left(
        chosen, *(_share(side, longest, cells) for side, cells in zip(size, chosen.shape[1:], strict=True))
    )


def _share(side: int, longest: int, cells: int, square: int = 1024) -> float:
    return cells * max(1, int(side * square / longest + 0.5)) / square


def _plane(mask: object) -> Array:
    if not isinstance(mask, np.ndarray | Tensor):
        hint = 'output_mode="binary_mask"'
        raise InputError("masks as arrays", f"run-length encoded ones ({type(mask).__name__})", hint)
    return mask
