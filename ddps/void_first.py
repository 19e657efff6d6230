"""The label space of a network whose class 0 is void, and its users' space, in which void is a label of its own.

The paper's models count 151 classes on ADE20K and 20 on Cityscapes, void first; masks and metrics count 150 and 19,
with 255 for void. A network's class k + 1 is a user's class k, and a network's class 0 is void.
"""

import torch
from torch import Tensor

VOID = 0


def labels_to_users(labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Network's classes 0 .. K (0 is void) to users' 0 .. K - 1 and `ignore_index`, any shape, int64."""
    return torch.where(labels == VOID, ignore_index, labels - 1)


def labels_to_network(labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Users' classes 0 .. K - 1 and `ignore_index` to the network's 0 .. K (0 is void), any shape, int64."""
    return torch.where(labels == ignore_index, VOID, labels + 1)


def probs_to_users(probs: Tensor) -> Tensor:
    """(K + 1, ...) over the network's classes to (K, ...) over the users', given that the pixel is not void."""
    known = probs[1:]
    total = known.sum(0, keepdim=True)
    return torch.where(total > 0, known / total.clamp(min=torch.finfo(known.dtype).tiny), 1 / len(known))


def probs_to_network(probs: Tensor) -> Tensor:
    """(K, ...) over the users' classes to (K + 1, ...) over the network's: nobody holds a pixel for void."""
    return torch.cat([torch.zeros_like(probs[:1]), probs])
