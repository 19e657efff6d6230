"""`ddps export`: one denoising step of a model → a file for ONNX Runtime or `torch.export`."""

import argparse
from pathlib import Path

from ..errors import InputError
from ..export import FORMATS, Format, export
from ..refiner import DDPSRefiner
from .report import check_new, to_json


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "export",
        help="write one denoising step for ONNX Runtime or torch.export",
        description="Writes one denoising step of MODEL for any height, width, batch and number of slots, and holds it "
        "against torch on several sizes first. examples/onnx_inference.py runs it with numpy alone.",
    )
    parser.add_argument(
        "model", nargs="?", default="universal", metavar="MODEL", help="embedded weights, a folder or a Hub id"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=".onnx or .pt2 to write")
    parser.add_argument("--format", choices=FORMATS, help="default: by the suffix of FILE")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    format = _format(args.output, args.format)
    check_new(args.output, args.overwrite)
    model = DDPSRefiner.from_pretrained(args.model, device="cpu")
    made = export(model, args.output, format, args.overwrite)
    if args.json:
        facts = {
            "file": str(made.path),
            "format": made.format,
            "inputs": list(made.inputs),
            "bytes": made.bytes,
            "difference": made.difference,
        }
        print(to_json(facts))
        return 0
    print(
        f"{made.path}: {made.bytes / 2**20:.1f} MiB, inputs {', '.join(made.inputs)}; "
        f"differs from torch by at most {made.difference:.1e} in the logits"
    )
    return 0


def _format(path: Path, asked: Format | None) -> Format:
    for format in FORMATS:
        if asked == format or (asked is None and path.suffix.lower() == f".{format}"):
            return format
    raise InputError("an output ending in .onnx or .pt2", repr(str(path)), "one of these, or --format")
