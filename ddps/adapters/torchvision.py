"""torchvision (tested with 0.28): FCN, DeepLabV3 and LR-ASPP give a dict whose "out" is (B, K, H, W) logits."""

from collections.abc import Mapping

from torch import Tensor

from ..errors import InputError


def recognises(outputs: object) -> bool:
    return isinstance(outputs, Mapping) and isinstance(outputs.get("out"), Tensor)


def values(outputs: Mapping[str, Tensor]) -> list[Tensor]:
    """(K, h, w) logits of every image.

    Raises:
        InputError: another shape.
    """
    out = outputs["out"]
    if out.ndim != 4:
        raise InputError('"out" of shape (B, K, h, w)', f"shape {tuple(out.shape)}", "the model's output as it comes")
    return list(out)
