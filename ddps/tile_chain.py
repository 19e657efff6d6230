"""One tile through the chain: from the segmentor's probabilities over slots to refined ones.

An outline cannot be finer than the grid that it is drawn on. A small image is therefore enlarged: the first pass sees
it at its own size, which shows the most around every pixel, and the later ones draw on the finer grid.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import ScheduleConfig
from .diffusion import samplers
from .diffusion.schedules import Schedule
from .models.slot_unet import BLANK, Condition, Denoised, SlotUNet
from .models.strips import pooled_softmax
from .prediction_window import most_likely
from .settings import Settings
from .slots import slot_kernel

MOST_ZOOM = 2.0
# Share of the latest pass in the answer; the rest is that of the first, where it has seen the tile at another size.
FINE_SHARE = 0.75
REACH_CELL = 4
# What a class that is near keeps of its probability, however sure the network is of one that is not.
LEAST = 1e-5


def zoom_of(size: tuple[int, int], working_size: int) -> float:
    """How much an image of (H, W) pixels is enlarged for its short side to have `working_size` pixels, at most twice.

    1 where it has as many already, and where `working_size` is 0.
    """
    return min(MOST_ZOOM, max(1.0, working_size / min(size)))


@dataclass(frozen=True, eq=False)
class View:
    """A tile at one size: what the network sees of it.

    Attributes:
        condition: with the image.
        blank: without it, for guidance; None where there is none.
        height, width: of the enlarged tile, before padding, in pixels.
    """

    condition: Condition
    blank: Condition | None
    height: int
    width: int

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the mask at stride 2, with padding."""
        return self.condition.coarse.shape[-2], self.condition.coarse.shape[-1]


class TileChain:
    """Runs the chains of one call of `refine`, tile by tile.

    Args:
        network: on its device, ready for inference.
        schedule, schedule_config: of the model.
        settings: of the call.
        dtype: of autocast; float32 for none.
    """

    def __init__(
        self,
        network: SlotUNet,
        schedule: Schedule,
        schedule_config: ScheduleConfig,
        settings: Settings,
        dtype: torch.dtype,
    ):
        self.network, self.schedule, self.settings, self.dtype = network, schedule, settings, dtype
        self.kernel_config = schedule_config
        self.device = next(network.parameters()).device

    @torch.no_grad()
    def refine(
        self,
        image: Tensor,
        slots: Tensor,
        zoom: float,
        crisp: bool,
        seeds: Sequence[int],
        record: samplers.Callback | None = None,
        classes: Tensor | None = None,
        around: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Refined probabilities of one tile, averaged over one chain per seed.

        Args:
            image: (3, h, w) in [0, 1].
            slots: (S, h, w) the segmentor's probabilities, summing to 1.
            zoom: >= 1, how much the tile is enlarged for all passes but the first of several.
            crisp: the slots come from a label map, whose outlines enlarging must not soften.
            seeds: of the chains.
            record: called with every `Step` of the first chain, its logits on the tile's own grid at stride 2.
            classes: (S,) the class in every slot, see `SlotPlan.ids`; networks that know their classes need it.
            around: per seed (S, ceil(h/2), ceil(w/2)) log-probabilities from a coarser look at more of the image, which
                are then the chain's first answer; None for a first pass over the tile itself.

        Returns:
            (S, h, w) float32 after each of the numbers of steps in `settings.after`, then after the last step.
        """
        height, width = image.shape[-2:]
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            last = self._view(image, slots, zoom, crisp, classes)
            several = self.settings.steps > 1
            plain = zoom > 1 and several and around is None
            first = self._view(image, slots, 1.0, crisp, classes) if plain else last
            totals = [torch.zeros(()) for _ in range(len(self.settings.after) + 1)]
            for index, seed in enumerate(seeds):
                seen = None if around is None else _on_grid(around[index].to(self.device), last)
                answers = self._chain(first, last, seed, (height, width), record if index == 0 else None, seen)
                totals = [total + answer for total, answer in zip(totals, answers, strict=True)]
        return [total / len(seeds) for total in totals]

    def _view(self, image: Tensor, slots: Tensor, zoom: float, crisp: bool, classes: Tensor | None) -> View:
        size = image.shape[-2], image.shape[-1]
        if zoom > 1:
            size = math.ceil(size[0] * zoom), math.ceil(size[1] * zoom)
            image = F.interpolate(image[None], size, mode="bicubic", align_corners=False)[0].clamp(0, 1)
            if crisp:
                slots = F.interpolate(slots[None], size, mode="nearest-exact")[0]
            else:
                slots = F.interpolate(slots[None], size, mode="bilinear", align_corners=False)[0]
        stride = self.network.config.stride
        image, slots = pad_to(image, stride)[None].to(self.device), pad_to(slots, stride)[None].to(self.device)
        ids = None if classes is None else classes[None].to(self.device)
        condition = self.network.condition(image.contiguous(memory_format=torch.channels_last), slots, classes=ids)
        blank = None
        if self.settings.guidance_scale:
            blank = self.network.condition(torch.full_like(image, BLANK), slots, classes=ids)
        return View(condition, blank, *size)

    def _chain(
        self,
        first: View,
        last: View,
        seed: int,
        size: tuple[int, int],
        record: samplers.Callback | None,
        seen: Tensor | None,
    ) -> list[Tensor]:
        """(S, h, w) float32 probabilities of one run of the sampler, as `refine` gives them."""
        passes: dict[View, Denoised] = {}
        answers: list[Tensor] = []
        ran: list[samplers.Step] = []

        def denoiser(mask: Tensor, i: int) -> Tensor:
            if seen is not None and not ran:
                return seen
            view = last if passes else first
            passes[view] = self._denoise(view, resize_mask(mask, last, view), i)
            return resize_logits(passes[view].logits, view, last)

        def keep(step: samplers.Step) -> None:
            if record is not None:
                grid = -(-size[0] // 2), -(-size[1] // 2)
                record(replace(step, logits=_resize(_unpad(step.logits, last), grid)))

        def callback(step: samplers.Step) -> None:
            ran[:] = [step]
            keep(step)
            if self.settings.callback is not None:
                self.settings.callback(step)
            if step.index + 1 in self.settings.after:
                answers.append(self._answer(passes, size, seen, last))

        kernel = slot_kernel(self.kernel_config, last.condition.slots)
        generators = [torch.Generator().manual_seed(seed)]
        prediction = torch.stack([most_likely(planes)[1] for planes in last.condition.coarse])
        if self.settings.sampler == "single":
            samplers.single(denoiser, prediction, kernel, self.schedule, generators, callback)
        else:
            sample = samplers.posterior if self.settings.sampler == "posterior" else samplers.free
            sample(
                denoiser,
                prediction,
                kernel,
                self.schedule,
                self.settings.steps,
                generators,
                callback,
                early_exit=self.settings.early_exit,
            )
        # a chain that ended early would have gone on showing the same
        for index in range(ran[0].index + 1, self.settings.steps):
            keep(replace(ran[0], index=index))
        answer = self._answer(passes, size, seen, last)
        return [*answers, *[answer] * (len(self.settings.after) - len(answers)), answer]

    def _answer(
        self, passes: Mapping[View, Denoised], size: tuple[int, int], seen: Tensor | None, last: View
    ) -> Tensor:
        """(S, h, w) float32 probabilities: a log-linear pool of the latest pass of every view."""
        logits = [self._finish(view, denoised, size) for view, denoised in passes.items()]
        if seen is not None:
            height, width = last.height, last.width
            wide = F.interpolate(seen.float(), scale_factor=2.0, mode="bilinear", align_corners=False)
            logits.insert(0, _resize(wide[..., :height, :width], size)[0])
        first, *others = logits
        return pooled_softmax(first, others[0] if others else None, FINE_SHARE)

    def _finish(self, view: View, denoised: Denoised, size: tuple[int, int]) -> Tensor:
        """(S, h, w) float32 logits at the tile's own size."""
        logits = self.network.finish(denoised, view.condition)[..., : view.height, : view.width]
        return _resize(logits, size)[0]

    def _denoise(self, view: View, mask: Tensor, i: int) -> Denoised:
        denoised = self.network.denoise(mask, i, view.condition)
        if view.blank is None:
            return denoised
        g, without = self.settings.guidance_scale, self.network.denoise(mask, i, view.blank).logits
        return replace(denoised, logits=denoised.logits * (1 + g) - g * without)


def _on_grid(logits: Tensor, view: View) -> Tensor:
    """(S, h, w) on a tile's own grid at stride 2, as (1, S, h', w') on that of a view, which is the tile enlarged."""
    rows, columns = -(-view.height // 2), -(-view.width // 2)
    resized = _resize(logits[None], (rows, columns))
    return F.pad(resized, (0, view.grid[1] - columns, 0, view.grid[0] - rows), mode="replicate")


def resize_mask(mask: Tensor, of: View, to: View) -> Tensor:
    """A (B, h, w) mask on one view's grid at the places of another's: noise stays noise."""
    if of is to:
        return mask
    indices = []
    for have, want, real_have, real_want in zip(
        of.grid, to.grid, (of.height, of.width), (to.height, to.width), strict=True
    ):
        centres = (torch.arange(want, device=mask.device) + 0.5) * (real_have / real_want)
        indices.append(centres.long().clamp(max=have - 1))
    return mask[:, indices[0][:, None], indices[1]]


def resize_logits(logits: Tensor, of: View, to: View) -> Tensor:
    """(B, S, h, w) logits on one view's grid, bilinearly on another's."""
    if of is to:
        return logits
    rows, columns = -(-to.height // 2), -(-to.width // 2)
    resized = _resize(_unpad(logits, of), (rows, columns))
    return F.pad(resized, (0, to.grid[1] - columns, 0, to.grid[0] - rows), mode="replicate").to(logits.dtype)


def _unpad(logits: Tensor, of: View) -> Tensor:
    return logits[..., : -(-of.height // 2), : -(-of.width // 2)]


def _resize(logits: Tensor, size: tuple[int, int]) -> Tensor:
    if logits.shape[-2:] == size:
        return logits.float()
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False, antialias=True)


def keep_in_reach(probs: Tensor, slots: Tensor, reach: float) -> Tensor:
    """Takes a class's probability away where none of its own pixels is near.

    A label map has no second guesses: what looks like one of its things far from it is another thing.

    Args:
        probs: (S, h, w) refined probabilities, summing to 1.
        slots: (S, h, w) those of the label map.
        reach: in pixels, measured in cells of 4 x 4.

    Returns:
        (S, h, w), summing to 1.
    """
    own = (slots > 0.5).float()[None]
    side = 2 * math.ceil(reach / REACH_CELL) + 1
    near = F.max_pool2d(own, REACH_CELL, ceil_mode=True)
    for window in ((side, 1), (1, side)):
        near = F.max_pool2d(near, window, 1, (window[0] // 2, window[1] // 2))
    near = near.repeat_interleave(REACH_CELL, 2).repeat_interleave(REACH_CELL, 3)
    near = near[0, :, : probs.shape[1], : probs.shape[2]]
    kept = probs.clamp(min=LEAST) * near
    total = kept.sum(0, keepdim=True)
    # where nothing is near, as deep in void, there is nothing to hold on to
    return torch.where(total > 0, kept / total.clamp(min=LEAST), probs)


def pad_to(values: Tensor, stride: int) -> Tensor:
    """(C, h, w) with its last rows and columns repeated up to multiples of `stride`."""
    height, width = values.shape[-2:]
    return F.pad(values[None], (0, -width % stride, 0, -height % stride), mode="replicate")[0]
