"""How much every class of a data set counts: rare ones more."""

import numpy as np
import torch
from torch import Tensor

from ..predictions import read_prediction_file
from .sets import IGNORE, DataSet

MOST_MASKS = 500
HEAVIEST = 10.0


def class_shares(data: DataSet) -> Tensor:
    """(K,) share of the labelled pixels that every class covers, over at most 500 masks at even distances."""
    counts = np.zeros(256, dtype=np.int64)
    for _, path in data.pairs[:: max(1, len(data.pairs) // MOST_MASKS)]:
        labels, _ = read_prediction_file(path)
        counts += np.bincount(labels[(labels != data.ignore_index) & (labels < 256)], minlength=256)
    own = torch.from_numpy(counts[: data.num_classes]).double()
    return own / own.sum().clamp(min=1)


def class_weights(shares: Tensor, power: float) -> Tensor:
    """(256,) float32: share^-power, 1 for the average pixel, at most 10 times that; 1 for ids that are no class.

    Args:
        shares: (K,) from `class_shares`; a class without pixels weighs as much as the rarest that has some.
        power: 0 for equal weights, 1 for equal classes.
    """
    weights = torch.ones(256)
    seen = shares > 0
    if seen.any():
        raw = shares.clamp(min=float(shares[seen].min())) ** -power
        own = raw / (raw * shares).sum()
        weights[: len(shares)] = own.clamp(max=HEAVIEST).float()
    weights[IGNORE] = 1.0
    return weights
