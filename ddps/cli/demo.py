"""`ddps demo`: real photos with hand-drawn rough masks, refined offline by the embedded weights."""

import argparse
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from ..inputs import decode, open_image
from ..metrics import SegmentationMetrics
from ..outputs import Refinement
from ..progress import Progress
from ..refiner import DDPSRefiner
from ..visualize import Palette, default_palette, heat_map, legend, overlay, side_by_side, stack
from .options import add_model_options, load_refiner
from .outlines import VOID, Outlines, read_outlines
from .report import check_new, percent, table, to_json, write_picture

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
DEFAULT_FOLDER = Path("ddps-demo")
SHEET = "demo.png"
_INSTALL = 'pip install "ddps[demo]", whose scikit-image brings the photos'


@dataclass(frozen=True)
class Result:
    """One photo's figures in percent against the fine outlines, and its panels."""

    photo: str
    classes: int
    changed: float
    base: dict[str, float]
    refined: dict[str, float]
    seconds: float
    panels: list[tuple[str, Image.Image]]
    key: tuple[Palette, tuple[str, ...]]


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "demo",
        help="refine rough masks of real photos, offline",
        description="Refines rough masks, drawn by hand as coarse polygons, of photos that come with scikit-image. "
        "Writes pictures of what changed and measures it against finer outlines, also drawn by hand.",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help=f"for the pictures (default: {DEFAULT_FOLDER}, made anew)"
    )
    add_model_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace pictures that are in FOLDER")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    folder = DEFAULT_FOLDER if args.output is None else args.output
    # The default folder is the demo's own: a second run starts over without being asked.
    overwrite = args.overwrite or args.output is None
    photos = {name: find_photo(read_mask_outlines("rough", name).image) for name in PHOTOS}
    if folder.exists() and not folder.is_dir():
        raise InputError("a folder for the pictures", f"the file {str(folder)!r}", "another name")
    pictures = [folder / f"{name}.png" for name in PHOTOS]
    for path in (*pictures, folder / SHEET):
        check_new(path, overwrite, make_folder=True)
    refiner = load_refiner(args)
    bar, results = Progress(len(photos), "refining"), []
    for name, path in photos.items():
        results.append(refine_photo(refiner, name, path))
        bar.advance()
    folder.mkdir(parents=True, exist_ok=True)
    for path, result in zip(pictures, results, strict=True):
        write_picture(draw(result, 480), path, overwrite)
    write_picture(stack([draw(result, 240) for result in results]), folder / SHEET, overwrite)
    print(to_json(_report(results, folder)) if args.json else _text(results, folder))
    return 0


def read_mask_outlines(kind: str, photo: str) -> Outlines:
    """The package's outlines of a photo.

    Args:
        kind: "rough", drawn as someone in a hurry would, which is what is refined; or "fine", drawn with care.
        photo: one of `PHOTOS`.
    """
    return read_outlines(Path(str(resources.files("ddps") / "cli" / "demo_masks" / kind / f"{photo}.json")))


def find_photo(file_name: str) -> Path:
    """A photo in scikit-image's wheel, found without importing it, so that nothing is downloaded.

    Raises:
        InputError: scikit-image is not installed, or this version comes without the photo.
    """
    found = find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise InputError("the package scikit-image, whose photos the demo shows", "none installed", _INSTALL)
    path = Path(found.submodule_search_locations[0]) / "data" / file_name
    if not path.is_file():
        raise InputError(f"scikit-image's photo {file_name}", "a version without it", 'pip install -U "ddps[demo]"')
    return path


def refine_photo(refiner: DDPSRefiner, name: str, path: Path) -> Result:
    """Refines one photo's rough mask and measures both masks against the fine outlines.

    Args:
        refiner: any that takes any number of classes.
        name: one of `PHOTOS`.
        path: the photo.
    """
    rough, fine = read_mask_outlines("rough", name), read_mask_outlines("fine", name)
    with open_image(path) as opened:
        photo = decode(opened, name).convert("RGB")
    if photo.size != rough.size:
        raise InputError(f"{path.name} of {rough.size} pixels", str(photo.size), 'pip install -U "ddps[demo]"')
    before = rough.labels()
    refined = refiner.refine(photo, before, kind="labels")
    assert isinstance(refined, Refinement)  # one photo, one answer
    after, truth = np.asarray(refined.labels), fine.labels()
    scores = []
    for labels in (before, after):
        metrics = SegmentationMetrics(len(fine.classes), VOID)
        metrics.update(labels, truth)
        scores.append(metrics.as_dict())
    palette = default_palette(len(rough.classes))
    panels = [
        ("photo", photo),
        (f"rough mask, boundary IoU {percent(scores[0]['mbiou'])}", _over(photo, before, palette)),
        (f"refined, boundary IoU {percent(scores[1]['mbiou'])}", _over(photo, after, palette)),
        ("uncertainty", heat_map(np.asarray(refined.uncertainty))),
    ]
    changed = 100.0 * float(np.asarray(refined.changed).mean())
    key = (palette, rough.classes)
    return Result(name, len(rough.classes), changed, scores[0], scores[1], refined.seconds, panels, key)


def draw(result: Result, max_height: int) -> Image.Image:
    """Photo, rough mask, refined mask and uncertainty side by side, the classes below.

    Args:
        result: of `refine_photo`.
        max_height: of the photo, in pixels.
    """
    row = side_by_side(result.panels, max_height)
    palette, names = result.key
    return stack([row, legend(palette, names, range(1, len(names)), row.width)])


def _over(photo: Image.Image, labels: np.ndarray, palette: Palette) -> Image.Image:
    """The mask over the photo, which stays bare where the mask says background, class 0."""
    return overlay(photo, np.where(labels == 0, VOID, labels), palette)


def _report(results: list[Result], folder: Path) -> dict[str, object]:
    photos = [
        {
            "photo": result.photo,
            "changed": result.changed,
            "base": result.base,
            "refined": result.refined,
            "seconds": result.seconds,
        }
        for result in results
    ]
    return {"photos": photos, "folder": str(folder)}


def _text(results: list[Result], folder: Path) -> str:
    rows = [["photo", "classes", "changed", "mIoU", "refined", "boundary IoU", "refined", "gain", "seconds"]]
    for result in results:
        base, refined = result.base, result.refined
        rows.append(
            [
                result.photo,
                str(result.classes),
                f"{result.changed:.1f} %",
                percent(base["miou"]),
                percent(refined["miou"]),
                percent(base["mbiou"]),
                percent(refined["mbiou"]),
                percent(refined["mbiou"] - base["mbiou"], signed=True),
                f"{result.seconds:.2f}",
            ]
        )
    note = "Rough and refined masks against finer outlines that were drawn by hand, in percent."
    return f"{table(rows)}\n\n{note}\nPictures: {folder}/{SHEET} and one per photo beside it."
