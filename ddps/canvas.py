"""Refined tiles put together to one answer.

Nowhere does an image's (K, H, W) lie in memory unless it is asked for: a tile keeps its few slots in half
precision, and classes are put together window by window.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .diffusion.samplers import Callback, Step
from .predictions import Prediction
from .slots import SlotPlan, from_slots
from .tiling import Tile, blend_window

WINDOW = 384
# Probabilities below this count as this in the log-linear pool: no class is vetoed for good.
LEAST = 1e-5
# Mean displacement of a label map's outlines, in pixels, below which it counts as exact, and from which on as rough.
EXACT_BELOW, ROUGH_FROM = 0.65, 1.25
EXACT_MIX = 0.5


@dataclass
class _Piece:
    tile: Tile
    plan: SlotPlan
    probs: Tensor  # (S, height, width) float16


def mix_probs(original: Tensor, refined: Tensor, mix: float) -> Tensor:
    """Log-linear pool of two distributions: p^(1-m) · q^m, normalised. A doubtful opinion counts for little.

    Args:
        original: (K, ...) the segmentor's probabilities p.
        refined: (K, ...) the refiner's probabilities q.
        mix: m in [0, 1], the refiner's share.
    """
    if mix == 1:
        return refined / refined.sum(0, keepdim=True).clamp(min=LEAST)
    return torch.lerp(original.clamp(min=LEAST).log(), refined.clamp(min=LEAST).log(), mix).softmax(0)


def most_likely(probs: Tensor) -> tuple[Tensor, Tensor]:
    """(h, w) int64 most likely classes of (K, h, w) probabilities, and (h, w) uncertainty: 1 minus their margin."""
    top = probs.topk(min(2, len(probs)), 0)
    if len(probs) == 1:
        return top.indices[0], torch.zeros_like(probs[0])
    return top.indices[0], (1 - (top.values[0] - top.values[1])).clamp(0, 1)


class Canvas:
    """Collects refined tiles; answers for any window with the segmentor's probabilities mixed in.

    Args:
        prediction: the segmentor's own prediction.
        overlap: width of the blending ramps in pixels.
        mix: share of the refiner in the answer, [0, 1].
        recorded_steps: how many steps' label maps to keep.
    """

    def __init__(self, prediction: Prediction, overlap: int, mix: float, recorded_steps: int = 0):
        self.prediction, self.overlap, self.mix = prediction, overlap, mix
        self.pieces: list[_Piece] = []
        own = prediction.argmax() if recorded_steps else None
        self._steps = [] if own is None else [own.clone() for _ in range(recorded_steps)]

    def add(self, tile: Tile, plan: SlotPlan, probs: Tensor) -> None:
        """Keeps a refined tile: (S, height, width) slot probabilities."""
        self.pieces.append(_Piece(tile, plan, probs.to("cpu", torch.float16)))

    def window(self, window: Tile) -> Tensor:
        """(K, height, width) float32 probabilities of a window; they sum to 1."""
        return self._pooled(window, self.mix)

    def _pooled(self, window: Tile, mix: float) -> Tensor:
        original = self.prediction.crop(window.top, window.left, window.height, window.width)
        total = torch.zeros_like(original)
        weights = torch.zeros(original.shape[1:])
        for piece in self.pieces:
            shared = window.overlap(piece.tile)
            if shared is None:
                continue
            inside, here = shared.slices_in(piece.tile), shared.slices_in(window)
            rows, columns = here
            slots = piece.probs[:, inside[0], inside[1]].float()
            refined = from_slots(slots, original[:, rows, columns], piece.plan)
            weight = blend_window(piece.tile, self.prediction.size, self.overlap)[inside]
            total[:, rows, columns] += refined * weight
            weights[here] += weight
        # a pixel that no tile refined keeps the segmentor's answer
        mixed = mix_probs(original, total / weights.clamp(min=1e-9), mix)
        return torch.where(weights > 0, mixed, original)

    def displacement(self) -> float:
        """How far the refiner alone would move the outlines, in pixels on average: changes per outline pixel."""
        changed = 0
        own = self.prediction.argmax()
        for window in self.windows():
            rows, columns = window.slices_in(Tile(0, 0, *self.prediction.size))
            before, void = own[rows, columns], self.prediction.void[rows, columns]
            changed += int(((self._pooled(window, 1.0).argmax(0) != before) & ~void).sum())
        outline = torch.zeros_like(own, dtype=torch.bool)
        outline[:-1] |= own[1:] != own[:-1]
        outline[:, :-1] |= own[:, 1:] != own[:, :-1]
        return changed / max(1, int(outline.sum()))

    def trust_exact_labels(self) -> None:
        """Lowers the share of the refiner where it finds a label map's outlines to be exact.

        A label map does not say how sure it is. One whose outlines the refiner would move by less than two thirds of a
        pixel on average is taken at its word; from one and a quarter on, the refiner has its full share.
        """
        rough = (self.displacement() - EXACT_BELOW) / (ROUGH_FROM - EXACT_BELOW)
        low = min(EXACT_MIX, self.mix)
        self.mix = low + (self.mix - low) * min(1.0, max(0.0, rough))

    def windows(self) -> Iterator[Tile]:
        """Windows that cover the image once, small enough for all classes to be in memory."""
        height, width = self.prediction.size
        for top in range(0, height, WINDOW):
            for left in range(0, width, WINDOW):
                yield Tile(top, left, min(WINDOW, height - top), min(WINDOW, width - left))

    def probs(self) -> Tensor:
        """(K, H, W) float32 probabilities of the whole image."""
        whole = torch.empty((self.prediction.num_classes, *self.prediction.size))
        for window in self.windows():
            rows, columns = window.slices_in(Tile(0, 0, *self.prediction.size))
            whole[:, rows, columns] = self.window(window)
        return whole

    def labels(self) -> tuple[Tensor, Tensor]:
        """(H, W) int64 most likely classes, and (H, W) float32 uncertainty: 1 minus the margin of the best class."""
        labels = torch.empty(self.prediction.size, dtype=torch.long)
        uncertainty = torch.empty(self.prediction.size)
        for window in self.windows():
            rows, columns = window.slices_in(Tile(0, 0, *self.prediction.size))
            labels[rows, columns], uncertainty[rows, columns] = most_likely(self.window(window))
        return labels, uncertainty

    def recorder(self, tile: Tile, plan: SlotPlan) -> Callback | None:
        """A callback that keeps the label map of every step of one tile; later tiles win where tiles overlap."""
        if not self._steps:
            return None

        def record(step: Step) -> None:
            size = (2 * step.logits.shape[-2], 2 * step.logits.shape[-1])
            slots = F.interpolate(step.logits[:1].float(), size, mode="bilinear", align_corners=False)[0].argmax(0)
            slots = slots[: tile.height, : tile.width].cpu()
            rows, columns = tile.slices_in(Tile(0, 0, *self.prediction.size))
            # what sits in "other" keeps the segmentor's own class
            classes = torch.cat([plan.classes, plan.classes[:1]])[slots.clamp(max=len(plan.classes))]
            here = self._steps[step.index][rows, columns]
            self._steps[step.index][rows, columns] = torch.where(slots < len(plan.classes), classes, here)

        return record

    def trajectory(self) -> list[Tensor]:
        """(H, W) int64 label map after every step; void pixels of a label map stay void."""
        return [step.masked_fill(self.prediction.void, self.prediction.ignore_index) for step in self._steps]
