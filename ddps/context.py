"""What lies around a tile: the first pass over a large image sees it coarsely, in windows several tiles wide.

A tile at full resolution shows the network a small part of what a large image shows, and outlines only. So the first
of several passes runs on the image made two or three times smaller, and every tile's chain goes on from there. That
pass is shared by all tiles of a window, which makes it cheaper than one pass per tile as well.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .nearest_labels import LabelsAround, regrouped
from .prediction_window import LabelWindow
from .predictions import Prediction
from .settings import Settings
from .slots import SlotPlan, slots_of
from .tile_chain import TileChain
from .tiling import Tile, chain_seed, plan_tiles

# Of the image that the first pass sees: as small as the network was trained on, and no smaller than a third.
SHORT_SIDE, MOST = 360, 3
# What a tile has around it in its window, in coarse pixels, and at most as a share of the window's side.
MARGIN, MARGIN_SHARE = 32, 1 / 8
STRIP_ROWS = 128
TINY = 1e-4


class Pixels(Protocol):
    """An image (3, H, W) in [0, 1] that windows are cut from; a tensor is one."""

    def __getitem__(self, window: tuple[slice, slice, slice], /) -> Tensor: ...


def coarseness(size: tuple[int, int], settings: Settings) -> int:
    """How many times smaller than an image of (H, W) pixels the first pass sees it; 1 where it sees it as it is.

    A model without `working_size` was not made for images at other sizes than their own, and so has no such pass.
    """
    if settings.steps == 1 or settings.sampler == "single" or not settings.working_size:
        return 1
    return max(1, min(MOST, round(min(size) / SHORT_SIDE)))


@dataclass(frozen=True, eq=False)
class _Window:
    """A refined window of the coarse image."""

    tile: Tile
    plan: SlotPlan
    probs: list[Tensor]  # per chain (S, h, w) float16
    rest: Tensor  # (h, w) float16, what the segmentor gives to all classes without a slot
    classes: Sequence[Tensor] | None  # of a label map, per slot () or (h, w) int64, which class it shows


class Context:
    """The coarse first pass over one image, run where a tile asks for it.

    Args:
        pixels: the image.
        known: the segmentor's prediction for it.
        factor: from `coarseness`, at least 2.
        chain: of the call; only the first of its steps is run here.
    """

    def __init__(self, pixels: Pixels, known: Prediction, factor: int, chain: TileChain):
        self.pixels, self.size, self.factor = pixels, known.size, factor
        self.known = known.coarse(factor)
        settings = chain.settings
        self.settings = replace(settings, steps=1, after=(), callback=None, early_exit=0.0)
        self.chain = TileChain(chain.network, chain.schedule, chain.kernel_config, self.settings, chain.dtype)
        margin = min(MARGIN, int(settings.tile * MARGIN_SHARE))
        self.tiles = plan_tiles(self.known.size, settings.tile, -(-settings.tile // factor) + 2 * margin)
        self._columns = len({tile.left for tile in self.tiles})
        self._seen: OrderedDict[Tile, _Window | None] = OrderedDict()

    def first_pass(self, tile: Tile, plan: SlotPlan, slots: Tensor) -> list[Tensor] | None:
        """What the coarse pass says about a tile.

        Args:
            tile: of the image.
            plan: of the tile's slots.
            slots: (S, height, width) the segmentor's probabilities in them.

        Returns:
            Per chain (S, ceil(height/2), ceil(width/2)) log-probabilities; None where the window shows one class.
        """
        window = self._window(self._around(tile))
        if window is None:
            return None
        grid = -(-tile.height // 2), -(-tile.width // 2)
        if window.classes is not None:
            slot_of = plan.slot_of
            places = [slot_of[which] for which in window.classes]
            planes = [regrouped(probs.float(), places, plan.slots) for probs in window.probs]
            return [self._enlarged(coarse, window.tile, tile, grid).clamp(min=TINY).log() for coarse in planes]
        own = F.avg_pool2d(slots, 2, ceil_mode=True)
        rest = self._enlarged(window.rest[None], window.tile, tile, grid)[0]
        return [self._in_slots(window, tile, plan, own, rest, probs).clamp(min=TINY).log() for probs in window.probs]

    def _in_slots(
        self, window: _Window, tile: Tile, plan: SlotPlan, own: Tensor, rest: Tensor, probs: Tensor
    ) -> Tensor:
        """(S, h, w) of a tile's slots. A class that has none in the window keeps its share of the rest there."""
        count = len(window.plan.classes)
        refined = self._enlarged(probs, window.tile, tile, (own.shape[-2], own.shape[-1]))
        place = {int(k): s for s, k in enumerate(window.plan.classes)}
        of_rest = refined[count] / rest.clamp(min=TINY) if window.plan.other else torch.zeros_like(rest)
        planes = [
            refined[place[int(k)]] if int(k) in place else (own[s] * of_rest).clamp(max=1)
            for s, k in enumerate(plan.classes)
        ]
        if plan.other:
            planes.append((1 - torch.stack(planes).sum(0)).clamp(min=0))
        return torch.stack(planes)

    def _enlarged(self, planes: Tensor, window: Tile, tile: Tile, grid: tuple[int, int]) -> Tensor:
        """(C, h, w) planes of a coarse window, bilinearly on a tile's grid at stride 2."""
        axes = []
        for start, first, length, count in (
            (tile.top, window.top, window.height, grid[0]),
            (tile.left, window.left, window.width, grid[1]),
        ):
            places = (torch.arange(count) * 2 + 1 + start) / self.factor - first
            axes.append(places * 2 / length - 1)
        rows, columns = torch.meshgrid(*axes, indexing="ij")
        where = torch.stack([columns, rows], -1)[None]
        return F.grid_sample(planes[None].float(), where, padding_mode="border", align_corners=False)[0]

    def _around(self, tile: Tile) -> Tile:
        """The coarse window in whose middle a tile lies the most."""
        row, column = (tile.top + tile.height / 2) / self.factor, (tile.left + tile.width / 2) / self.factor

        def off(window: Tile) -> float:
            return abs(window.top + window.height / 2 - row) + abs(window.left + window.width / 2 - column)

        return min(self.tiles, key=off)

    def _window(self, tile: Tile) -> _Window | None:
        if tile not in self._seen:
            # one row of windows is all that tiles in their order ask for again
            while len(self._seen) > self._columns:
                self._seen.popitem(last=False)
            self._seen[tile] = self._refined(tile)
        self._seen.move_to_end(tile)
        return self._seen[tile]

    def _refined(self, tile: Tile) -> _Window | None:
        network = self.chain.network.config
        most = min(network.max_slots, self.settings.most_slots or network.max_slots)
        window = self.known.window(tile.top, tile.left, tile.height, tile.width)
        found = slots_of(window, most, network.classes > 0)
        if found is None:
            return None
        plan, slots = found
        image, crisp = self._image(tile), self.known.kind == "labels"
        answers = [
            self.chain.refine(image, slots, 1.0, crisp, [seed], classes=plan.ids)[-1] for seed in self._seeds(tile)
        ]
        rest = slots[-1] if plan.other else torch.zeros(tile.height, tile.width)
        classes = None
        if isinstance(window, LabelWindow):
            classes = list(plan.classes)
            if plan.sharing is not None:
                classes = LabelsAround(tile, window).classes_of(tile, plan.sharing)
        return _Window(tile, plan, [answer.to("cpu", torch.float16) for answer in answers], rest.half(), classes)

    def _seeds(self, tile: Tile) -> Sequence[int]:
        return [chain_seed(self.settings.seed, sample, tile) for sample in range(self.settings.num_samples)]

    def _image(self, tile: Tile) -> Tensor:
        """(3, h, w) of the coarse image, each pixel the mean of those that it stands for."""
        coarse = torch.empty(3, tile.height, tile.width)
        left, right = tile.left * self.factor, min((tile.left + tile.width) * self.factor, self.size[1])
        for first in range(0, tile.height, STRIP_ROWS):
            last = min(first + STRIP_ROWS, tile.height)
            top, bottom = ((tile.top + row) * self.factor for row in (first, last))
            part = self.pixels[:, slice(top, min(bottom, self.size[0])), slice(left, right)]
            # the last ones may stand for fewer
            coarse[:, first:last] = F.avg_pool2d(part, self.factor, ceil_mode=True)
        return coarse


def context_of(pixels: Pixels, known: Prediction, chain: TileChain) -> Context | None:
    """The coarse first pass over an image, where it is large enough for one."""
    factor = coarseness(known.size, chain.settings)
    return Context(pixels, known, factor, chain) if factor > 1 else None
