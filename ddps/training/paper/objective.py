"""Diffusion on first prediction, and the two other objects that noise can be added to.

Source: DDPS, arXiv 2306.01721, section 3.3.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...config import LabelSpace, ScheduleConfig
from ...diffusion.kernels import Kernel
from ...diffusion.schedules import Schedule, make_schedule
from ...models.paper import FeaturesDenoiser
from ...slots import slot_kernel
from .config import ObjectiveConfig
from .data import VOID


@dataclass(frozen=True, eq=False)
class Objective:
    """How a mask is noised and what the answer is held against.

    Args:
        config: what is noised.
        labels: label space of the model; with `void_first` the network's class 0 is void.
        kernel, schedule: of the model.
    """

    config: ObjectiveConfig
    labels: LabelSpace
    kernel: Kernel
    schedule: Schedule

    @classmethod
    def of(cls, config: ObjectiveConfig, labels: LabelSpace, schedule: ScheduleConfig, classes: int) -> "Objective":
        """For a network of that many classes."""
        return cls(config, labels, slot_kernel(schedule, classes), make_schedule(schedule.kind, schedule.num_steps))

    def loss(
        self,
        network: FeaturesDenoiser,
        condition: Tensor,
        target: Tensor,
        predicted: Tensor | None,
        single_step: bool,
        generator: torch.Generator,
    ) -> Tensor:
        """Cross-entropy of one denoising pass at a random network time per image, logits resized to the target.

        Args:
            network: in training mode.
            condition: (B, channels, h, w) of the segmentor's features.
            target: (B, H, W) int64 classes of the users, or `VOID`, which counts for nothing.
            predicted: (B, H, W) int64 the segmentor's own prediction, where noise is added to that.
            single_step: only i = 0, the single-step stage.
            generator: on the CPU; source of times and noise.
        """
        batch = len(condition)
        # Per-image generators: the noise does not depend on how many images share the pass.
        seeds = torch.randint(2**62, (batch,), generator=generator).tolist()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        steps = self.schedule.num_steps
        times = torch.randint(steps, (batch,), generator=generator) * (not single_step)
        dropped = torch.rand(batch, generator=generator) < self.config.condition_dropout
        condition = condition * (~dropped).to(condition)[:, None, None, None]
        clean = self._noised_object(network, condition, target, predicted, times, generators)
        alpha_bar = self.schedule.alpha_bar[steps - 1 - times].float().to(clean.device)
        mask = self.kernel.sample(clean, alpha_bar, generators)
        logits = network(mask, times.to(clean.device), condition).float()
        logits = F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False)
        wanted = target if not self.labels.void_first else torch.where(target == VOID, VOID, target + 1)
        total = F.cross_entropy(logits, wanted, ignore_index=VOID, reduction="sum")
        return total / (wanted != VOID).sum().clamp(min=1)

    def _noised_object(
        self,
        network: FeaturesDenoiser,
        condition: Tensor,
        target: Tensor,
        predicted: Tensor | None,
        times: Tensor,
        generators: list[torch.Generator],
    ) -> Tensor:
        """(B, h, w) int64 what is noised, in the network's classes, on the condition's grid."""
        size = (condition.shape[-2], condition.shape[-1])
        if self.config.noised == "segmentor":
            assert predicted is not None  # train_recipe has seen to it
            return shrink(predicted, size) + int(self.labels.void_first)
        truth = self._truth(shrink(target, size), generators)
        later = times > 0
        if self.config.noised == "ground_truth" or not later.any():
            return truth
        shape = (len(truth), *size)
        noise = self.kernel.prior(shape, generators, condition.device)
        chosen = later.nonzero()[:, 0].to(condition.device)
        truth[chosen] = first_prediction(network, noise[chosen], condition[chosen].detach())
        return truth

    def _truth(self, target: Tensor, generators: list[torch.Generator]) -> Tensor:
        """The truth in the network's classes; void is its class 0, or, where it has none, noise."""
        void = target == VOID
        if self.labels.void_first:
            return torch.where(void, 0, target + 1)
        noise = self.kernel.prior((target.shape[0], target.shape[1], target.shape[2]), generators, target.device)
        return torch.where(void, noise, target)


@torch.no_grad()
def first_prediction(network: FeaturesDenoiser, noise: Tensor, condition: Tensor) -> Tensor:
    """(B, h, w) int64: what the network answers, without dropout, to pure noise at i = 0."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    answer: Tensor = network(noise, 0, condition).argmax(1)
    for module, training in modes:
        module.training = training
    return answer


def shrink(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W) int64 labels to (B, h, w), nearest, pixel centre to pixel centre."""
    height, width = labels.shape[-2:]
    rows = (torch.arange(size[0], device=labels.device) * 2 + 1) * height // (2 * size[0])
    columns = (torch.arange(size[1], device=labels.device) * 2 + 1) * width // (2 * size[1])
    return labels[:, rows][:, :, columns]
