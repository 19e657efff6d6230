"""What moved between two frames of a video, and where nothing did: one motion of the whole picture, no optical flow.

A camera that pans, zooms or shakes a little shows the same things in other places. One shift, zoom and turn of the
whole picture is found and undone; what still differs has changed.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MEASURED_SIDE = 480
"""Longest side, in pixels, at which motion is looked for."""
ROUNDS = 8
MUST_EXPLAIN = 0.85
"""A motion counts only if it leaves at most this share of the difference between the frames."""
LARGEST_ZOOM, LARGEST_TURN = 0.1, 0.1
BLUR = 1.5
"""Standard deviation, in pixels, of the blur that frames are compared under."""
LEAST_STEP, NOISES = 2.5 / 255, 4.0
"""A change is at least so large after the blur, and so many standard deviations of what noise is left there."""
MOST_NOISE = 0.03
"""Highest standard deviation of noise, for values in [0, 1], that is believed: a cut is not noise."""
OUTLINE_PLAY = 0.3
"""By how many pixels an edge may seem to move without having changed."""
SPREAD = 3
"""How far around a change, in pixels, nothing counts as unchanged: a segmentor sees it from there."""


@dataclass(frozen=True)
class Motion:
    """Where a frame's pixels were in the frame before: turned and zoomed about the centre, and shifted.

    Attributes:
        down, right: in pixels.
        zoom: change of scale, 0 for none.
        turn: in radians, for small angles.
    """

    down: float = 0.0
    right: float = 0.0
    zoom: float = 0.0
    turn: float = 0.0

    @property
    def still(self) -> bool:
        return self == Motion()

    def origins(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """(H, W) rows and (H, W) columns, in pixels of the frame before, which had the same size."""
        rows = torch.arange(height, dtype=torch.float32)[:, None] - (height - 1) / 2
        columns = torch.arange(width, dtype=torch.float32)[None] - (width - 1) / 2
        down = (1 + self.zoom) * rows + self.turn * columns + self.down
        right = (1 + self.zoom) * columns - self.turn * rows + self.right
        return down + (height - 1) / 2, right + (width - 1) / 2

    def inside(self, height: int, width: int) -> Tensor:
        """(H, W) bool: pixels that the frame before showed."""
        rows, columns = self.origins(height, width)
        return (rows > -0.5) & (rows < height - 0.5) & (columns > -0.5) & (columns < width - 0.5)

    def carry(self, values: Tensor, how: str = "bilinear") -> Tensor:
        """(C, H, W) float values of the frame before at the places of this one; the border repeats.

        Args:
            values: of the frame before.
            how: "bilinear", "bicubic" or "nearest".
        """
        if self.still:
            return values
        height, width = values.shape[-2:]
        rows, columns = self.origins(height, width)
        grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1)
        return F.grid_sample(values[None], grid[None], how, "border", align_corners=False)[0]


def find_motion(image: Tensor, previous: Tensor) -> Motion:
    """The motion of the whole picture that explains the difference between two frames best.

    Phase correlation finds the shift (Kuglin and Hines, 1975), Gauss-Newton steps on the frames' difference the rest
    (Lucas and Kanade, 1981), with less weight for pixels that do not fit.

    Args:
        image, previous: (3, H, W) in [0, 1], of one size.

    Returns:
        The motion, or none where it would not explain much of the difference.
    """
    factor = max(1.0, max(image.shape[-2:]) / MEASURED_SIDE)
    small = [max(8, round(side / factor)) for side in image.shape[-2:]]
    if min(image.shape[-2:]) < 16:
        return Motion()
    now, before = (
        blurred(F.interpolate(frame.mean(0)[None, None], small, mode="area")[0], 1.0) for frame in (image, previous)
    )
    at_rest = _difference(now, before, Motion())
    shift = _shift(now[0], before[0])
    found = shift if _difference(now, before, shift) < at_rest else Motion()
    for _ in range(ROUNDS):
        found = _improve(found, now, before)
    fits = abs(found.zoom) < LARGEST_ZOOM and abs(found.turn) < LARGEST_TURN
    if not fits or not _difference(now, before, found) < MUST_EXPLAIN * at_rest:
        return Motion()
    scale = image.shape[-2] / small[0], image.shape[-1] / small[1]
    return Motion(found.down * scale[0], found.right * scale[1], found.zoom, found.turn)


def unchanged(image: Tensor, previous: Tensor, motion: Motion, threshold: float | None = None) -> Tensor:
    """How much of every pixel's surroundings is what it was in the frame before.

    Args:
        image, previous: (3, H, W) in [0, 1], of one size.
        motion: from `find_motion`.
        threshold: difference, after a blur, from which on a pixel begins to count as changed, in (0, 1]; None for one
            above the noise, which is estimated from the median difference.

    Returns:
        (H, W) float32 from 0, changed, to 1, unchanged; 0 where the frame before showed nothing.
    """
    before = motion.carry(previous, "bicubic")
    difference = image - before
    if threshold is None:
        noise = min(MOST_NOISE, float(difference.abs().median()) / 0.6745)
        threshold = max(LEAST_STEP, NOISES * noise / (2 * math.sqrt(math.pi) * BLUR))
    smooth = blurred(before, BLUR)
    step = blurred(difference, BLUR).abs().amax(0)
    down, right = _slopes(smooth)
    allowed = threshold + OUTLINE_PLAY * torch.hypot(down, right).amax(0)
    same = (2 - step / allowed).clamp(0, 1)
    same = same * motion.inside(*same.shape)
    return -F.max_pool2d(-same[None], 2 * SPREAD + 1, 1, SPREAD)[0]


def blurred(planes: Tensor, sigma: float) -> Tensor:
    """(C, H, W) under a Gaussian of `sigma` pixels; the border repeats."""
    radius = math.ceil(2.5 * sigma)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    weights = weights / weights.sum()
    values = F.pad(planes[:, None], (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(values, weights[None, None, :, None]), weights[None, None, None])[:, 0]


def _shift(now: Tensor, before: Tensor) -> Motion:
    """The shift at the highest peak of the phase correlation of two (h, w) planes, in whole pixels."""
    height, width = now.shape
    window = torch.hann_window(height)[:, None] * torch.hann_window(width)[None]
    spectra = [torch.fft.rfft2((plane - plane.mean()) * window) for plane in (now, before)]
    cross = spectra[1] * spectra[0].conj()
    peak = int(torch.fft.irfft2(cross / cross.abs().clamp(min=1e-6), (height, width)).argmax())
    down, right = divmod(peak, width)
    down, right = (down + height // 2) % height - height // 2, (right + width // 2) % width - width // 2
    far = abs(down) > height // 4 or abs(right) > width // 4
    return Motion() if far else Motion(float(down), float(right))


def _improve(motion: Motion, now: Tensor, before: Tensor) -> Motion:
    """One Gauss-Newton step."""
    height, width = now.shape[-2:]
    moved = motion.carry(before)
    error = (now - moved)[0]
    down, right = (slope[0] for slope in _slopes(moved))
    rows = torch.arange(height, dtype=torch.float32)[:, None] - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float32)[None] - (width - 1) / 2
    effect = torch.stack([down, right, down * rows + right * columns, down * columns - right * rows])
    scale = 2 * float(error.abs().median()) + 1e-3
    weight = motion.inside(height, width) / (1 + (error / scale) ** 2) ** 2
    effect = effect.flatten(1).double()
    weighted = effect * weight.flatten()
    # a picture without slopes tells no motion: the ridge then leaves it at rest
    ridge = torch.diag(torch.tensor([1e-4, 1e-4, 1e-2, 1e-2], dtype=torch.float64))
    change = torch.linalg.solve(weighted @ effect.T + ridge, weighted @ error.flatten().double())
    now_at = torch.tensor([motion.down, motion.right, motion.zoom, motion.turn]) + change
    return Motion(*now_at.tolist())


def _difference(now: Tensor, before: Tensor, motion: Motion) -> float:
    """Mean difference where both frames show something; at most 0.1 per pixel, since things also move on their own."""
    inside = motion.inside(now.shape[-2], now.shape[-1])
    error = (now - motion.carry(before))[0].abs().clamp(max=0.1)
    return float(error[inside].mean()) if bool(inside.any()) else math.inf


def _slopes(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences of (C, h, w) along rows and columns."""
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    right = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    return down, right
