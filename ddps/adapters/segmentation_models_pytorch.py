"""segmentation_models_pytorch (tested with 0.6): a plain (B, K, H, W) tensor, or with `aux_params` a pair with labels.

The plain tensor needs no adapter, but `kind="logits"` where all values may lie in [0, 1], which is how one channel of
logits and one of probabilities look alike.
"""

from torch import Tensor

Pair = tuple[Tensor, Tensor]


def recognises(outputs: object) -> bool:
    if not isinstance(outputs, list | tuple) or len(outputs) != 2:
        return False
    masks, labels = outputs
    both = isinstance(masks, Tensor) and isinstance(labels, Tensor)
    return both and masks.ndim == 4 and labels.ndim == 2 and len(masks) == len(labels)


def values(outputs: Pair) -> list[Tensor]:
    """(K, h, w) logits of every image; what the model says about the image as a whole is left out."""
    return list(outputs[0])
