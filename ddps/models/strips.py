"""The network's answer at image scale, a few rows at a time.

Bringing S planes to image scale takes some thirty element-wise operations. On a CPU each of them is as slow as memory
over whole planes, and several times faster over rows that stay in the processor's cache.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

STRIP_VALUES = 1 << 17
"""Values of all planes that are worked on at a time, at image scale."""


def finish_in_strips(logits: Tensor, coarse: Tensor, probs: Tensor, weights: Tensor, share: Tensor) -> Tensor:
    """Guided upsampling plus the segmentor's own fine detail: what `SlotUNet.finish` adds up, of one image.

    Args:
        logits: (S, h, w) of a pass.
        coarse: (S, h, w) log-probabilities of the segmentor at stride 2.
        probs: (S, 2h, 2w) its probabilities, above 0.
        weights: (36, h, w) the logits of how much each of the nine neighbours counts for each of the four sub-pixels,
            sub-pixel by sub-pixel.
        share: (4, h, w) share of the fine detail, less 1, for each sub-pixel.

    Returns:
        (S, 2h, 2w) float32 logits.
    """
    slots, height, width = logits.shape
    answer = torch.empty(slots, 2 * height, 2 * width)
    logits, coarse = (F.pad(values.float()[None], (1, 1, 1, 1), mode="replicate")[0] for values in (logits, coarse))
    rows = max(1, STRIP_VALUES // (slots * 4 * width))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        mixed = _upsample(logits[:, top : bottom + 2], weights[:, top:bottom])
        smooth = F.interpolate(coarse[None, :, top : bottom + 2], scale_factor=2.0, mode="bilinear")[0, :, 2:-2, 2:-2]
        fine = probs[:, 2 * top : 2 * bottom].log().sub_(smooth)
        its = F.pixel_shuffle(1 + share[None, :, top:bottom].float(), 2)[0]
        torch.addcmul(mixed, fine, its, out=answer[:, 2 * top : 2 * bottom])
    return answer


def _upsample(padded: Tensor, weights: Tensor) -> Tensor:
    """(S, 2r, 2w) from (S, r + 2, w + 2) logits and (36, r, w) logits of weights; see `convex_upsample`."""
    _, rows, width = weights.shape
    shares = rearrange(weights.float(), "(n k) r w -> n k r w", k=9).softmax(1)
    total: Tensor | None = None
    for k in range(9):
        neighbour = padded[:, None, k // 3 : k // 3 + rows, k % 3 : k % 3 + width]
        total = neighbour * shares[:, k] if total is None else total.addcmul_(neighbour, shares[:, k])
    assert total is not None
    return rearrange(total, "s (dy dx) r w -> s (r dy) (w dx)", dy=2, dx=2)


def pooled_softmax(first: Tensor, second: Tensor | None, share: float) -> Tensor:
    """(S, h, w) probabilities: softmax of the first logits, or of first·(1 - share) + second·share.

    The pool is log-linear: what would normalise either of the two is the same for all slots, and cancels.
    """
    answer = torch.empty_like(first)
    rows = max(1, STRIP_VALUES // (len(first) * first.shape[-1]))
    for top in range(0, first.shape[1], rows):
        logits = first[:, top : top + rows]
        if second is not None:
            logits = torch.lerp(logits, second[:, top : top + rows], share)
        torch.softmax(logits, 0, out=answer[:, top : top + rows])
    return answer
