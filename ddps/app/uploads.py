"""What visitors of the page upload → an image and a prediction that fit each other, or one sentence why not.

Strangers' files: their size is read from headers and bounded before anything is decoded or unpacked.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..array_files import check_values
from ..errors import InputError
from ..inputs import check_file, load_image, open_image
from ..predictions import AnyKind, Kind, Prediction, load_prediction, read_prediction_file

PREDICTION_SUFFIXES = (".png", ".npy", ".npz")
MOST_NAMES, LONGEST_NAME = 1024, 80
FOREGROUND = ("background", "foreground")
# Of what Pillow reads, some formats start other programs (EPS); MPO is what phones make of a JPEG.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM")


@dataclass(frozen=True)
class Limits:
    """The largest upload that the page takes.

    Attributes:
        pixels: of an image, and of a label map.
        values: numbers in a prediction, K · h · w.
        file_bytes: size of either file.
    """

    pixels: int = 3840 * 2160
    values: int = 1 << 26
    file_bytes: int = 256 << 20


@dataclass(frozen=True, eq=False)
class Upload:
    """An image and its prediction, checked against each other.

    Attributes:
        stem: of the image's file name.
        pixels: (3, H, W) float32 RGB in [0, 1].
        values: the prediction as its file holds it; a 0 / 255 mask has become 0 / 1.
        known: the same in the library's canonical form.
        names: of class 0, 1, 2, ..., or empty.
    """

    stem: str
    pixels: Tensor
    values: NDArray[np.generic]
    known: Prediction
    names: tuple[str, ...]

    @property
    def photo(self) -> Image.Image:
        pixels = rearrange(self.pixels, "c h w -> h w c").mul(255).round().to(torch.uint8)
        return Image.fromarray(pixels.numpy())


def read_upload(
    image: str | Path,
    prediction: str | Path,
    kind: AnyKind = "auto",
    ignore_index: int = 255,
    names: tuple[str, ...] = (),
    limits: Limits | None = None,
    num_classes: int | None = None,
) -> Upload:
    """Reads both files.

    Args:
        image: any file that Pillow reads.
        prediction: .png (class ids; or a mask of nothing but 0 and 255, which is taken for background and foreground,
            unless `kind` is "labels"), .npy or .npz.
        kind: what the prediction's values are, where its file does not say.
        ignore_index: void of label maps.
        names: of the classes.
        limits: None for the defaults.
        num_classes: K, where the weights are for certain classes.

    Raises:
        InputError: too large, damaged, or not fitting each other; messages name files without their folders.
    """
    limits = limits or Limits()
    paths = Path(image), Path(prediction)
    try:
        for path in paths:
            check_file(path, "a file")
            size = path.stat().st_size
            if size > limits.file_bytes:
                expected = f"a file of at most {limits.file_bytes >> 20} MiB"
                raise InputError(expected, f"{path.name!r} of {size >> 20} MiB", "a smaller copy, or ddps refine")
        _check_pixels(paths[0], "an image", limits)
        pixels = load_image(paths[0])
        return _fit(paths[0].stem, pixels, paths[1], kind, ignore_index, names, limits, num_classes)
    except InputError as error:
        raise _without_folders(error, paths) from None


def parse_names(text: str) -> tuple[str, ...]:
    """Class names from a line such as "sky, road, car"; commas and line ends separate them.

    Raises:
        InputError: more, or longer ones, than a legend can show.
    """
    names = tuple(" ".join(name.split()) for name in text.replace("\n", ",").split(","))
    while names and not names[-1]:
        names = names[:-1]
    if len(names) > MOST_NAMES:
        raise InputError(f"at most {MOST_NAMES} class names", str(len(names)), "leaving them out")
    longest = max(names, key=len, default="")
    if len(longest) > LONGEST_NAME:
        raise InputError(f"class names of at most {LONGEST_NAME} letters", repr(longest[:20] + "…"), "shorter ones")
    return names


def _fit(
    stem: str,
    pixels: Tensor,
    path: Path,
    kind: AnyKind,
    ignore_index: int,
    names: tuple[str, ...],
    limits: Limits,
    num_classes: int | None,
) -> Upload:
    _check_values(path, limits)
    values, found = read_prediction_file(path)
    if "auto" not in (kind, found) and kind != found:
        raise InputError(f"kind {kind!r}", f"{path.name!r}, which holds {found}", "kind 'auto'")
    if kind == "auto" and np.ndim(values) == 2 and _is_binary(values):
        # With 255 for void a single class would be left, and nothing to refine.
        values, found, names = (values == 255).astype(np.uint8), "labels", names or FOREGROUND
    kind = found if kind == "auto" else kind
    size = (pixels.shape[-2], pixels.shape[-1])
    known = load_prediction(values, size, kind, ignore_index, num_classes)
    if known.kind == "labels":
        _check_shape((values.shape[0], values.shape[1]), size)
    if known.native.ndim == 3 and values.shape[0] == 1:
        names = names or FOREGROUND
    return Upload(stem, pixels, values, known, names)


def _check_pixels(path: Path, what: str, limits: Limits) -> None:
    with open_image(path) as image:
        if image.format not in FORMATS:
            raise InputError(f"{what} as PNG, JPEG, WebP, TIFF, BMP or GIF", f"{path.name!r}", "saving it as a PNG")
        width, height = image.size
    if width * height > limits.pixels:
        expected = f"{what} of at most {limits.pixels / 1e6:.1f} megapixels"
        got = f"{path.name!r} of {width} x {height} ({width * height / 1e6:.1f})"
        raise InputError(expected, got, "a smaller copy, or ddps refine, which takes any size")


def _check_values(path: Path, limits: Limits) -> None:
    """Refuses a prediction whose file claims more values than fit, before they are unpacked."""
    suffix = path.suffix.lower()
    if suffix == ".png":
        _check_pixels(path, "a label map", limits)
        return
    if suffix not in PREDICTION_SUFFIXES:
        raise InputError("a prediction file .png, .npy or .npz", repr(path.name), "saving it as one of these")
    hint = "logits at the segmentor's own, lower resolution, or ddps refine"
    check_values(path, get_args(Kind), limits.values, hint)


def _is_binary(values: NDArray[np.generic]) -> bool:
    return values.dtype.kind in "iu" and set(np.unique(values).tolist()) == {0, 255}


def _check_shape(shape: tuple[int, int], size: tuple[int, int]) -> None:
    """A label map has the image's shape, up to the rounding of its sides on a coarser grid."""
    (h, w), (height, width) = shape, size
    if abs(h * width - w * height) > max(height, width):
        expected = f"a label map of the image's shape, {width} x {height} (width x height)"
        raise InputError(expected, f"{w} x {h}", "the label map of this very image")


def _without_folders(error: InputError, paths: tuple[Path, ...]) -> InputError:
    parts = [error.expected, error.got, error.hint]
    for path in paths:
        parts = [part.replace(str(path), path.name) for part in parts]
    return InputError(*parts)
