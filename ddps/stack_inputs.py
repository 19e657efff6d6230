"""Stacks of binary masks as users hold them (booleans, integers, probabilities, logits, files) → `Stack`.

Every error about a stack is raised here.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

import numpy as np
import torch
from torch import Tensor

from .array_files import read_array
from .errors import InputError
from .inputs import check_dense, check_file, describe_nonfinite
from .outputs import Array
from .resize import LinearAxis, nearest_index
from .tiling import Tile

MaskKind: TypeAlias = Literal["auto", "masks", "logits", "probs"]
Masks: TypeAlias = Array | Sequence[Array]

MARGIN, MARGIN_SHARE = 16, 0.25
"""What a window shows around its mask: so many pixels, or this share of the mask's longer side if that is more."""
BACKGROUND, MASK, OTHERS = range(3)
LARGE = 1e4
"""A logit of nothing."""


@dataclass(frozen=True, eq=False)
class Stack:
    """A stack before it is refined.

    Attributes:
        native: (N, h, w) bool masks, or float32 logits or probabilities.
        kind: which.
        size: (H, W) of the image.
        best, second: (h, w) highest and second highest value over the masks.
        owner: (h, w) whose the highest is.
    """

    native: Tensor
    kind: MaskKind
    size: tuple[int, int]
    best: Tensor
    second: Tensor
    owner: Tensor

    def window(self, plane: Tensor, tile: Tile) -> Tensor:
        """(height, width) bool, or float32 probability, of a native plane in a window of the image."""
        spans = zip((tile.top, tile.left), (tile.height, tile.width), plane.shape, self.size, strict=True)
        if self.kind == "masks":
            rows, columns = (nearest_index(*span) for span in spans)
            return plane[rows[:, None], columns]
        down, right = (LinearAxis(*span, plane.device) for span in spans)
        values = down.resize(right.resize(plane[down.span, right.span], 1), 0)
        return values.sigmoid() if self.kind == "logits" else values

    def others(self, index: int) -> Tensor:
        """(h, w): the highest value of all masks but one."""
        return torch.where(self.owner == index, self.second, self.best)

    def three_classes(self, index: int, tile: Tile) -> Tensor:
        """Background, mask and other masks in a window: (height, width) labels, or (3, height, width) probabilities."""
        mask, others = self.window(self.native[index], tile), self.window(self.others(index), tile)
        if self.kind == "masks":
            return torch.where(mask, MASK, torch.where(others, OTHERS, BACKGROUND))
        return torch.stack([(1 - mask) * (1 - others), mask, (1 - mask) * others])

    def before(self, index: int, tile: Tile) -> Tensor:
        """(height, width) bool of a mask as it came."""
        values = self.window(self.native[index], tile)
        return values if self.kind == "masks" else values > 0.5

    @property
    def disjoint(self) -> bool:
        """Whether no two masks overlap."""
        return not bool((self.second > _threshold(self.kind)).any())

    def box(self, index: int) -> Tile | None:
        """The window of a mask; None if it is empty, or full, so that it has no outline."""
        inside = self.native[index]
        if self.kind != "masks":
            inside = inside > _threshold(self.kind)
        if not bool(inside.any()) or bool(inside.all()):
            return None
        spans = []
        for axis, side in ((1, 0), (0, 1)):
            there = inside.any(axis).nonzero()
            scale = self.size[side] / inside.shape[side]
            spans.append((int(int(there[0]) * scale), int(-(-(int(there[-1]) + 1) * scale // 1))))
        margin = max(MARGIN, round(MARGIN_SHARE * max(high - low for low, high in spans)))
        (top, bottom), (left, right) = (
            (max(0, low - margin), min(side, high + margin)) for (low, high), side in zip(spans, self.size, strict=True)
        )
        return Tile(top, left, bottom - top, right - left)


def load_stack(masks: Masks, kind: MaskKind, size: tuple[int, int]) -> Stack:
    """Reads a stack into the canonical form.

    Args:
        masks, kind: as for `stacks.refine_masks`.
        size: (H, W) of the image, in pixels.

    Raises:
        InputError: of a wrong shape or type, not finite, or of a kind that does not fit or is open.
    """
    if kind not in get_args(MaskKind):
        raise InputError(f"kind one of {', '.join(get_args(MaskKind))}", repr(kind)[:60], "one of these")
    values = _to_tensor(masks, size)
    kind = _resolve_kind(values, kind)
    if kind == "masks":
        values = values != 0
    nothing = torch.zeros(values.shape[1:]) if kind != "logits" else torch.full(values.shape[1:], -LARGE)
    best, second, owner = nothing.to(values.dtype), nothing.to(values.dtype), torch.full(values.shape[1:], -1)
    for index, plane in enumerate(values):
        higher = plane > best
        second = torch.where(higher, best, torch.maximum(second, plane))
        best, owner = torch.maximum(best, plane), torch.where(higher, index, owner)
    return Stack(values, kind, size, best, second, owner)


def read_stack(path: str | os.PathLike[str]) -> tuple[np.ndarray, MaskKind]:
    """The array of a stack's file, and its kind where the file says it.

    Args:
        path: `.npy`, or `.npz` with the key `masks`, `logits` or `probs` (the first of them that is there).

    Raises:
        InputError: no such file, another type, damaged, without a known key, or too large.
    """
    check_file(path, "a stack's file")
    check_stack_file(Path(path))
    values, key = read_array(path, [kind for kind in get_args(MaskKind) if kind != "auto"])
    return values, cast(MaskKind, key or "auto")


def check_stack_file(path: Path) -> None:
    """Refuses a file name that `MaskStack.save` does not know.

    Raises:
        InputError: another suffix than .npy and .npz.
    """
    if path.suffix.lower() not in (".npy", ".npz"):
        raise InputError("a stack's file ending in .npy or .npz", repr(str(path)), "one of these two")


def _to_tensor(masks: Masks, size: tuple[int, int]) -> Tensor:
    """(N, h, w) bool, int64 or finite float32 in memory of its own."""
    if isinstance(masks, list | tuple):
        if not masks:
            return torch.zeros(0, *size, dtype=torch.bool)
        shapes = {tuple(getattr(mask, "shape", ())) for mask in masks}
        if len(shapes) > 1 or len(next(iter(shapes))) != 2:
            got = ", ".join(map(str, sorted(shapes)[:3]))
            raise InputError("a list of masks (h, w) of one size", f"shapes {got}", "one array (N, h, w)")
        masks = torch.stack([torch.as_tensor(mask) for mask in masks])
    if not isinstance(masks, np.ndarray | Tensor):
        raise InputError("masks as a numpy array or a torch tensor", type(masks).__name__, "one array (N, h, w)")
    if isinstance(masks, Tensor):
        check_dense(masks, "a stack of masks")
    shape = tuple(masks.shape)
    if len(shape) == 4 and shape[1] == 1:
        masks, shape = masks[:, 0], (shape[0], *shape[2:])
    if len(shape) != 3 or (shape[0] and 0 in shape):
        hint = "masks[None] for a single one" if len(shape) == 2 else "one plane per mask"
        raise InputError("masks of shape (N, h, w)", f"shape {tuple(masks.shape)}", hint)
    if isinstance(masks, np.ndarray):
        if masks.dtype.kind not in "biuf":
            raise InputError("masks of numbers", f"numpy dtype {masks.dtype}", "booleans, integers or floats")
        wanted = {"b": np.bool_, "f": np.float32}.get(masks.dtype.kind, np.int64)
        values = torch.from_numpy(np.array(masks, dtype=wanted, order="C"))
    else:
        plain = torch.float32 if masks.is_floating_point() else torch.int64
        values = masks.detach().to("cpu", torch.bool if masks.dtype == torch.bool else plain, copy=True)
    problem = describe_nonfinite(values, "mask, row, column") if values.is_floating_point() and len(values) else ""
    if problem:
        raise InputError("masks with finite values", problem, "large negative logits in place of -inf")
    return values


def _resolve_kind(values: Tensor, kind: MaskKind) -> MaskKind:
    if not values.numel() or values.dtype == torch.bool:
        return "masks"
    low, high = float(values.min()), float(values.max())
    hard = bool(((values == 0) | (values == high)).all()) and high in (0, 1, 255)
    if hard and kind in ("auto", "masks") and (high != 255 or not values.is_floating_point()):
        return "masks"
    got = f"{'floats' if values.is_floating_point() else 'integers'} from {low:.4g} to {high:.4g}"
    if kind == "masks" or not values.is_floating_point():
        hint = "masks > 0.5, or kind='logits' or 'probs' with floats; a label map: labels == ids[:, None, None]"
        raise InputError("masks of 0 and 1, or 0 and 255", got, hint)
    outside = low < 0 or high > 1
    if kind == "auto" and not outside:
        raise InputError("values that tell logits from probabilities", got, "kind='probs' or kind='logits'")
    if kind == "probs" and outside:
        raise InputError("probabilities in [0, 1]", got, "kind='logits', or a sigmoid first")
    return "logits" if kind == "auto" else kind


def _threshold(kind: MaskKind) -> float:
    return 0.5 if kind == "probs" else 0.0
