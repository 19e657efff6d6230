"""Label maps as people keep them: any ids, and a file format that comes back as it was.

A map's ids become 0 .. n - 1 of the n classes that occur in it, and are put back afterwards. A refiner of any number of
classes answers the same, and neither 16-bit ids nor gaps between them cost anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError
from ..inputs import open_image
from ..outputs import Refinement
from ..predictions import AnyKind, load_prediction
from ..visualize import Palette, default_palette

VOID = -1
"""Void of `LabelMap.labels`."""
MOST_IDS = 65536
"""As many as a 16-bit picture can hold."""


@dataclass(frozen=True)
class PngForm:
    """How a label map's PNG holds its ids.

    Attributes:
        mode: Pillow's: 1, L, P, or one that begins with I for 16 bit.
        palette: (red, green, blue) bytes of mode P, as long as in the file.
        transparency: of mode P, if the file has any.
    """

    mode: str
    palette: bytes = b""
    transparency: bytes | int | None = None

    @property
    def colours(self) -> Palette:
        triples = zip(*(self.palette[channel::3] for channel in range(3)), strict=False)
        return tuple((red, green, blue) for red, green, blue in triples)


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A label map, ready to be refined.

    Attributes:
        labels: (h, w) int64, indices into `ids`, or VOID.
        ids: (n,) the file's own class ids, ascending; n is at least 1.
        ignore_index: the file's own void.
        resized: whether it has another size than its image.
        form: of its PNG; None for arrays.
    """

    labels: NDArray[np.int64]
    ids: NDArray[np.int64]
    ignore_index: int
    resized: bool
    form: PngForm | None

    def restore(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices → the file's own ids."""
        return np.where(labels == VOID, self.ignore_index, self.ids[np.maximum(labels, 0)])

    def restore_answer(self, refined: Refinement, palette: Palette = ()) -> Refinement:
        """The refinement of `labels` in the file's own ids, and colours.

        Args:
            refined: in numpy.
            palette: of the classes, for files without one of their own.
        """
        most = int(self.ids[-1]) + 1
        own = self.form.colours if self.form is not None else ()
        colours = own or palette or _default_palette(most)
        return replace(refined, labels=self.restore(np.asarray(refined.labels)), palette=colours)

    def write(self, refined: Refinement, file: BinaryIO) -> None:
        """A PNG in the form of the one that was read, with ids put back by `restore_answer`."""
        labels = np.asarray(refined.labels)
        if self.form is None:
            refined.to_pil().save(file, format="PNG")
        elif self.form.mode == "P":
            _write_palette_png(labels, self.form, file)
        else:
            kind = {"1": np.bool_, "L": np.uint8}.get(self.form.mode, np.uint16)
            Image.fromarray(labels.astype(kind)).save(file, format="PNG")


def read_label_map(
    values: NDArray[np.generic],
    path: Path,
    image_size: tuple[int, int],
    kind: AnyKind,
    ignore_index: int,
    num_classes: int | None,
    keep_ids: bool,
) -> LabelMap:
    """A label map from what its file holds.

    Args:
        values: of the file.
        path: of the file.
        image_size: (H, W) in pixels.
        kind: "labels", or "auto" to doubt a map of nothing but 0 and 255.
        ignore_index: its void.
        num_classes: K, if known.
        keep_ids: whether the network wants classes as they are; `ids` are then 0 .. K - 1.

    Raises:
        InputError: ids that are no classes, or another shape than the image's.
    """
    # Without a known K, ids may be as large as a 16-bit file holds, unless a network has to have a plane for each.
    limit = num_classes if keep_ids or num_classes is not None else MOST_IDS
    known = load_prediction(values, image_size, kind, ignore_index, limit)
    native = known.native.numpy()
    _check_shape(native.shape, image_size)
    void = native == ignore_index
    if keep_ids:
        ids = np.arange(known.num_classes)
        labels = np.where(void, VOID, native)
    else:
        ids = np.flatnonzero(np.bincount(native[~void], minlength=1))
        ids = ids if len(ids) else np.zeros(1, dtype=np.int64)
        index = np.zeros(int(ids[-1]) + 1, dtype=np.int64)
        index[ids] = np.arange(len(ids))
        labels = np.full(native.shape, VOID)
        labels[~void] = index[native[~void]]
    form = read_png_form(path) if path.suffix.lower() == ".png" else None
    return LabelMap(labels, ids, ignore_index, native.shape != image_size, form)


def read_png_form(path: Path) -> PngForm:
    """The form of a PNG that has been read before."""
    with open_image(path) as image:
        if image.mode != "P" or image.palette is None:
            return PngForm(image.mode)
        # Before the pixels are decoded: Pillow then makes the palette 256 entries long, or RGBA.
        return PngForm("P", bytes(image.palette.palette), image.info.get("transparency"))


def _write_palette_png(labels: NDArray[np.int64], form: PngForm, file: BinaryIO) -> None:
    palette = form.palette
    if int(labels.max()) >= len(palette) // 3:
        # Pillow cuts ids beyond the palette's end, and files do have such a void.
        palette = palette + bytes(768 - len(palette))
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(palette)
    options = {} if form.transparency is None else {"transparency": form.transparency}
    picture.save(file, format="PNG", **options)


def _check_shape(shape: Sequence[int], image_size: tuple[int, int]) -> None:
    """A coarse grid has the image's shape up to the rounding of its sides."""
    height, width = image_size
    if abs(shape[0] * width - shape[1] * height) > max(height, width):
        raise InputError(
            f"a label map of its image's size, {height} x {width} (H x W), or of that shape",
            f"{shape[0]} x {shape[1]}",
            "the label map of this very image; one that lies on its side needs the rotation of the image's EXIF data",
        )


@lru_cache(maxsize=8)
def _default_palette(count: int) -> Palette:
    return default_palette(count)
