"""Any number of classes to the few slots of the class-agnostic network, and back.

A tile rarely shows more than a handful of classes. The candidates (most probability mass) get a slot each; what is
left over shares one more slot, "other", and keeps the segmentor's own proportions inside it. A label map has no
proportions: there classes that are far apart share slots, and the nearest one gets what the slot wins.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .config import ScheduleConfig
from .diffusion.kernels import AbsorbingKernel, Kernel, UniformKernel
from .prediction_window import LabelWindow, PredictionWindow
from .slot_sharing import Sharing, rest_in_last, share_slots

# A class with less than this share of a tile's probability, and nowhere likely, is no candidate.
NEGLIGIBLE_MASS = 2e-4
NOWHERE_LIKELY = 0.15


@dataclass(frozen=True)
class SlotPlan:
    """Which classes sit in the slots: slot s shows class `classes[s]`; with `other`, one more slot holds the rest.

    With `sharing`, of a label map with more classes than slots, it says what every slot holds.
    """

    classes: Tensor  # (C,) int64, by falling mass
    num_classes: int
    other: bool
    sharing: Sharing | None = None

    @property
    def slots(self) -> int:
        return len(self.classes) + int(self.other)

    @property
    def leaders(self) -> Tensor:
        """(C,) or (S,) int64, the class that a slot shows first of all; with `sharing` that of "other" as well."""
        return self.classes if self.sharing is None else self.sharing.leaders

    @property
    def slot_of(self) -> Tensor:
        """(K,) int64, the slot of every class; -1 for none, and without `sharing` for those in "other"."""
        if self.sharing is not None:
            return self.sharing.slot_of
        answer = torch.full((self.num_classes,), -1)
        answer[self.classes] = torch.arange(len(self.classes))
        return answer

    @property
    def ids(self) -> Tensor:
        """(S,) int64, the class in every slot; `num_classes` for "other"."""
        return torch.cat([self.classes, self.classes.new_full((int(self.other),), self.num_classes)])


def plan_slots(mass: Tensor, peak: Tensor, max_slots: int) -> SlotPlan:
    """Chooses the candidate classes of a tile.

    Args:
        mass: (K,) mean probability of each class in the tile.
        peak: (K,) highest probability of each class in the tile.
        max_slots: the most slots, "other" included, at least 2.
    """
    count = len(mass)
    order = torch.argsort(mass, descending=True, stable=True)
    wanted = (mass[order] > NEGLIGIBLE_MASS) | (peak[order] > NOWHERE_LIKELY)
    kept = order[wanted][:max_slots]
    if len(kept) < 2:
        kept = order[: min(2, count)]
    rest = mass.clone()
    rest[kept] = 0
    if len(kept) == count or not rest.any():
        return SlotPlan(kept, count, other=False)
    return SlotPlan(kept[: max_slots - 1], count, other=True)


def slots_of(window: PredictionWindow, max_slots: int, named: bool = False) -> tuple[SlotPlan, Tensor] | None:
    """The candidate classes of a window, and the segmentor's probabilities in their slots.

    Args:
        window: of the prediction; of a label map only the classes that it shows are possible.
        max_slots: as for `plan_slots`.
        named: whether the network is told which class a slot shows, so that classes can only share "other".

    Returns:
        The plan, and (S, height, width) float32 that sum to 1; None where there is one class only.
    """
    if isinstance(window, LabelWindow):
        window = window.own_classes()
    shares = window.shares()
    if int((shares.peak > 0).sum()) < 2:
        return None
    plan = plan_slots(shares.mass, shares.peak, max_slots)
    if not (plan.other and isinstance(window, LabelWindow)):
        return plan, window.grouped(plan.classes, plan.other)
    shown = torch.argsort(shares.mass, descending=True, stable=True)[: int(shares.leads.sum())]
    if named:
        plan = replace(plan, sharing=rest_in_last(shown, plan.num_classes, max_slots))
    else:
        sharing = share_slots(window.labels, shown, plan.num_classes, max_slots)
        plan = SlotPlan(sharing.leaders, plan.num_classes, False, sharing)
    assert plan.sharing is not None
    return plan, window.in_slots(plan.sharing.slot_of, max_slots)


def to_slots(probs: Tensor, plan: SlotPlan) -> Tensor:
    """(K, h, w) probabilities to (S, h, w)."""
    slots = probs[plan.classes]
    if not plan.other:
        return slots
    return torch.cat([slots, (probs.sum(0, keepdim=True) - slots.sum(0, keepdim=True)).clamp(min=0)])


def labels_to_slots(labels: Tensor, plan: SlotPlan, ignore_index: int = 255) -> Tensor:
    """(h, w) int64 class ids to slot indices; void stays `ignore_index`, a class without a slot becomes "other"."""
    rest = len(plan.classes) if plan.other else ignore_index
    table = torch.where(plan.slot_of < 0, rest, plan.slot_of)
    known = (labels >= 0) & (labels < plan.num_classes)
    return torch.where(known, table[labels.clamp(0, plan.num_classes - 1)], ignore_index)


def from_slots(refined: Tensor, original: Tensor, plan: SlotPlan, counts: Tensor | None = None) -> Tensor:
    """(S, h, w) refined slot probabilities back to (K, h, w) classes.

    Args:
        refined: slot probabilities, summing to 1.
        original: (K, h, w) the segmentor's probabilities, which share out the "other" slot.
        plan: of the slots, its classes as places in `original`.
        counts: (K,) how many classes each plane of `original` stands for; None for one each.
    """
    answer = torch.zeros_like(original)
    answer[plan.classes] = refined[: len(plan.classes)].to(original.dtype)
    if not plan.other:
        return answer
    left = torch.ones(len(original), dtype=torch.bool, device=original.device)
    left[plan.classes] = False
    others = left.nonzero()[:, 0]
    if len(others) == 1:
        answer[others[0]] = refined[-1]
        return answer
    rest = original[others]
    total = rest.sum(0, keepdim=True)
    # where nothing is left over, the rest of the classes shares the slot evenly
    even = torch.ones(len(others), device=original.device) if counts is None else counts[others].to(original)
    even = (even / even.sum().clamp(min=1))[:, None, None]
    share = torch.where(total > 1e-6, rest / total.clamp(min=1e-6), even)
    answer[others] = share * refined[-1:].to(original.dtype)
    return answer


def slot_kernel(config: ScheduleConfig, slots: int, valid: Tensor | None = None) -> Kernel:
    """The noise over slots; uniform noise draws only from an image's own valid slots.

    Args:
        config: names the kernel.
        slots: S, padding included; with the absorbing kernel, index S is the masked state and shows in no plane.
        valid: (B, S) bool, or None when no slot is padding.
    """
    if config.kernel == "absorbing":
        return AbsorbingKernel(slots)
    return UniformKernel(slots if valid is None else valid.sum(1))
