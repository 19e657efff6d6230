"""A stack of binary masks, such as instances or what SAM finds, overlapping or not, refined in one call.

Masks that overlap are no label map. So every mask is refined by itself, in its own window: the box around it and a
margin. It competes there with the background and with what the other masks claim: things of one kind often touch, and
by the image alone a neighbour's pixels look like more of the same.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .adapters.sam import adapt_stack
from .atomic import atomic_write
from .config import FeaturesNetwork
from .defaults import plain_defaults
from .errors import InputError
from .inputs import ImageLike, load_image
from .out_of_memory import memory_for
from .outputs import Array, Refinement
from .progress import Progress
from .refiner import DDPSRefiner
from .settings import Preset
from .stack_inputs import MASK, MaskKind, Masks, Stack, check_stack_file, load_stack
from .tiling import Tile

TIE = 1e-3
"""A step of half precision below 1."""
EXACT_BELOW, ROUGH_FROM, FEWEST = 0.15, 1.25, 4
"""The outlines of a stack of at least four masks are exact if three quarters of them would move by less than this, in
pixels; then only masks whose outlines would move by so much more are changed."""


@dataclass(frozen=True, eq=False)
class MaskStack:
    """Refined masks, in the order in which they came. Arrays are numpy or torch, as the masks were.

    Attributes:
        masks: (N, H, W) bool at image size.
        change: (N,) float32 in [0, 1]: 1 minus the IoU of a mask before and after; 0 for an empty one.
        uncertainty: (N,) float32 in [0, 1]: mean over a mask's pixels before and after of 1 minus the margin between
            the likeliest two of the mask, the other masks and the background.
        probs_source: what computes `probs` when it is first asked for.
        seconds: time that refinement took.
    """

    masks: Array
    change: Array
    uncertainty: Array
    probs_source: Callable[[], Array]
    seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.masks)

    @cached_property
    def probs(self) -> Array:
        """(N, H, W) float32 probability of every mask at every pixel; outside its window a mask's own before.

        Put together on first use: 100 masks of 1024 x 1024 take 0.4 GB.
        """
        return self.probs_source()

    def labels(self) -> Array:
        """(H, W) int64: 0 for the background, i + 1 for mask i; where masks overlap, the smaller one shows."""
        masks = torch.as_tensor(self.masks)
        labels = torch.zeros(masks.shape[1:], dtype=torch.int64, device=masks.device)
        for index in torch.argsort(masks.flatten(1).sum(1), descending=True, stable=True).tolist():
            labels[masks[index]] = index + 1
        return labels if isinstance(self.masks, Tensor) else labels.numpy()

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Writes the stack, whole or not at all.

        Args:
            path: `.npy` for the masks, `.npz` for masks, change and uncertainty.
            overwrite: whether an existing file may be replaced.

        Raises:
            InputError: another suffix, a file that exists, or a folder that does not.
        """
        target = Path(path)
        check_stack_file(target)
        arrays = {key: torch.as_tensor(getattr(self, key)).cpu().numpy() for key in ("masks", "change", "uncertainty")}
        with atomic_write(target, overwrite) as file:
            if target.suffix.lower() == ".npy":
                np.save(file, arrays["masks"], allow_pickle=False)
            else:
                np.savez_compressed(file, allow_pickle=False, **arrays)
        return target


@plain_defaults()
@memory_for("memory for the masks at image size", "fewer masks at a time")
@torch.no_grad()
def refine_masks(
    refiner: DDPSRefiner,
    image: ImageLike,
    masks: object,
    *,
    kind: MaskKind = "auto",
    preset: Preset = "default",
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
    num_samples: int = 1,
    guidance_scale: float = 0.0,
    tile: int | None = None,
    progress: bool = False,
) -> MaskStack:
    """Refines a stack of binary masks of one image.

    Every mask is refined in its own window, so that the cost grows with the masks' boxes and not with their number
    times the image. An empty mask stays empty, and one that covers the whole image stays as it is. Masks that do not
    overlap do not overlap afterwards: what two of them claim goes to the likelier one. No mask becomes empty. Where the
    network finds most outlines of a stack of 0 and 1 to be exact, only masks that are far off are changed.

    Args:
        refiner: with weights for any number of classes.
        image: one image, as `DDPSRefiner.refine` takes it.
        masks: (N, h, w) or (N, 1, h, w), N from 0 on, or a list of (h, w), at any resolution, covering the whole image.
            Booleans, integers that are 0 and 1, or 0 and 255; or float probabilities or logits of every mask. Numpy or
            torch; they are never changed. Or what a SAM of transformers, an automatic mask generator or a pipeline
            of transformers returns (`ddps.adapters.sam`).
        kind: what the values are; "auto" raises where they leave it open.
        preset, steps, sampler, seed, num_samples, guidance_scale, tile: as for `DDPSRefiner.refine`.
        progress: a bar on stderr over the masks, on a terminal.

    Raises:
        InputError: any input that does not fit, in one line.
    """
    started = time.perf_counter()
    if isinstance(refiner.config.network, FeaturesNetwork) or refiner.config.labels.num_classes is not None:
        raise InputError("weights for any number of classes", f"those of {refiner.source!r}", "the universal weights")
    pixels = load_image(image)
    known, kind = adapt_stack(masks, kind, (pixels.shape[-2], pixels.shape[-1]))
    stack = load_stack(known, kind, (pixels.shape[-2], pixels.shape[-1]))
    whole = Tile(0, 0, *stack.size)
    pieces: list[_Piece | None] = []
    bar = Progress(len(stack.native), "masks", progress)
    for index in range(len(stack.native)):
        box, piece = stack.box(index), None
        if box is not None:
            rows, columns = box.slices_in(whole)
            refined = refiner.refine(
                pixels[:, rows, columns],
                stack.three_classes(index, box),
                kind="labels" if stack.kind == "masks" else "probs",
                preset=preset,
                steps=steps,
                sampler=sampler,
                seed=seed,
                num_samples=num_samples,
                guidance_scale=guidance_scale,
                tile=tile,
                num_classes=3,
            )
            assert isinstance(refined, Refinement)  # one image, one answer
            piece = _Piece.of(box, refined)
        pieces.append(piece if piece is not None and bool(piece.mask.any()) else None)
        bar.advance()
    return _answer(stack, _trust_exact(stack, pieces), known, started)


@dataclass(eq=False)
class _Piece:
    """One refined mask in its window."""

    tile: Tile
    mask: Tensor  # (height, width) bool
    probs: Tensor  # (height, width) float16
    uncertainty: Tensor  # (height, width) float32

    @classmethod
    def of(cls, tile: Tile, refined: Refinement) -> "_Piece":
        labels, probs, uncertainty = (
            torch.as_tensor(array) for array in (refined.labels, refined.probs, refined.uncertainty)
        )
        return cls(tile, labels == MASK, probs[MASK].half(), uncertainty)


def _trust_exact(stack: Stack, pieces: list[_Piece | None]) -> list[_Piece | None]:
    """Leaves out pieces whose masks are better taken as they came.

    A mask alone is too little to tell an exact outline from one that happens to please the network; a stack is not.
    """
    moved = torch.zeros(len(pieces))
    for index, piece in enumerate(pieces):
        if piece is not None:
            before = stack.before(index, piece.tile)
            outline = torch.zeros_like(before)
            outline[:-1] |= before[1:] != before[:-1]
            outline[:, :-1] |= before[:, 1:] != before[:, :-1]
            moved[index] = float((piece.mask != before).sum()) / max(1, int(outline.sum()))
    refined = torch.tensor([piece is not None for piece in pieces], dtype=torch.bool)
    if stack.kind != "masks" or int(refined.sum()) < FEWEST or float(moved[refined].quantile(0.75)) >= EXACT_BELOW:
        return pieces
    return [piece if far else None for piece, far in zip(pieces, (moved >= ROUGH_FROM).tolist(), strict=True)]


def _answer(stack: Stack, pieces: Sequence[_Piece | None], like: Masks, started: float) -> MaskStack:
    whole, count = Tile(0, 0, *stack.size), len(pieces)
    masks = torch.zeros(count, *stack.size, dtype=torch.bool)
    for index, piece in enumerate(pieces):
        if piece is None:
            masks[index] = stack.before(index, whole)
        else:
            rows, columns = piece.tile.slices_in(whole)
            masks[index, rows, columns] = piece.mask
    if stack.disjoint:
        _part(masks, pieces, stack)
    change, uncertainty = torch.zeros(count), torch.zeros(count)
    for index, piece in enumerate(pieces):
        if piece is not None:
            rows, columns = piece.tile.slices_in(whole)
            before, after = stack.before(index, piece.tile), masks[index, rows, columns]
            either = before | after
            if not bool(either.any()):  # smaller than a pixel of the image
                continue
            change[index] = 1 - float((before & after).sum()) / float(either.sum())
            uncertainty[index] = piece.uncertainty[either].mean()
    one = like[0] if isinstance(like, list | tuple) and len(like) else like
    device = one.device if isinstance(one, Tensor) else None

    def convert(values: Tensor) -> Array:
        return values.numpy() if device is None else values.to(device)

    def probs() -> Array:
        values = torch.stack([stack.window(plane, whole).float() for plane in stack.native]) if count else masks.float()
        for index, piece in enumerate(pieces):
            if piece is not None:
                rows, columns = piece.tile.slices_in(whole)
                values[index, rows, columns] = piece.probs.float()
        return convert(values)

    return MaskStack(convert(masks), convert(change), convert(uncertainty), probs, time.perf_counter() - started)


def _part(masks: Tensor, pieces: Sequence[_Piece | None], stack: Stack) -> None:
    """Gives every pixel that several refined masks claim to the likeliest of them, in place."""
    whole = Tile(0, 0, *stack.size)
    likeliest = torch.full(stack.size, -1.0)
    owner = torch.full(stack.size, -1)
    for index, piece in enumerate(pieces):
        tile = whole if piece is None else piece.tile
        rows, columns = tile.slices_in(whole)
        # of two that are as likely, the one whose pixel it was; a mask that stays as it is goes before all others
        own = stack.before(index, tile).float()
        probs = 2 * own if piece is None else piece.probs.float() + TIE * own
        wins = masks[index, rows, columns] & (probs > likeliest[rows, columns])
        likeliest[rows, columns] = torch.where(wins, probs, likeliest[rows, columns])
        owner[rows, columns] = torch.where(wins, index, owner[rows, columns])
    had = masks.flatten(1).any(1)
    for index in range(len(pieces)):
        masks[index] &= owner == index
    for _ in range(len(pieces)):
        lost = (had & ~masks.flatten(1).any(1)).nonzero().flatten().tolist()
        for index in lost:  # it keeps what it came with
            own = stack.before(index, whole)
            masks &= ~own
            masks[index] = own
        if not lost:
            break
