"""`ddps.prior` as one labelled picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .models.paper import FeaturesDenoiser
from .prior import MaskPrior, Restored
from .refiner import DDPSRefiner
from .visualize import Palette, colourise, default_palette, legend, side_by_side, stack

MASKED = (128, 128, 128)
"""Colour of the absorbing kernel's masked state."""
PANEL_HEIGHT = 200
_INK, _PAPER = (32, 32, 32), (255, 255, 255)


@dataclass(frozen=True)
class PriorRequest:
    """What to show.

    Args:
        samples: number of masks sampled from noise.
        noise: shares of the pixels to noise, each in (0, 1).
        steps: passes of a sampled mask; None for all of the schedule.
        restore_steps: passes from the noised level on, at most those that are left there.
        sampler: "free" or "posterior".
        seed: of the noise.
        classes: of sampled masks of class-agnostic weights, where there is no true mask.
        size: (H, W) of sampled masks, where there is no true mask.
    """

    samples: int = 4
    noise: tuple[float, ...] = (0.25, 0.5, 0.75, 0.9)
    steps: int | None = None
    restore_steps: int = 1
    sampler: str = "free"
    seed: int = 0
    classes: int = 10
    size: tuple[int, int] = (256, 256)


def draw_prior(
    refiner: DDPSRefiner,
    request: PriorRequest,
    mask: Tensor | None = None,
    names: Sequence[str] = (),
    palette: Palette = (),
) -> tuple[Image.Image, list[Restored]]:
    """Masks sampled without a condition and, of a true mask, noised and restored ones.

    Args:
        refiner: any trained refiner.
        request: what to show.
        mask: (H, W) int64 true classes of the users, -1 where void; None for samples only.
        names: of the classes; empty for the model's own.
        palette: of the classes; empty for the model's own.

    Returns:
        The picture, and what was restored at each noise.

    Raises:
        InputError: settings out of range, or a mask that does not fit the model.
    """
    space = refiner.config.labels
    names = tuple(names) or space.names
    network = refiner.network
    if isinstance(network, FeaturesDenoiser):
        classes = network.network.num_classes - space.void_first
        shown = torch.arange(classes)
        offset = int(space.void_first)
    else:
        shown = torch.arange(request.classes) if mask is None else _present(mask)
        offset = 0
    size = request.size if mask is None else (mask.shape[0], mask.shape[1])
    prior = MaskPrior(refiner, size, len(shown) + offset)
    most = int(shown.max()) + 1 if mask is None else max(int(shown.max()), int(mask.max())) + 1
    colours = _Colours(shown, offset, palette or space.palette or default_palette(most))
    title = f"Masks sampled from noise, {_passes(request.steps or refiner.schedule.num_steps)}, nothing else given"
    samples = [prior.sample(request.seed + k, request.steps, request.sampler) for k in range(request.samples)]
    parts = []
    if samples:
        panels = [(f"sample {k + 1}", colours.picture(sample)) for k, sample in enumerate(samples)]
        parts += [heading(title), side_by_side(_enlarged(panels), PANEL_HEIGHT)]
    restored = [] if mask is None else [_restore(prior, colours, mask, noise, request) for noise in request.noise]
    if mask is not None and restored:
        title = f"A true mask, noised, and restored in {_passes(request.restore_steps)} from the noised mask alone"
        above = [("true mask", colours.of_classes(mask))]
        above += [(f"{100 * one.noise:.0f} % noise", colours.picture(one.noised)) for one in restored]
        below = [(f"restored, {one.accuracy:.1f} % right", colours.picture(one.labels)) for one in restored]
        top, bottom = (side_by_side(_enlarged(panels, size), PANEL_HEIGHT) for panels in (above, below))
        aligned = Image.new("RGB", (max(top.width, bottom.width), bottom.height), _PAPER)
        aligned.paste(bottom, (aligned.width - bottom.width, 0))
        parts += [heading(title), top, aligned]
    picture = stack(parts)
    if names and mask is not None:
        known = [int(k) for k in _present(mask)]
        picture = stack([picture, legend(colours.palette, names, known, picture.width)])
    return picture, restored


def heading(text: str) -> Image.Image:
    """A line of text."""
    font = ImageFont.load_default(16)
    picture = Image.new("RGB", (int(font.getlength(text)) + 16, 30), _PAPER)
    ImageDraw.Draw(picture).text((8, 6), text, fill=_INK, font=font)
    return picture


@dataclass(frozen=True, eq=False)
class _Colours:
    """States of the chain ↔ classes of the users, in colours; state s + offset shows class `classes[s]`."""

    classes: Tensor
    offset: int
    palette: Palette

    def picture(self, states: Tensor) -> Image.Image:
        """Void is black, the absorbing kernel's masked state grey."""
        entries = [(0, 0, 0)] * self.offset + [self.palette[int(k)] for k in self.classes] + [MASKED]
        return Image.fromarray(np.array(entries, dtype=np.uint8)[states.numpy()])

    def of_classes(self, mask: Tensor) -> Image.Image:
        return Image.fromarray(colourise(mask.numpy(), self.palette))

    def to_states(self, mask: Tensor) -> Tensor:
        """Classes to states; void is the network's own void state, or -1 where it has none."""
        table = torch.full((max(int(mask.max()), int(self.classes.max())) + 1,), -1)
        table[self.classes] = torch.arange(len(self.classes)) + self.offset
        known = table[mask.clamp(min=0)]
        return torch.where(mask < 0, 0 if self.offset else -1, known)


def _restore(prior: MaskPrior, colours: _Colours, mask: Tensor, noise: float, request: PriorRequest) -> Restored:
    unknown = 0 if colours.offset else None
    return prior.restore(colours.to_states(mask), noise, request.seed, request.restore_steps, request.sampler, unknown)


def _present(mask: Tensor) -> Tensor:
    """Classes of a mask, at least two."""
    found = mask[mask >= 0].unique()
    if len(found) < 2:
        extra = 0 if len(found) == 0 or int(found[0]) != 0 else 1
        found = torch.cat([found, torch.tensor([extra])]) if len(found) else torch.arange(2)
    return found.sort().values


def _passes(steps: int) -> str:
    return "one pass" if steps == 1 else f"{steps} passes"


def _enlarged(
    panels: list[tuple[str, Image.Image]], size: tuple[int, int] | None = None
) -> list[tuple[str, Image.Image]]:
    """Small masks by whole pixels, so that every one of them can be seen; all of one size."""
    answer = []
    for title, picture in panels:
        height, width = size or (picture.height, picture.width)
        scale = PANEL_HEIGHT / height
        wanted = (max(1, round(width * scale)), PANEL_HEIGHT)
        answer.append((title, picture.resize(wanted, Image.Resampling.NEAREST)))
    return answer
