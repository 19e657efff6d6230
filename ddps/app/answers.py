"""What the page's buttons do: uploads in, HTML and files out. No Gradio."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..outputs import Refinement
from ..refiner import DDPSRefiner
from ..visualize import Palette, default_palette, heat_map
from . import markup, pictures
from .uploads import Upload

MOST_RECORDED = 1 << 25
"""Pixels, over all steps, of which the strip's label maps are kept; each takes 8 bytes."""
MOST_SAVED = 1 << 26
"""Probabilities, K · H · W, that may be downloaded; each takes 4 bytes before compression."""
CROPS = 4


@dataclass(frozen=True)
class Options:
    """What the page's controls say; `DDPSRefiner.refine` checks the values."""

    steps: int
    sampler: str
    seed: int


def read_options(steps: float | None, sampler: str | None, seed: float | None) -> Options:
    """Options from what the controls hold: an emptied number field is None.

    Raises:
        InputError: a number that is missing or not whole.
    """
    numbers = []
    for name, value in (("steps", steps), ("seed", seed)):
        if value is None or not float(value).is_integer():
            raise InputError(f"{name} as a whole number", "nothing" if value is None else f"{value:g}", "0")
        numbers.append(int(value))
    return Options(numbers[0], sampler or "free", numbers[1])


def refine_upload(refiner: DDPSRefiner, upload: Upload, options: Options) -> Refinement:
    """Refines an upload, keeping the label map after every step unless the image is too large for that."""
    height, width = upload.known.size
    refined = refiner.refine(
        upload.pixels,
        upload.values,
        kind=upload.known.kind,
        ignore_index=upload.known.ignore_index,
        steps=options.steps,
        sampler=options.sampler,
        seed=options.seed,
        return_trajectory=height * width * options.steps <= MOST_RECORDED,
    )
    assert isinstance(refined, Refinement)  # one image, one answer
    return refined


def show_upload(refiner: DDPSRefiner, upload: Upload) -> str:
    """HTML of the image with its prediction, before anything is refined."""
    names, palette = _classes(refiner, upload)
    before = _before(upload)
    bare = bare_class(names, upload.known.num_classes)
    picture = pictures.masked(upload.photo, before, palette, bare)
    legend = markup.legend(before, before, palette, names, bare)
    height, width = upload.known.size
    facts = [(f"{width} × {height}", "pixels"), (_of_kind(upload), "prediction")]
    return markup.preview(picture, legend, markup.facts(facts))


def show_answer(refiner: DDPSRefiner, upload: Upload, refined: Refinement, options: Options) -> tuple[str, str]:
    """HTML of a refined upload: comparison, legend and figures; crops, uncertainty, changes and steps."""
    names, palette = _classes(refiner, upload)
    before, after = _before(upload), np.asarray(refined.labels)
    changed, uncertainty = np.asarray(refined.changed), np.asarray(refined.uncertainty)
    bare = bare_class(names, upload.known.num_classes)
    photo = upload.photo
    crops = []
    for left, above, right, below in pictures.most_changed(changed, CROPS):
        inside = photo.crop((left, above, right, below))
        two = [
            pictures.masked(inside, labels[above:below, left:right], palette, bare, alpha=0.45)
            for labels in (before, after)
        ]
        crops.append((pictures.magnified(two[0]), pictures.magnified(two[1])))
    strip = [("your mask", pictures.masked(photo, before, palette, bare, long_side=pictures.STEP_SIDE))]
    for step, labels in enumerate(refined.trajectory or (), 1):
        picture = pictures.masked(photo, np.asarray(labels), palette, bare, long_side=pictures.STEP_SIDE)
        strip.append((f"step {step}", picture))
    strip.append(("answer", pictures.masked(photo, after, palette, bare, long_side=pictures.STEP_SIDE)))
    height, width = upload.known.size
    one_pass = options.sampler == "single"
    facts = [
        (f"{refined.seconds:.2f} s", "to refine"),
        (f"{100 * float(changed.mean()):.1f} %", "of pixels changed"),
        (f"{100 * float(uncertainty.mean()):.1f} %", "mean uncertainty"),
        ("1 pass" if one_pass else f"{options.steps} {'step' if options.steps == 1 else 'steps'}", options.sampler),
        (f"{width} × {height}", "pixels"),
    ]
    legend = markup.legend(before, after, palette, names, bare)
    steps = strip if refined.trajectory is not None else []
    heat, difference = pictures.fit(heat_map(uncertainty)), pictures.changes(photo, changed)
    comparison = markup.comparison(
        pictures.masked(photo, before, palette, bare),
        pictures.masked(photo, after, palette, bare),
        legend,
        markup.facts(facts),
    )
    return comparison, markup.details(crops, heat, difference, steps)


def save_mask(upload: Upload, refined: Refinement, folder: Path) -> Path:
    """Writes the refined mask as a PNG of class ids with a palette."""
    return refined.save(folder / f"{upload.stem}_refined.png")


def save_probs(upload: Upload, refined: Refinement, folder: Path) -> Path | None:
    """Writes probabilities, labels and uncertainty as an .npz; None where they are too many for a download."""
    height, width = upload.known.size
    if upload.known.num_classes * height * width > MOST_SAVED:
        return None
    return refined.save(folder / f"{upload.stem}_refined.npz")


def bare_class(names: tuple[str, ...], num_classes: int) -> int | None:
    """The class that is left uncoloured: one called background, or class 0 of two without names."""
    lower = [name.lower() for name in names]
    if "background" in lower:
        return lower.index("background")
    return 0 if num_classes == 2 and not names else None


def _before(upload: Upload) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    with torch.no_grad():
        return upload.known.argmax().numpy()


def _classes(refiner: DDPSRefiner, upload: Upload) -> tuple[tuple[str, ...], Palette]:
    space = refiner.config.labels
    return upload.names or space.names, space.palette or default_palette(upload.known.num_classes)


def _of_kind(upload: Upload) -> str:
    count = upload.known.num_classes
    what = {"labels": "label map", "probs": "probabilities", "logits": "logits"}[upload.known.kind]
    return f"{what}, {count} {'class' if count == 1 else 'classes'}"
