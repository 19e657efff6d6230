"""More classes than slots in a label map: classes that are far apart share a slot.

Which of them a pixel of the slot is, the label map tells: the nearest. So every outline between two classes lies
between two slots, where they would vanish inside a slot that holds all the rest.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK, NEAR = 8, 2
"""Classes of which blocks of so many pixels are so many blocks apart, or fewer, are near each other."""
MOST_COMPARED = 128
"""Classes that are held apart; of more, those with the fewest pixels take the slots in turn."""


@dataclass(frozen=True)
class Sharing:
    """Which slot the classes of a label map share.

    Attributes:
        num_classes: K.
        classes: (C,) int64, those that occur, by falling number of pixels.
        slots: (C,) int64, the slot of each; of the first S, one each.
    """

    num_classes: int
    classes: Tensor
    slots: Tensor

    @property
    def slot_of(self) -> Tensor:
        """(K,) int64, the slot of every class; -1 for classes that do not occur."""
        answer = torch.full((self.num_classes,), -1)
        answer[self.classes] = self.slots
        return answer

    @property
    def leaders(self) -> Tensor:
        """(S,) int64, of every slot the class with the most pixels."""
        return self.classes[: int(self.slots.max()) + 1]

    @property
    def shared(self) -> list[bool]:
        """Of every slot, whether several classes share it."""
        return (self.slots.bincount() > 1).tolist()


def share_slots(labels: Tensor, classes: Tensor, num_classes: int, slots: int) -> Sharing:
    """Gives every class the slot where it has the least company near it, of several such the one with fewest classes.

    Args:
        labels: (h, w) int64 class ids; others than `classes` do not count.
        classes: (C,) int64, those that occur, by falling number of pixels, more than S.
        num_classes: K.
        slots: S; the first S classes get one each, since nobody is in it yet.
    """
    chosen = torch.arange(len(classes)) % slots
    near = _nearness(labels, classes[:MOST_COMPARED], num_classes)
    company, held = torch.zeros(len(near), slots), torch.zeros(slots)
    for index in range(len(near)):
        least = company[index] == company[index].min()
        chosen[index] = torch.where(least, held, torch.inf).argmin()
        company[:, chosen[index]] += near[:, index]
        held[chosen[index]] += 1
    return Sharing(num_classes, classes, chosen)


def rest_in_last(classes: Tensor, num_classes: int, slots: int) -> Sharing:
    """One slot each for the first S - 1 classes, and the last slot for all others; arguments as for `share_slots`."""
    return Sharing(num_classes, classes, torch.arange(len(classes)).clamp(max=slots - 1))


def _nearness(labels: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """(C, C) how many pixels of two classes lie near the other one."""
    count = len(classes)
    index = torch.full((num_classes + 1,), count)
    index[classes] = torch.arange(count)
    known = (labels >= 0) & (labels < num_classes)
    height, width = -(-labels.shape[0] // BLOCK), -(-labels.shape[1] // BLOCK)
    row = torch.arange(labels.shape[0])[:, None] // BLOCK
    column = torch.arange(labels.shape[1]) // BLOCK
    place = (index[torch.where(known, labels, num_classes)] * height + row) * width + column
    pixels = place.flatten().bincount(minlength=(count + 1) * height * width)
    pixels = pixels[: count * height * width].view(count, height, width).float()
    around = F.max_pool2d((pixels > 0).float()[None], 2 * NEAR + 1, 1, NEAR)[0]
    one_way = pixels.flatten(1) @ around.flatten(1).T
    return one_way + one_way.T
