"""Refined tiles put together to one answer.

Nowhere does an image's (K, H, W) lie in memory unless it is asked for: a tile keeps its few slots in half
precision, and classes are put together window by window.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .defaults import plain_defaults
from .diffusion.samplers import Callback, Step
from .errors import InputError
from .nearest_labels import labels_around
from .prediction_window import PredictionWindow, most_likely
from .predictions import Prediction
from .slots import SlotPlan, from_slots
from .tiling import Tile, blend_window

WINDOW = 256
# Up to so many classes all of them are put together; of more, those that a window shows, and the rest as one.
FEW_CLASSES = 8
TINY = 1e-12
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
    own: Tensor | None  # (S, height, width) float32, the segmentor's own, where one tile is the whole image


def check_finite(answer: Tensor) -> None:
    """Refuses what a network answers where its numbers have overflowed: its likeliest class would be no class.

    Raises:
        InputError: NaN or infinity.
    """
    if not bool(torch.isfinite(torch.stack(answer.aminmax())).all()):
        hint = "dtype=torch.float32, other weights, or features of the segmentor that they were trained with"
        raise InputError("a network whose answer is finite", "NaN or infinity", hint)


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


@dataclass(frozen=True)
class Answer:
    """What is made of a window.

    Attributes:
        labels: (h, w) int64 most likely classes.
        uncertainty: (h, w) float32, 1 minus the margin between the two most likely ones.
        own: (h, w) int64 the segmentor's own most likely classes; void where a label map has no label.
    """

    labels: Tensor
    uncertainty: Tensor
    own: Tensor


@dataclass(frozen=True, eq=False)
class _Pooled:
    """A window's refined probabilities of some classes, and of all the others together."""

    window: PredictionWindow
    classes: Tensor  # (C,) int64, increasing
    original: Tensor  # (C + 1, h, w), or (C, h, w) where there are no others
    probs: Tensor  # the same, refined
    bound: Tensor | None = None  # (h, w), how likely any one of the others is to the segmentor at most

    def answer(self, hedge: float = 0.0) -> Answer:
        if hedge:
            labels, margin = self.labels(), self._best(self.hedged(hedge))[1]
        else:
            labels, margin = self._best(self.probs)
        return Answer(labels, (1 - margin).clamp_(0, 1), self.window.own(self.classes, self.original, self.bound))

    def labels(self) -> Tensor:
        best, place = most_likely(self.probs[: len(self.classes)])
        labels = self.classes[place]
        doubtful = self._doubtful(self.probs, best)
        if doubtful is not None:
            other, share = self.window.best_of_rest(self.classes, doubtful)
            ahead = share * self.probs[-1][doubtful] > best[doubtful]
            labels[doubtful] = torch.where(ahead, other, labels[doubtful])
        return labels

    def _doubtful(self, probs: Tensor, best: Tensor) -> Tensor | None:
        """(h, w) bool: where one of the others may be the likeliest class; None for nowhere."""
        if len(probs) == len(self.classes):
            return None
        limit = probs[-1]
        if self.bound is not None:
            # among each other the others keep the segmentor's proportions
            limit = limit * (self.bound / self.original[-1].clamp(min=TINY)).clamp_(max=1)
        # seldom: what all the others have together is less, and each of them even more so
        doubtful = limit > best
        return doubtful if bool(doubtful.any()) else None

    def hedged(self, hedge: float) -> Tensor:
        """Refined probabilities, of which a share is the segmentor's own: less sure where the two disagree."""
        return torch.lerp(self.probs, self.original, hedge) if hedge else self.probs

    def _best(self, probs: Tensor) -> tuple[Tensor, Tensor]:
        """(h, w) each: the likeliest class, and how far it is ahead of the next one."""
        best, second, place = two_best(probs[: len(self.classes)])
        labels = self.classes[place]
        doubtful = self._doubtful(probs, best)
        if doubtful is not None:
            other, share = self.window.best_of_rest(self.classes, doubtful)
            its, first, runner_up = share * probs[-1][doubtful], best[doubtful], second[doubtful]
            labels[doubtful] = torch.where(its > first, other, labels[doubtful])
            second[doubtful] = torch.maximum(torch.minimum(its, first), runner_up)
            best[doubtful] = torch.maximum(its, first)
        return labels, best - second


def two_best(planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(h, w) each: the largest of (C, h, w) values, the second largest (0 for C = 1), and which the largest is.

    Plane by plane, in the processor's cache, this is several times faster than `topk` over the first axis.
    """
    best, second = planes[0].clone(), torch.zeros_like(planes[0])
    place = torch.zeros(planes.shape[1:], dtype=torch.int64, device=planes.device)
    for k, plane in enumerate(planes[1:], 1):
        place.masked_fill_(plane > best, k)
        torch.maximum(second, torch.minimum(plane, best), out=second)
        torch.maximum(best, plane, out=best)
    if len(planes) == 1:
        second = best - 1
    return best, second, place


def make_likeliest(labels: Tensor, probs: Tensor) -> Tensor:
    """(K, h, w) probabilities made to have (h, w) labels as the likeliest class: where it is another, the two change
    places, in place."""
    most, place = most_likely(probs)
    rows, columns = (place != labels).nonzero().unbind(1)
    ours, theirs = labels[rows, columns], place[rows, columns]
    probs[theirs, rows, columns] = probs[ours, rows, columns]
    probs[ours, rows, columns] = most[rows, columns]
    return probs


class Canvas:
    """Collects refined tiles; answers for any window with the segmentor's probabilities mixed in.

    Args:
        prediction: the segmentor's own prediction.
        overlap: width of the blending ramps in pixels.
        mix: share of the refiner in the answer, [0, 1].
        recorded_steps: how many steps' label maps to keep.
        hedge: share of the segmentor's own probabilities beside the mixed ones, [0, 1], in what is given out as
            probabilities and uncertainty; the labels are those of the mixed ones alone.
    """

    def __init__(self, prediction: Prediction, overlap: int, mix: float, recorded_steps: int = 0, hedge: float = 0.0):
        self.prediction, self.overlap, self.mix, self.hedge = prediction, overlap, mix, hedge
        self.pieces: list[_Piece] = []
        own = prediction.argmax() if recorded_steps else None
        self._steps = [] if own is None else [own.clone() for _ in range(recorded_steps)]

    def add(self, tile: Tile, plan: SlotPlan, probs: Tensor, own: Tensor | None = None) -> None:
        """Keeps a refined tile.

        Args:
            probs: (S, height, width) slot probabilities.
            own: those of the segmentor, which need not be looked up again then.

        Raises:
            InputError: the network's numbers have overflowed.
        """
        check_finite(probs)
        whole = (tile.height, tile.width) == self.prediction.size
        self.pieces.append(_Piece(tile, plan, probs.to("cpu", torch.float16), own if whole else None))

    def window(self, window: Tile) -> Tensor:
        """(K, height, width) float32 probabilities of a window; they sum to 1."""
        pooled = self._pooled(window, self.mix)
        count, every = self.prediction.num_classes, pooled.hedged(self.hedge)
        if len(pooled.classes) < count:
            planes, every = every, self.prediction.crop(window.top, window.left, window.height, window.width)
            every[pooled.classes] = 0
            every *= planes[-1] / every.sum(0).clamp(min=TINY)
            every[pooled.classes] = planes[: len(pooled.classes)]
        return make_likeliest(pooled.labels(), every) if self.hedge else every

    def answer(self, window: Tile) -> Answer:
        """What a window shows."""
        return self._pooled(window, self.mix).answer(self.hedge)

    def _pooled(self, window: Tile, mix: float) -> _Pooled:
        pieces = [(piece, shared) for piece in self.pieces if (shared := window.overlap(piece.tile)) is not None]
        own = self.prediction.window(window.top, window.left, window.height, window.width)
        around = labels_around(self.prediction, window) if any(piece.plan.sharing for piece, _ in pieces) else None
        count = self.prediction.num_classes
        if count <= FEW_CLASSES:
            classes = torch.arange(count)
        else:
            matters = own.shares().leads.clone()
            if around is not None:
                matters |= around.shown()
            for piece, _ in pieces:
                matters[piece.plan.leaders] = True
            if not bool(matters.any()):
                matters[0] = True
            classes = matters.nonzero()[:, 0]
        if (
            len(pieces) == 1
            and (slots := pieces[0][0].own) is not None
            and len(classes) == len(pieces[0][0].plan.classes)
        ):
            # what a tile that is the whole image has in its slots need not be looked up again
            here, order = window.slices_in(pieces[0][0].tile), pieces[0][0].plan.classes.argsort()
            order = torch.cat([order, torch.arange(len(order), len(slots))])
            original, refined = (planes[:, here[0], here[1]][order] for planes in (slots, pieces[0][0].probs))
            return _Pooled(own, classes, original, mix_probs(original, refined.float(), mix))
        original, bound = own.bounded(classes)
        places, counts = torch.zeros(count, dtype=torch.int64), torch.ones(len(original))
        places[classes] = torch.arange(len(classes))
        counts[len(classes) :] = count - len(classes)
        total, weights = torch.zeros_like(original), torch.zeros(original.shape[1:])
        for piece, shared in pieces:
            inside, here = shared.slices_in(piece.tile), shared.slices_in(window)
            plan = replace(piece.plan, classes=places[piece.plan.classes])
            refined = piece.probs[:, inside[0], inside[1]].float()
            if piece.plan.sharing is not None and around is not None:
                refined = around.in_classes(refined, shared, piece.plan.sharing, places, len(original))
            else:
                refined = from_slots(refined, original[:, here[0], here[1]], plan, counts)
            if len(pieces) == 1 and shared == window:
                return _Pooled(own, classes, original, mix_probs(original, refined, mix), bound)
            weight = blend_window(piece.tile, self.prediction.size, self.overlap, shared)
            total[:, here[0], here[1]] += refined.mul_(weight)
            weights[here] += weight
        # a pixel that no tile refined keeps the segmentor's answer
        mixed = mix_probs(original, total / weights.clamp(min=1e-9), mix) if pieces else original
        return _Pooled(own, classes, original, torch.where(weights > 0, mixed, original) if pieces else original, bound)

    def displacement(self) -> float:
        """How far the refiner alone would move the outlines, in pixels on average: changes per outline pixel."""
        changed = 0
        for window in self.windows():
            answer = self._pooled(window, 1.0).answer()
            changed += int(((answer.labels != answer.own) & (answer.own != self.prediction.ignore_index)).sum())
        own = self.prediction.argmax()
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

    @plain_defaults()  # it is called later than `refine`
    def probs(self) -> Tensor:
        """(K, H, W) float32 probabilities of the whole image."""
        whole = torch.empty((self.prediction.num_classes, *self.prediction.size))
        for window in self.windows():
            rows, columns = window.slices_in(Tile(0, 0, *self.prediction.size))
            whole[:, rows, columns] = self.window(window)
        return whole

    def answers(self) -> Answer:
        """What the whole image shows."""
        size = self.prediction.size
        whole = Answer(torch.empty(size, dtype=torch.long), torch.empty(size), torch.empty(size, dtype=torch.long))
        for window in self.windows():
            here, answer = window.slices_in(Tile(0, 0, *size)), self.answer(window)
            whole.labels[here], whole.uncertainty[here], whole.own[here] = answer.labels, answer.uncertainty, answer.own
        return whole

    def recorder(self, tile: Tile, plan: SlotPlan) -> Callback | None:
        """A callback that keeps the label map of every step of one tile; later tiles win where tiles overlap."""
        if not self._steps:
            return None
        classes = list(plan.classes)
        if plan.sharing is not None and (around := labels_around(self.prediction, tile)) is not None:
            classes = around.classes_of(tile, plan.sharing)

        def record(step: Step) -> None:
            size = (2 * step.logits.shape[-2], 2 * step.logits.shape[-1])
            slots = F.interpolate(step.logits[:1].float(), size, mode="bilinear", align_corners=False)[0].argmax(0)
            slots = slots[: tile.height, : tile.width].cpu()
            rows, columns = tile.slices_in(Tile(0, 0, *self.prediction.size))
            here = self._steps[step.index][rows, columns]
            # what sits in "other" keeps the segmentor's own class
            for slot, which in enumerate(classes):
                here.copy_(torch.where(slots == slot, which, here))

        return record

    def trajectory(self) -> list[Tensor]:
        """(H, W) int64 label map after every step; void pixels of a label map stay void."""
        return [step.masked_fill(self.prediction.void, self.prediction.ignore_index) for step in self._steps]
