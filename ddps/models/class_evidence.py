"""What an image says about classes that are known by name: a small class-aware network beside the slots.

The slots of the universal refiner have no names, so it cannot learn that a grey strip beside a road is a pavement. A
refiner of one label space can: this network sees the image's features and the segmentor's probabilities of all K
classes at stride 4, and predicts a change of their logarithms. Untrained, it returns them as they are.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .units import ConvUnit, ResidualBlock

FLOOR = 1e-4


class ClassEvidence(nn.Module):
    """A U-Net over K classes at strides 4, 8, ... and one level deeper than the image's features.

    Args:
        classes: K.
        image_widths: channels of the image's features, at strides 2, 4, 8, ...
    """

    def __init__(self, classes: int, image_widths: tuple[int, ...]):
        super().__init__()
        self.classes = classes
        seen = image_widths[1:]
        # half as wide again as the image's features, in multiples of 8
        widths = [-(-(3 * width // 2) // 8) * 8 for width in (*seen, seen[-1])]
        self.stem = ConvUnit(classes + seen[0], widths[0])
        self.first = ResidualBlock(widths[0])
        self.down = nn.ModuleList(ConvUnit(a, b, 2) for a, b in pairwise(widths))
        self.join = nn.ModuleList(nn.Conv2d(i + w, w, 1) for i, w in zip(seen[1:], widths[1:-1], strict=True))
        self.encode = nn.ModuleList(ResidualBlock(w) for w in widths[1:])
        self.lift = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.decode = nn.ModuleList(ResidualBlock(w) for w in widths[:-1])
        self.change = nn.Conv2d(widths[0], classes, 3, padding=1)
        nn.init.zeros_(self.change.weight)
        self.change.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, features: list[Tensor], probs: Tensor, classes: Tensor) -> Tensor:
        """Logits of the K classes.

        Args:
            features: of the image per level, (B, C_l, H / 2^(l+1), W / 2^(l+1)).
            probs: (B, S, H, W) the segmentor's probabilities of the slots.
            classes: (B, S) int64, the class in every slot; K for "other" and padding.

        Returns:
            (B, K, H/4, W/4) float32.
        """
        coarse = F.avg_pool2d(probs, 4).float()
        known = coarse.new_zeros(coarse.shape[0], self.classes + 1, *coarse.shape[-2:])
        known.scatter_add_(1, classes[:, :, None, None].expand_as(coarse), coarse)
        own = known[:, : self.classes].clamp(min=FLOOR).log()
        maps = [self.first(self.stem(torch.cat([own / 4 + 1, features[1]], 1)))]
        for level, (down, encode) in enumerate(zip(self.down, self.encode, strict=True)):
            below = down(maps[-1])
            if level < len(self.join):
                below = F.relu(self.join[level](torch.cat([below, features[level + 2]], 1)))
            maps.append(encode(below))
        above = maps.pop()
        for level in range(len(maps) - 1, -1, -1):
            lifted = F.interpolate(self.lift[level](above), maps[level].shape[-2:], mode="nearest")
            above = self.decode[level](lifted + maps[level])
        answer: Tensor = own + self.change(above).float()
        return answer


def evidence_of_slots(logits: Tensor, classes: Tensor) -> Tensor:
    """(B, K, h, w) logits of classes to (B, S, 2h, 2w) log-probabilities of slots; "other" holds what no slot names.

    Args:
        logits: from `ClassEvidence`.
        classes: (B, S) int64, the class in every slot; K for "other" and padding.
    """
    count, size = logits.shape[1], logits.shape[-2:]
    probs = logits.softmax(1)
    named = torch.zeros(logits.shape[0], count + 1, device=logits.device).scatter_(1, classes, 1.0)[:, :count]
    rest = (probs * (1 - named)[:, :, None, None]).sum(1, keepdim=True)
    every = torch.cat([probs, rest], 1)
    slots = every.gather(1, classes[:, :, None, None].expand(-1, -1, *size)).clamp(min=FLOOR).log()
    return F.interpolate(slots, scale_factor=2.0, mode="bilinear", align_corners=False)
