"""mmsegmentation 1.x (tested with 1.2.2): data samples, and what MMSegInferencer returns.

A data sample is at the image's own size already, without padding. Its `seg_logits` are logits for two classes and more,
but for one class the model has put a sigmoid on them.
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from ..errors import InputError

NEARLY = 1e-6
"""How near 0 and 1 a probability may be before its logit."""


def recognises(outputs: object) -> bool:
    return _data(outputs, "seg_logits") is not None or _data(outputs, "pred_sem_seg") is not None


def value(sample: object) -> Tensor:
    """(K, h, w) logits of a data sample, or its (h, w) label map if it has no logits.

    Raises:
        InputError: another shape.
    """
    logits, labels = _data(sample, "seg_logits"), _data(sample, "pred_sem_seg")
    if logits is not None and logits.ndim == 3:
        return logits if len(logits) > 1 else logits.detach().float().clamp(NEARLY, 1 - NEARLY).logit()
    if logits is None and labels is not None and labels.ndim == 3 and len(labels) == 1:
        return labels[0].long()
    found = logits if logits is not None else labels
    got = f"shape {tuple(found.shape)}" if found is not None else "neither"
    raise InputError("seg_logits (K, H, W) or pred_sem_seg (1, H, W)", got, "the data sample as mmseg made it")


def is_inference(outputs: object) -> bool:
    """Whether it is what MMSegInferencer returns."""
    return isinstance(outputs, Mapping) and "predictions" in outputs


def label_maps(outputs: Mapping[str, object]) -> list[np.ndarray]:
    """The (H, W) label maps that MMSegInferencer predicted; they carry no probabilities.

    Raises:
        InputError: anything else.
    """
    found = outputs["predictions"]
    maps = list(found) if isinstance(found, list | tuple) else [found]
    arrays = [one for one in maps if isinstance(one, np.ndarray) and one.ndim == 2]
    if len(arrays) < len(maps):
        hint = "inferencer(images, return_datasamples=True)"
        raise InputError("predictions as label maps (H, W)", ", ".join(type(one).__name__ for one in maps)[:60], hint)
    return arrays


def _data(sample: object, name: str) -> Tensor | None:
    data = getattr(getattr(sample, name, None), "data", None)
    return data if isinstance(data, Tensor) else None
