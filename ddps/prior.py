"""The mask prior made visible: what a trained network believes about masks when it is shown nothing else.

Source: DDPS, arXiv 2306.01721, section 4.4: masks sampled without a condition, and true masks noised and restored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import check_range
from .diffusion import samplers
from .diffusion.kernels import Kernel
from .diffusion.schedules import network_steps, noise_index
from .errors import InputError
from .models.paper import FeaturesDenoiser
from .models.slot_unet import BLANK, Denoised, SlotUNet
from .refiner import DDPSRefiner
from .resize import nearest_index
from .slots import slot_kernel

MOST_SLOTS = 64
LONGEST = 8192
MARGIN = 64
"""Pixels around a sampled mask that are thrown away: without an image to hold on to, the class-agnostic network's zero
padding grows into a pattern along the border."""


@dataclass(frozen=True, eq=False)
class Restored:
    """A true mask, noised and restored without a condition.

    Args:
        noise: share of the pixels that were noised, 1 - ᾱ_n.
        noised: (h, w) int64 what the network was given, on its own grid; `states` is the absorbing kernel's mask.
        labels: (H, W) int64 what it made of it.
        accuracy: percent of the mask's pixels, void left out, that it restored; nan where all are void.
    """

    noise: float
    noised: Tensor
    labels: Tensor
    accuracy: float


@dataclass(frozen=True, eq=False)
class MaskPrior:
    """A refiner's network with its condition removed.

    The class-agnostic network sees a blank image and a segmentor that finds all classes equally likely; the paper's
    network sees features of zero.

    Args:
        refiner: universal, or of features.
        size: (H, W) of the masks, in pixels.
        states: number of classes of the chain; for the paper's network those that it has.

    Raises:
        InputError: a size or a number of classes out of range, or that the weights do not have.
    """

    refiner: DDPSRefiner
    size: tuple[int, int]
    states: int

    def __post_init__(self) -> None:
        for side in self.size:
            check_range("side of the masks", side, 16, LONGEST + 2 * MARGIN)
        check_range("number of classes", self.states, 2, 65536)
        network = self.refiner.network
        if isinstance(network, FeaturesDenoiser) and self.states != network.network.num_classes:
            raise InputError(f"{network.network.num_classes} classes, as these weights have", str(self.states), "those")
        if isinstance(network, SlotUNet) and self.states > MOST_SLOTS:
            raise InputError(f"at most {MOST_SLOTS} classes for class-agnostic weights", str(self.states), "fewer")

    @property
    def kernel(self) -> Kernel:
        return slot_kernel(self.refiner.config.schedule, self.states)

    @torch.no_grad()
    def sample(self, seed: int = 0, steps: int | None = None, sampler: str = "free") -> Tensor:
        """A mask from pure noise.

        Args:
            seed: of the noise.
            steps: passes of the network; None for all of the schedule.
            sampler: "free" or "posterior".

        Returns:
            (H, W) int64 states.
        """
        schedule = self.refiner.schedule
        times = network_steps(schedule.num_steps, schedule.num_steps if steps is None else steps)
        margin = MARGIN if isinstance(self.refiner.network, SlotUNet) else 0
        height, width = self.size
        wider = MaskPrior(self.refiner, (height + 2 * margin, width + 2 * margin), self.states)
        labels, _ = wider._run(None, times, seed, sampler)
        return labels[margin : margin + height, margin : margin + width]

    @torch.no_grad()
    def restore(
        self,
        mask: Tensor,
        noise: float,
        seed: int = 0,
        steps: int = 1,
        sampler: str = "free",
        unknown: int | None = None,
    ) -> Restored:
        """Noises a mask and asks for what was there.

        Args:
            mask: (H, W) int64 states, or negative where nothing is known: those pixels get nothing but noise.
            noise: share of the pixels to noise, in (0, 1); the nearest level of the schedule is taken.
            seed: of the noise.
            steps: passes of the network from that level on.
            sampler: "free" or "posterior".
            unknown: a state that does not count as restored, such as the void class of the paper's models.

        Raises:
            InputError: a mask of another size, or a share or number of steps out of range.
        """
        if tuple(mask.shape) != self.size:
            raise InputError(f"a mask of {self.size}", str(tuple(mask.shape)), "the size that the prior was made for")
        check_range("noise", noise, 0, 1)
        schedule = self.refiner.schedule
        n = int((1 - schedule.alpha_bar[: schedule.num_steps] - noise).abs().argmin())
        first = noise_index(schedule.num_steps, n)  # its own inverse
        left = schedule.num_steps - first
        check_range("steps from this level on", steps, 1, left)
        times = [first + round(k * (left - 1) / max(1, steps - 1)) for k in range(steps)]
        height, width = self._grid
        rows = nearest_index(0, height, self._padded[0], height).clamp(max=self.size[0] - 1)
        columns = nearest_index(0, width, self._padded[1], width).clamp(max=self.size[1] - 1)
        labels, noised = self._run(mask[rows][:, columns], times, seed, sampler)
        counted = mask >= 0 if unknown is None else (mask >= 0) & (mask != unknown)
        right = float((labels == mask)[counted].float().mean()) if bool(counted.any()) else float("nan")
        rows_shown, columns_shown = self._shown(noised)
        return Restored(1 - float(schedule.alpha_bar[n]), noised[:rows_shown, :columns_shown], labels, 100 * right)

    @property
    def _multiple(self) -> int:
        network = self.refiner.network
        return network.config.stride if isinstance(network, SlotUNet) else 4

    @property
    def _padded(self) -> tuple[int, int]:
        return self.size[0] + -self.size[0] % self._multiple, self.size[1] + -self.size[1] % self._multiple

    @property
    def _grid(self) -> tuple[int, int]:
        """(h, w) of the masks that the network sees."""
        stride = 2 if isinstance(self.refiner.network, SlotUNet) else 4
        return self._padded[0] // stride, self._padded[1] // stride

    def _shown(self, grid: Tensor) -> tuple[int, int]:
        """How much of the grid lies within the mask."""
        stride = self._padded[0] // grid.shape[0]
        return -(-self.size[0] // stride), -(-self.size[1] // stride)

    def _run(self, clean: Tensor | None, times: Sequence[int], seed: int, sampler: str) -> tuple[Tensor, Tensor]:
        """(H, W) int64 answer, and (h, w) int64 the mask that the first pass saw."""
        if sampler not in ("free", "posterior"):
            raise InputError("sampler 'free' or 'posterior'", repr(sampler)[:40], "free")
        generators = [torch.Generator().manual_seed(seed)]
        device, (height, width) = self.refiner.device, self._grid
        start = None
        if clean is not None:
            nothing = self.kernel.prior((1, height, width), generators)
            start = torch.where(clean[None] < 0, nothing, clean[None]).to(device)
        denoiser, finish = self._without_condition()
        seen: list[Tensor] = []
        run = samplers.posterior if sampler == "posterior" else samplers.free
        logits = run(
            denoiser,
            start,
            self.kernel,
            self.refiner.schedule,
            times,
            generators,
            lambda step: seen.append(step.mask),
            shape=(1, height, width),
            device=device,
        )
        answer = finish(logits)[0, :, : self.size[0], : self.size[1]].argmax(0)
        return answer.cpu(), seen[0][0].cpu()

    def _without_condition(self) -> tuple[samplers.Denoiser, Callable[[Tensor], Tensor]]:
        """The denoiser, and what brings its last logits to (1, states, H, W) of the padded size."""
        network, device = self.refiner.network, self.refiner.device
        height, width = self._padded
        if isinstance(network, SlotUNet):
            condition = network.condition(
                torch.full((1, 3, height, width), BLANK, device=device),
                torch.full((1, self.states, height, width), 1 / self.states, device=device),
            )
            last: list[Denoised] = []

            def of_slots(mask: Tensor, i: int) -> Tensor:
                last[:] = [network.denoise(mask, i, condition)]
                return last[0].logits

            return of_slots, lambda _: network.finish(last[0], condition)
        assert isinstance(network, FeaturesDenoiser)
        nothing = torch.zeros((1, network.network.channels, *self._grid), device=device)

        def of_features(mask: Tensor, i: int) -> Tensor:
            logits: Tensor = network(mask, i, nothing)
            return logits

        return of_features, lambda x: F.interpolate(x.float(), (height, width), mode="bilinear", align_corners=False)
