"""Images as users hold them (paths, PIL, numpy, torch) → one canonical tensor.

Every error about an image is raised here.
"""

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import InputError

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor

MAX_IMAGE_PIXELS: int | None = 512 * 1024 * 1024
"""Images with more pixels than this are refused before they are decoded (decompression bombs); None lifts the limit."""

FORMATS = ("PNG", "JPEG", "MPO", "JPEG2000", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")
"""Pillow's names of the formats that files are read in. Among its others are some that start programs, as EPS does."""

_UNTRUSTED = "the image's origin; if it is trusted, raise ddps.inputs.MAX_IMAGE_PIXELS"
_pillow_limit = threading.Lock()
# Straight to RGB, Pillow warns about palettes with transparency, and cannot convert colours multiplied by alpha.
_BY_WAY_OF = {"P": "RGBA", "PA": "RGBA", "RGBa": "RGBA", "La": "LA"}


def load_image(image: ImageLike) -> Tensor:
    """Reads one image into the canonical form.

    Args:
        image: a path; a PIL image of any mode (EXIF rotation applied, alpha dropped, 16-bit grey scaled); a numpy array
            (H, W, 3), (H, W, 4) or (H, W); or a torch tensor (3, H, W), (4, H, W), (1, H, W) or (H, W). Arrays: uint8
            or float in [0, 1], in RGB order. The image is never changed and shares no memory with the result.

    Returns:
        (3, H, W) float32 RGB in [0, 1] on the CPU.

    Raises:
        InputError: not an image, unreadable, cut short, too large, or of a wrong shape, type or range.
    """
    if isinstance(image, str | os.PathLike):
        with open_image(image) as opened:
            return _from_pil(opened, f"image {str(image)!r}")
    if isinstance(image, Image.Image):
        return _from_pil(image, "image")
    if isinstance(image, np.ndarray):
        return _from_numpy(image)
    if isinstance(image, Tensor):
        return _from_torch(image)
    raise InputError(
        "image as a path, a PIL image, a numpy array or a torch tensor",
        type(image).__name__,
        "passing images one by one" if isinstance(image, list | tuple) else "converting it to one of these",
    )


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Opens an image file without decoding it, its size checked against `MAX_IMAGE_PIXELS`.

    Raises:
        InputError: no such file, empty, not an image in one of `FORMATS`, or too large.
    """
    name = repr(str(path))
    check_file(path, "an image file")
    # Pillow's own limit is one global for the whole process, and stricter than ours: lifted only while we open.
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            Image.init()
            # of an older Pillow some are missing
            opened = Image.open(path, formats=[known for known in FORMATS if known in Image.OPEN])
        except UnidentifiedImageError:
            hint = "a PNG, JPEG, TIFF, WebP or BMP file that a viewer can open"
            raise InputError("an image file", f"{name}, which is not an image in a format that is read", hint) from None
        except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
            raise _unreadable(f"image {name}", error) from None
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with opened:
        check_size(opened, f"image {name}")
        yield opened


def decode(image: Image.Image, name: str) -> Image.Image:
    """Decodes a PIL image and applies its EXIF rotation; mode and pixel values stay.

    Args:
        image: opened image, left as it is.
        name: what to call it in an error.

    Returns:
        The image itself, where nothing turns it.

    Raises:
        InputError: empty, too large, cut short or damaged.
    """
    check_size(image, name)
    try:
        image.load()
    except Exception as error:  # as in open_image
        raise _unreadable(name, error) from None
    try:
        # asked first: unturned, too, it would be a copy
        return ImageOps.exif_transpose(image) if image.getexif().get(ExifTags.Base.Orientation, 1) != 1 else image
    except Exception:  # damaged EXIF data hides no pixel, and viewers ignore it
        return image


def check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if min(width, height) < 1:
        raise InputError(f"{name} with at least one pixel", f"{width} x {height}", "an image that is not empty")
    if MAX_IMAGE_PIXELS is not None and width * height > MAX_IMAGE_PIXELS:
        raise InputError(f"{name} with at most {MAX_IMAGE_PIXELS:,} pixels", f"{width} x {height}", _UNTRUSTED)


def check_file(path: str | os.PathLike[str], what: str) -> None:
    """Refuses a path that leads to no file, or to an empty one.

    Args:
        path: of the file.
        what: it should be, in the error.

    Raises:
        InputError: as said.
    """
    name = repr(str(path)[:1000])
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a null character is a ValueError
        web = str(path).startswith(("http:", "https:"))
        hint = "downloading it first and passing the local path" if web else "checking the path"
        raise InputError(what, f"{name}, which does not exist", hint) from None
    except OSError as error:
        raise InputError(what, f"{name}: {error.strerror}", "checking the path and its permissions") from None
    if stat.S_ISDIR(found.st_mode):
        raise InputError(what, f"the folder {name}", "the path of one file in it")
    if found.st_size == 0:
        raise InputError(what, f"{name}, which is empty (0 bytes)", "writing or downloading it again")


def check_dense(tensor: Tensor, what: str) -> None:
    """Refuses tensors whose values cannot be read one by one: sparse, nested, quantized and meta ones.

    Args:
        tensor: any.
        what: it is, in the error.

    Raises:
        InputError: as said.
    """
    kinds = {
        "nested": tensor.is_nested,
        "quantized": tensor.is_quantized,
        "meta, which has no values": tensor.is_meta,
        str(tensor.layout).removeprefix("torch."): tensor.layout != torch.strided,
    }
    for kind, it_is in kinds.items():
        if it_is:
            raise InputError(f"{what} as a dense tensor", kind, "tensor.dequantize() or tensor.to_dense()")


def describe_nonfinite(values: Tensor, axes: str) -> str | None:
    """Says how many values are not finite and where the first one is, or None when all are finite.

    Args:
        values: any float tensor.
        axes: names of its axes, as in "class, row, column".
    """
    # NaN is the least and the largest of all; thirty times faster than to ask every value
    if values.numel() == 0 or bool(torch.isfinite(torch.stack(values.aminmax())).all()):
        return None
    finite = torch.isfinite(values)
    nan, total = int(torch.isnan(values).sum()), int((~finite).sum())
    first = torch.unravel_index((~finite).flatten().to(torch.uint8).argmax(), values.shape)
    where = ", ".join(str(int(i)) for i in first)
    return f"{nan} NaN and {total - nan} infinite values, the first at ({axes}) = ({where})"


def _from_pil(image: Image.Image, name: str) -> Tensor:
    decoded = decode(image, name)
    mode = decoded.mode
    if mode.startswith("I"):
        return _grey(_scale_16_bit(np.asarray(decoded, dtype=np.int64), name))
    if mode == "F":
        return _grey(_unit_range(torch.from_numpy(np.array(decoded, dtype=np.float32)), name))
    if mode in _BY_WAY_OF:
        decoded = decoded.convert(_BY_WAY_OF[mode])
    return _from_bytes(np.array(decoded if mode == "RGB" else decoded.convert("RGB"), dtype=np.uint8))


def _scale_16_bit(values: np.ndarray, name: str) -> Tensor:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise InputError(
            f"{name} in an integer mode with 16-bit values", f"values {low} to {high}", "scaling it to 0 .. 65535"
        )
    return torch.from_numpy((values / 65535.0).astype(np.float32))


def _from_numpy(array: np.ndarray) -> Tensor:
    shape = array.shape
    channels_last = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    if not channels_last or array.size == 0:
        raise InputError("a numpy image of shape (H, W, 3) or (H, W)", f"shape {shape}", _shape_hint(shape, "numpy"))
    # Grey as (H, W, 1), so that one path serves all; the copy takes care of strides and foreign byte orders.
    if array.dtype == np.uint8:
        return _from_bytes(np.array(array if array.ndim == 3 else array[:, :, None], order="C"))
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
        values = values if values.ndim == 3 else values[:, :, None]
        return _rgb(_unit_range(rearrange(values, "h w c -> c h w"), "a float image"))
    raise InputError("a numpy image of uint8, or of float in [0, 1]", str(array.dtype), _dtype_hint(str(array.dtype)))


def _from_torch(tensor: Tensor) -> Tensor:
    check_dense(tensor, "a torch image")
    shape = tuple(tensor.shape)
    channels_first = len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3, 4))
    if not channels_first or tensor.numel() == 0:
        raise InputError("a torch image of shape (3, H, W)", f"shape {shape}", _shape_hint(shape, "torch"))
    values = tensor.detach().cpu()
    values = values if values.ndim == 3 else values[None]
    if values.dtype == torch.uint8:
        return _rgb(values.float() / 255)
    if values.dtype.is_floating_point:
        return _rgb(_unit_range(values.float(), "a float image"))
    raise InputError("a torch image of uint8, or of float in [0, 1]", str(values.dtype), _dtype_hint(str(values.dtype)))


def _from_bytes(array: np.ndarray) -> Tensor:
    values = rearrange(torch.from_numpy(array), "h w c -> c h w")[:3]
    # one float image at a time: the largest ones take gigabytes
    return values.expand(3, -1, -1).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def _rgb(values: Tensor) -> Tensor:
    """(1 | 3 | 4, H, W) → (3, H, W) in memory of its own: grey repeated, alpha dropped."""
    if values.shape[0] == 1:
        return _grey(values[0])
    return values[:3].clone(memory_format=torch.contiguous_format)


def _grey(values: Tensor) -> Tensor:
    return repeat(values, "h w -> c h w", c=3).contiguous()


def _unit_range(values: Tensor, name: str) -> Tensor:
    problem = describe_nonfinite(values, "channel, row, column" if values.ndim == 3 else "row, column")
    if problem:
        raise InputError(f"{name} with finite values", problem, "replacing them")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        hint = "dividing by 255" if low >= 0 and high <= 255 else "undoing the mean and std normalisation"
        raise InputError(f"{name} with values in [0, 1]", f"values {low:.4g} to {high:.4g}", hint)
    return values


def _shape_hint(shape: tuple[int, ...], library: str) -> str:
    if 0 in shape:
        return "an image that is not empty"
    if len(shape) == 4:
        return "one image at a time, image[0], or a list of images to refine"
    if library == "numpy" and len(shape) == 3 and shape[0] in (1, 3, 4):
        return "channels last: image.transpose(1, 2, 0)"
    if library == "torch" and len(shape) == 3 and shape[2] in (1, 3, 4):
        return "channels first: image.permute(2, 0, 1)"
    return "an RGB image; of other bands, choose three"


def _dtype_hint(dtype: str) -> str:
    if "16" in dtype or "32" in dtype or "64" in dtype:
        return "scaling to 8 bit, for full-range 16-bit data (image // 257) as uint8"
    return "converting it to uint8"


def _unreadable(name: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return InputError(f"{name} as a whole, readable file", reason, "writing or downloading it again")
