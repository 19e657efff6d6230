"""Time and peak memory of one refinement, for an image of any size and any number of classes (Linux and macOS).

    python examples/cost.py --size 3840x2160 --classes 150

The photo is scikit-image's astronaut, resized; the prediction is smooth random logits at stride 4, in which many
classes compete everywhere, so it is a hard case: no tile is sure of anything.
"""

import argparse
import resource
import sys
import time
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ddps import DDPSRefiner, Refinement
from ddps.cli.demo import find_photo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="480x360", help="WIDTHxHEIGHT in pixels")
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--model", default="universal")
    parser.add_argument("--device")
    parser.add_argument(
        "--one-size",
        action="store_true",
        help="see images at their own size only: working_size 0, no coarse first pass",
    )
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    photo = np.asarray(Image.open(find_photo("astronaut.png")).convert("RGB").resize((width, height)))
    noise = torch.randn(
        (1, args.classes, height // 64 + 1, width // 64 + 1), generator=torch.Generator().manual_seed(0)
    )
    logits = F.interpolate(2 * noise, (height // 4, width // 4), mode="bilinear", align_corners=False)[0].numpy()
    refiner = DDPSRefiner.from_pretrained(args.model, device=args.device)
    if args.one_size:
        refiner.config = replace(refiner.config, inference=replace(refiner.config.inference, working_size=0))
    seconds = []
    for _ in range(args.repeat):
        start = time.perf_counter()
        assert isinstance(refiner.refine(photo, logits, kind="logits"), Refinement)
        seconds.append(time.perf_counter() - start)
    unit = 2**30 if sys.platform == "darwin" else 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(f"{args.size}, {args.classes} classes, {refiner.device}, {torch.get_num_threads()} threads:", end=" ")
    print(f"{np.median(seconds):.2f} s (longest {max(seconds):.2f}), peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
