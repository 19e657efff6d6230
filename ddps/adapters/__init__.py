"""Other libraries' outputs → logits or label maps, one file per library.

An adapter looks at attributes and shapes only. No library is imported here: who holds its output has it already.
"""

from collections.abc import Sequence
from os import PathLike
from typing import cast

import numpy as np
from PIL import Image
from torch import Tensor

from ..batches import is_batch
from ..errors import InputError
from ..inputs import ImageLike
from ..outputs import Array
from ..predictions import AnyKind, PredictionLike
from . import mmseg, sam, segmentation_models_pytorch, torchvision, transformers
from .geometry import image_size

Adapted = PredictionLike | Sequence[PredictionLike]

UNDERSTOOD = (
    "a prediction as an array, PIL image or path, or the outputs of a segmentor of transformers, torchvision, "
    "segmentation_models_pytorch or mmseg"
)


def adapt(
    image: ImageLike | Sequence[ImageLike], prediction: object, kind: AnyKind = "auto"
) -> tuple[Adapted, AnyKind]:
    """Whatever a segmentor returned, as logits or label maps; what `refine` understands anyhow is not touched.

    Args:
        image: one image, or a batch.
        prediction: for one image or for the batch.
        kind: of the values, if the user says so.

    Returns:
        The prediction, one per image for a batch, and its kind.

    Raises:
        InputError: an object of an unknown kind, or one that does not fit the images.
    """
    if not is_batch(image):
        if _is_plain(prediction):
            return cast(PredictionLike, prediction), kind
        found = _values(prediction, [cast(ImageLike, image)])
        return found[0], _kind(found, kind)
    images = list(cast(Sequence[ImageLike], image))
    if _is_plain(prediction):
        return cast(Adapted, prediction), kind
    if isinstance(prediction, list | tuple) and not segmentation_models_pytorch.recognises(prediction):
        if len(prediction) != len(images) or all(_is_plain(one) for one in prediction):
            return cast(Adapted, prediction), kind
        found = [_values(its, [one])[0] for one, its in zip(images, prediction, strict=True) if not _is_plain(its)]
        if len(found) < len(images):
            raise InputError("predictions of one kind", "arrays and outputs mixed", "refining them one by one")
    else:
        found = _values(prediction, images)
    return found, _kind(found, kind)


def _is_plain(prediction: object) -> bool:
    return isinstance(prediction, str | PathLike | Image.Image | np.ndarray | Tensor)


def _values(outputs: object, images: Sequence[ImageLike]) -> Sequence[Array]:
    """One prediction for every image."""
    if transformers.recognises(outputs):
        return transformers.values(outputs, [image_size(image) for image in images])
    found: Sequence[Array]
    if mmseg.recognises(outputs):
        found = [mmseg.value(outputs)]
    elif torchvision.recognises(outputs):
        found = torchvision.values(outputs)  # type: ignore[arg-type]
    elif segmentation_models_pytorch.recognises(outputs):
        found = segmentation_models_pytorch.values(outputs)  # type: ignore[arg-type]
    elif mmseg.is_inference(outputs):
        found = mmseg.label_maps(outputs)  # type: ignore[arg-type]
    elif transformers.is_segments(outputs):
        found = [transformers.label_map(outputs)]  # type: ignore[arg-type]
    elif isinstance(outputs, list | tuple) and len(outputs) == 1 and mmseg.recognises(outputs[0]):
        found = [mmseg.value(outputs[0])]
    else:
        raise _unknown(outputs)
    if len(found) != len(images):
        raise InputError(f"outputs for {len(images)} images", f"outputs for {len(found)}", "the same images for both")
    return found


def _kind(found: Sequence[Array], kind: AnyKind) -> AnyKind:
    if kind != "auto":
        return kind
    kinds: set[AnyKind] = {"labels" if one.ndim == 2 else "logits" for one in found}
    if len(kinds) > 1:
        raise InputError("a batch of one kind", "logits and label maps", "refining them one by one")
    return kinds.pop()


def _unknown(outputs: object) -> InputError:
    if sam.is_outputs(outputs) or sam.is_records(outputs) or sam.is_generated(outputs):
        return InputError(
            "a prediction of classes", "a stack of masks", "ddps.stacks.refine_masks(refiner, image, masks)"
        )
    kind = type(outputs)
    got = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    if isinstance(outputs, dict):
        got += f" with {', '.join(map(str, outputs))[:60] or 'nothing in it'}"
    hint = "passing its logits (K, h, w)" if not isinstance(outputs, list | tuple) else "passing predictions one by one"
    return InputError(UNDERSTOOD, got, hint)
