"""Time and peak memory of converting a checkpoint of real size, and of one mask made with it (Linux and macOS).

    python examples/convert_cost.py --encoder MiT-B2 --steps 1

The checkpoint has random weights under the released names, in the layout of a training checkpoint of mmcv: raw weights,
their averages, numpy scalars in the notes, and the optimizer's state. Needs pip install 'ddps[transformers]'.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ddps import DDPSConfig, DDPSRefiner
from ddps.config import BackboneConfig, FeaturesNetwork, ScheduleConfig
from ddps.refiner import build_network
from ddps.segmentors.mit import SIZES

UNIT = 2**30 if sys.platform == "darwin" else 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=SIZES, default="MiT-B2")
    parser.add_argument("--width", type=int, default=256, help="of the head: 256, as in the released models")
    parser.add_argument("--size", default="512x512", help="WIDTHxHEIGHT in pixels")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--write", type=Path, help="only write the checkpoint there")
    args = parser.parse_args()
    if args.write is not None:
        write_checkpoint(args.write, args.encoder, args.width)
        return
    width, height = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        path, model = Path(folder, "random.pth"), Path(folder, "model")
        measure(__file__, "--encoder", args.encoder, "--width", args.width, "--write", path)
        seconds, peak = measure("-m", "ddps.cli.main", "convert", path, "-o", model)
        print(f"converting {path.stat().st_size / 2**30:.2f} GiB: {seconds:.1f} s, peak memory {peak:.2f} GiB")
        refiner = DDPSRefiner.from_pretrained(model)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    start = time.perf_counter()
    refiner.refine(image, steps=args.steps)
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT
    where = f"{refiner.device}, {torch.get_num_threads()} threads"
    print(f"refining {args.size} in {args.steps} steps, {where}: {seconds:.1f} s, peak memory {peak:.2f} GiB")


def measure(*arguments: object) -> tuple[float, float]:
    """Seconds and peak memory in GiB of a Python process of its own."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, arguments)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {arguments}")
    return time.perf_counter() - start, usage.ru_maxrss / UNIT


def write_checkpoint(path: Path, encoder: str, width: int) -> None:
    widths, depths = SIZES[encoder]
    config = DDPSConfig(
        network=FeaturesNetwork(in_channels=widths, channels=width, dim=width, out_dim=width),
        schedule=ScheduleConfig(num_steps=100),
        backbone=BackboneConfig(embed_dims=widths, depths=depths),
    )
    network = build_network(config)
    ours = network.state_dict()
    state = {name if name.startswith("backbone.") else f"decode_head.{name}": value for name, value in ours.items()}
    averages = {"ema_" + name.replace(".", "_"): value.clone() for name, value in state.items()}
    trained = [p for name, p in network.named_parameters() if name.startswith(("unet.", "conv_seg_new."))]
    moments = {i: {"exp_avg": p.detach().clone(), "exp_avg_sq": p.detach() ** 2} for i, p in enumerate(trained)}
    meta = {"iter": 160000, "hook_msgs": {"best_score": np.float64(0.4935)}}
    torch.save({"meta": meta, "state_dict": {**state, **averages}, "optimizer": {"state": moments}}, path)


if __name__ == "__main__":
    main()
