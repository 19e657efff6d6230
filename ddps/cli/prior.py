"""`ddps prior`: what a model believes about masks when it is shown nothing else, as one picture."""

import argparse
import json
from pathlib import Path

import torch

from ..datasets import read_classes
from ..errors import InputError
from ..models.paper import FeaturesDenoiser
from ..predictions import read_prediction_file
from ..prior_picture import PriorRequest, draw_prior
from ..refiner import DDPSRefiner
from .options import whole
from .report import check_new, check_picture, write_picture


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "prior",
        help="show what a model believes about masks without an image",
        description="Samples masks with the condition removed and, with --mask, noises a true mask to several levels "
        "and restores it. Class-agnostic weights see a blank image and a segmentor that finds all classes equally "
        "likely; the paper's models see features of zero, which only those with condition dropout have learnt to do "
        "without.",
    )
    default = PriorRequest()
    parser.add_argument(
        "model", nargs="?", default="universal", metavar="MODEL", help="embedded weights, a folder or a Hub id"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="picture, .png or .jpg")
    parser.add_argument("--mask", type=Path, metavar="FILE", help="true mask to noise and restore, .png, .npy or .npz")
    parser.add_argument("--class-names", type=Path, metavar="FILE", help="classes.json of the mask, for its legend")
    parser.add_argument("--ignore-index", type=int, default=255, metavar="N", help="void in the mask (default: 255)")
    parser.add_argument("--samples", type=whole(0, 32), default=default.samples, metavar="N", help="masks from noise")
    parser.add_argument(
        "--noise",
        type=float,
        nargs="+",
        default=list(default.noise),
        metavar="SHARE",
        help="shares of the pixels of the mask that are noised (default: 0.25 0.5 0.75 0.9)",
    )
    parser.add_argument("--steps", type=whole(1, 4096), metavar="N", help="passes of a sample (default: all)")
    parser.add_argument(
        "--restore-steps", type=whole(1, 4096), default=1, metavar="N", help="passes of a restored mask (default: 1)"
    )
    parser.add_argument("--sampler", choices=("free", "posterior"), default=default.sampler)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise (default: 0)")
    parser.add_argument(
        "--classes", type=whole(2, 64), default=default.classes, metavar="N", help="of samples, where nothing says"
    )
    parser.add_argument(
        "--size", type=whole(16, 8192), default=256, metavar="PX", help="side of samples without a mask"
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    parser.add_argument("--overwrite", action="store_true", help="replace the picture if it exists")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    check_picture(args.out)
    check_new(args.out, args.overwrite)
    if args.mask is None and not args.samples:
        raise InputError("something to show", "--samples 0 without --mask", "--samples 4")
    if not 0 <= args.seed < 2**62:
        raise InputError("--seed from 0 to 2**62 - 1", str(args.seed), "0")
    if any(not 0 < share < 1 for share in args.noise):
        raise InputError("--noise as shares between 0 and 1", " ".join(map(str, args.noise))[:60], "0.25 0.5 0.75")
    space = None if args.class_names is None else read_classes(args.class_names)
    mask = None if args.mask is None else _read_mask(args.mask, args.ignore_index)
    refiner = DDPSRefiner.from_pretrained(args.model, device=args.device)
    if mask is not None:
        _check_mask(refiner, mask, args.mask)
    request = PriorRequest(
        samples=args.samples,
        noise=tuple(args.noise),
        steps=args.steps,
        restore_steps=args.restore_steps,
        sampler=args.sampler,
        seed=args.seed,
        classes=args.classes,
        size=(args.size, args.size),
    )
    picture, restored = draw_prior(refiner, request, mask, () if space is None else space.names)
    write_picture(picture, args.out, args.overwrite)
    rows = [{"noise": one.noise, "restored_percent": one.accuracy} for one in restored]
    print(json.dumps({"picture": str(args.out), "restored": rows}, indent=2) if args.json else args.out)
    return 0


def _read_mask(path: Path, ignore_index: int) -> torch.Tensor:
    values, kind = read_prediction_file(path)
    if values.ndim != 2 or values.dtype.kind not in "iub":
        raise InputError(f"a label map (H, W) of whole numbers in {path}", f"{kind} {values.shape}", "a mask in .png")
    mask = torch.from_numpy(values.astype("int64"))
    return mask.masked_fill(mask == ignore_index, -1)


def _check_mask(refiner: DDPSRefiner, mask: torch.Tensor, path: Path) -> None:
    network = refiner.network
    classes = 65536
    if isinstance(network, FeaturesDenoiser):
        classes = network.network.num_classes - refiner.config.labels.void_first
    low, high = int(mask.min()), int(mask.max())
    if low < -1 or high >= classes:
        raise InputError(f"{path} with classes 0 to {classes - 1} or void", f"{low} to {high}", "--ignore-index N")
