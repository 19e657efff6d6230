"""One image or several: what `refine` was given."""

from collections.abc import Sequence

from torch import Tensor

from .errors import InputError
from .inputs import check_dense, describe_nonfinite
from .predictions import PredictionLike


def is_batch(image: object) -> bool:
    return isinstance(image, list | tuple) or (isinstance(image, Tensor) and image.ndim == 4)


def prediction_list(prediction: object) -> list[PredictionLike]:
    """A batch's predictions, one per image.

    Raises:
        InputError: neither a list nor one array over all images.
    """
    if isinstance(prediction, list | tuple):
        return list(prediction)
    if hasattr(prediction, "ndim") and prediction.ndim in (3, 4):
        return list(prediction)  # type: ignore[call-overload]
    raise InputError("predictions as a list or (B, K, h, w)", type(prediction).__name__, "one prediction per image")


def check_features(features: object) -> None:
    """Refuses feature maps that cannot be read; whether they fit the network it says itself.

    Args:
        features: of one image; maps (1, C, h, w) in any floating dtype, on any device.

    Raises:
        InputError: no list of dense floating tensors, or values that are not finite in float32.
    """
    maps = list(features) if isinstance(features, list | tuple) else []
    if not maps or not all(isinstance(one, Tensor) for one in maps):
        kinds = ", ".join(sorted({type(one).__name__ for one in maps}))
        got = f"a list of {kinds or 'nothing'}" if isinstance(features, list | tuple) else type(features).__name__
        raise InputError("features as a list of torch tensors (1, C, h, w)", got[:100], "torch.from_numpy(map)")
    for index, one in enumerate(maps):
        check_dense(one, f"feature map {index}")
        if not one.is_floating_point():
            raise InputError(f"feature map {index} of a floating dtype", str(one.dtype), "map.float()")
        axes = ", ".join(("image", "channel", "row", "column")[-one.ndim :])
        if problem := describe_nonfinite(one.detach().float(), axes):
            raise InputError(f"feature map {index} with finite values", problem, "the segmentor in a wider dtype")


def feature_lists(features: object, images: int) -> list[Sequence[Tensor]]:
    """A batch's feature maps, one list of (1, C, h, w) maps per image.

    Args:
        features: maps (B, C, h, w) over all images, or one list of (1, C, h, w) maps per image.
        images: B.

    Raises:
        InputError: neither.
    """
    parts = list(features) if isinstance(features, list | tuple) else []
    if parts and all(isinstance(part, Tensor) and part.ndim == 4 and len(part) == images for part in parts):
        return [[part[b : b + 1] for part in parts] for b in range(images)]
    if len(parts) == images and all(isinstance(part, list | tuple) for part in parts):
        return parts
    raise InputError(
        f"features of {images} images",
        f"{len(parts)} entries of {type(parts[0]).__name__ if parts else 'nothing'}",
        "maps (B, C, h, w), or one list of (1, C, h, w) maps per image",
    )
