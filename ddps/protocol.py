"""How a model is asked about an image when it is measured: resize rule, whole image or sliding window, scales, flip.

The rules are mmsegmentation's, by which the paper's figures were made (DDPS, arXiv 2306.01721, section 4.1): logits are
averaged by count where windows overlap, resized to the true mask's size, and only then turned into probabilities,
which are averaged over scales and flips.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import check_range
from .errors import InputError
from .predictions import Prediction
from .tiling import Tile

Mode: TypeAlias = Literal["whole", "slide"]
Size: TypeAlias = tuple[int, int]
LEAST = 1e-30
"""Probabilities below this count as this where a model gives probabilities instead of logits."""
AVERAGE = "average"
# ImageNet's mean colour, which is zero once a model has normalised its input.
_PADDING = torch.tensor([123.675, 116.28, 103.53])[:, None, None] / 255


class Segmentor(Protocol):
    """Any model: `segmentor(image (3, h, w) in [0, 1], prediction)` gives logits (K, h, w), one per recorded pass.

    Logits may be off by a number per pixel, so log-probabilities will do (`as_logits`). `prediction` is what the
    segmentor in front of a plug-in refiner said about this very picture, or None.
    """

    def __call__(self, image: Tensor, prediction: Prediction | None, /) -> Sequence[Tensor]: ...


@dataclass(frozen=True)
class EvaluationProtocol:
    """One way to measure.

    Attributes:
        resize: (long, short) side in pixels that an image is made to fit, its shape kept; None for its own size.
        mode: "whole" image at once, or "slide", window by window.
        crop: (H, W) of a window in pixels.
        stride: (rows, columns) from one window to the next, in pixels, at most `crop`.
        scales: factors of the resize rule; their probabilities are averaged.
        flip: whether every scale is also looked at in a mirror.
        multiple: what the model sees is padded to a multiple of this many pixels, at the bottom and on the right, with
            the mean colour. Not for plug-in refiners, which take any size.

    Raises:
        InputError: a value out of its range.
    """

    resize: tuple[int, int] | None = None
    mode: Mode = "whole"
    crop: Size = (1024, 1024)
    stride: Size = (768, 768)
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    multiple: int = 1

    def __post_init__(self) -> None:
        for side in self.resize or ():
            check_range("resize", side, 1, 65536)
        for side, step in zip(self.crop, self.stride, strict=True):
            check_range("crop", side, 16, 65536)
            check_range("stride", step, 1, side)
        check_range("the number of scales", len(self.scales), 1, 64)
        for scale in self.scales:
            check_range("scales", scale, 0.05, 20)
        check_range("multiple", self.multiple, 1, 1024)

    def sizes(self, image: Size) -> list[Size]:
        """(H, W) that an image of this size is resized to, for each of `scales`."""
        return [resized(image, self.resize, scale) for scale in self.scales]


PRESETS: Mapping[str, EvaluationProtocol] = {
    "ade20k": EvaluationProtocol(resize=(2048, 512), multiple=32),
    "cityscapes": EvaluationProtocol(
        resize=(2048, 1024), mode="slide", crop=(1024, 1024), stride=(768, 768), multiple=32
    ),
}
"""Single-scale protocols of the two data sets."""
MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""The scales that, with flip, make a preset the multi-scale protocol."""


@dataclass(frozen=True)
class Passes:
    """Which passes of one chain are reported.

    Attributes:
        at: numbers of passes, increasing, from 1; the last of them is the length of the chain. None for what the model
            does by itself, once.
        average: also the mean of the probabilities after every pass of the chain.

    Raises:
        InputError: numbers that do not increase, or an average without a chain.
    """

    at: tuple[int, ...] | None = None
    average: bool = False

    def __post_init__(self) -> None:
        if self.at is not None and (not self.at or self.at[0] < 1 or sorted(set(self.at)) != list(self.at)):
            raise InputError("numbers of steps from 1 on, each larger than the one before", str(self.at), "1,10,20")
        if self.average and self.at is None:
            raise InputError("the number of steps to average over", "none", "--steps 20 with --average-steps")

    @property
    def recorded(self) -> tuple[int, ...]:
        """Passes whose logits the model has to give: those reported, or all of them for the average."""
        at = self.at or (1,)
        return tuple(range(1, at[-1] + 1)) if self.average else at

    @property
    def steps(self) -> int | None:
        """Length of the chain; None for the model's default."""
        return None if self.at is None else self.at[-1]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the answers: the number of the pass, and "average"."""
        return (*map(str, self.at or (1,)), *((AVERAGE,) if self.average else ()))


def infer(
    segmentor: Segmentor,
    image: Tensor,
    protocol: EvaluationProtocol,
    size: Size,
    passes: Passes | None = None,
    prediction: Prediction | None = None,
) -> dict[str, Tensor]:
    """Probabilities of one image under a protocol.

    Args:
        segmentor: see there; gives one answer per `passes.recorded`.
        image: (3, h, w) in [0, 1], at its own size.
        protocol: how to look at it.
        size: (H, W) of the true mask.
        passes: which passes to report; None for the only one.
        prediction: of the segmentor in front of a plug-in refiner; None for models that need none.

    Returns:
        Name of an answer (`Passes.names`) → (K, H, W) float32 probabilities, on the logits' device.

    Raises:
        InputError: the model gave another number of answers, or maps of another size.
    """
    passes = passes or Passes()
    totals: dict[str, Tensor] = {}
    own = (int(image.shape[-2]), int(image.shape[-1]))
    views = [(view, flip) for view in protocol.sizes(own) for flip in ((False, True) if protocol.flip else (False,))]
    for view, flip in views:
        # Rounding must not leave [0, 1], which models insist on.
        pixels = resize(image, view).clamp(0, 1)
        known = None if prediction is None else replace(prediction, size=view)
        if flip:
            pixels = pixels.flip(-1)
            known = None if known is None else replace(known, native=known.native.flip(-1))
        ask = slide if protocol.mode == "slide" else whole
        answers = ask(segmentor, pixels, known, protocol)
        if len(answers) != len(passes.recorded):
            raise InputError(f"{len(passes.recorded)} answers of the model", str(len(answers)), "one per recorded pass")
        for number, logits in zip(passes.recorded, answers, strict=True):
            probs = resize(logits.flip(-1) if flip else logits, size).softmax(0)
            shares = {str(number): 1.0} if passes.at is None or number in passes.at else {}
            if passes.average:
                shares[AVERAGE] = 1 / len(passes.recorded)
            for name, share in shares.items():
                if name not in totals:
                    totals[name] = torch.zeros_like(probs)
                totals[name].add_(probs, alpha=share / len(views))
    return {name: totals[name] for name in passes.names}


def whole(
    segmentor: Segmentor, image: Tensor, prediction: Prediction | None, protocol: EvaluationProtocol
) -> list[Tensor]:
    """The logits of a whole image, (K, h, w) for each recorded pass."""
    return _ask(segmentor, image, prediction, protocol.multiple)


def slide(
    segmentor: Segmentor, image: Tensor, prediction: Prediction | None, protocol: EvaluationProtocol
) -> list[Tensor]:
    """Window by window; where windows overlap, the mean of their logits. (K, h, w) for each recorded pass."""
    totals: list[Tensor] = []
    size = (int(image.shape[-2]), int(image.shape[-1]))
    frame = Tile(0, 0, *size)
    tiles = plan_windows(size, protocol.crop, protocol.stride)
    counts = torch.zeros(size)
    for tile in tiles:
        rows, columns = tile.slices_in(frame)
        known = None if prediction is None else prediction.cut(tile.top, tile.left, tile.height, tile.width)
        answers = _ask(segmentor, image[:, rows, columns], known, protocol.multiple)
        if not totals:
            totals = [answer.new_zeros((len(answer), *size)) for answer in answers]
        for total, answer in zip(totals, answers, strict=True):
            total[:, rows, columns] += answer
        counts[rows, columns] += 1
    return [total.div_(counts.to(total.device)) for total in totals]


def plan_windows(size: Size, crop: Size, stride: Size) -> list[Tile]:
    """Windows as mmsegmentation lays them: on a grid of strides, the last row and column moved in to touch the border.

    Args:
        size: (H, W) of the picture; where it is smaller than the window, so is the window.
        crop, stride: see `EvaluationProtocol`.
    """
    starts = []
    for side, window, step in zip(size, crop, stride, strict=True):
        count = max(side - window + step - 1, 0) // step + 1
        starts.append([max(min(index * step, side - window), 0) for index in range(count)])
    height, width = min(crop[0], size[0]), min(crop[1], size[1])
    return [Tile(top, left, height, width) for top in starts[0] for left in starts[1]]


def resized(size: Size, rule: tuple[int, int] | None, scale: float = 1.0) -> Size:
    """(H, W) of an image made as large as fits into (long, short) · scale, its shape kept; at least one pixel.

    Args:
        size: (H, W) of the image.
        rule: (long, short) side in pixels; None for the image's own.
        scale: factor of the rule.
    """
    longest, shortest = max(size), min(size)
    long, short = (longest, shortest) if rule is None else (max(rule), min(rule))
    factor = min(int(long * scale) / longest, int(short * scale) / shortest)
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def resize(values: Tensor, size: Size) -> Tensor:
    """(C, h, w) → (C, H, W) float32, bilinear, pixel centres aligned (align_corners=False)."""
    if values.shape[-2:] == size:
        return values.float()
    return F.interpolate(values[None].float(), size, mode="bilinear", align_corners=False)[0]


def as_logits(probs: Tensor) -> Tensor:
    """Logits of probabilities, for a `Segmentor`."""
    return probs.clamp(min=LEAST).log()


def _ask(segmentor: Segmentor, image: Tensor, prediction: Prediction | None, multiple: int) -> list[Tensor]:
    height, width = image.shape[-2:]
    if prediction is None:
        padded = _PADDING.to(image).repeat(1, height + -height % multiple, width + -width % multiple)
        padded[:, :height, :width] = image
        image = padded
    answers = [answer.float() for answer in segmentor(image, prediction)]
    for answer in answers:
        if answer.ndim != 3 or answer.shape[1:] != image.shape[1:]:
            expected = f"logits (K, {image.shape[1]}, {image.shape[2]}) of the model"
            raise InputError(expected, f"shape {tuple(answer.shape)}", "resizing them to the picture it was given")
    return [answer[:, :height, :width] for answer in answers]
