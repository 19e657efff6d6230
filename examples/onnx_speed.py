"""How fast an exported step is beside torch, in one run, in turns, with one thread each.

    pip install "ddps[onnx]" && ddps export -o model.onnx
    python examples/onnx_speed.py model.onnx

torch runs the step as `DDPSRefiner.refine` does in float32, with its shortcuts for CPUs; processor time of the process,
so that other programs on the machine count for less.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

torch.set_num_threads(1)


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="what ddps export wrote")
    parser.add_argument("--model", default="universal", help="what it was exported from")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="sides of a square image, in pixels")
    parser.add_argument("--slots", type=int, default=6)
    parser.add_argument("--repeat", type=int, default=7)
    args = parser.parse_args()

    import onnxruntime

    from ddps import DDPSRefiner
    from ddps.models.fold import folded
    from ddps.models.slot_unet import SlotUNet, channels_last

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(args.file), options, providers=["CPUExecutionProvider"])
    network = DDPSRefiner.from_pretrained(args.model, device="cpu", dtype=torch.float32).network
    assert isinstance(network, SlotUNet)
    fast = channels_last(folded(network))
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, one thread, {args.slots} slots")
    for side in args.sizes:
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(1, 3, side, side, generator=generator)
        probs = torch.rand(1, args.slots, side, side, generator=generator).softmax(1)
        mask = torch.randint(args.slots, (1, side // 2, side // 2), generator=generator)
        feed = {"image": image.numpy(), "probs": probs.numpy(), "mask": mask.numpy(), "step": np.array([19])}

        @torch.no_grad()
        def in_torch(image: torch.Tensor = image, probs: torch.Tensor = probs, mask: torch.Tensor = mask) -> object:
            condition = fast.condition(image.contiguous(memory_format=torch.channels_last), probs)
            return fast.finish(fast.denoise(mask, 19, condition), condition)

        def in_onnx(feed: dict[str, np.ndarray] = feed) -> object:
            return session.run(["logits"], feed)

        in_torch(), in_onnx()
        times = [(seconds(in_torch), seconds(in_onnx)) for _ in range(args.repeat)]
        ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(b / a for a, b in times)
        print(f"{side} x {side}: torch {ours:.3f} s, onnxruntime {theirs:.3f} s, {ratio:.2f} times torch's time")


if __name__ == "__main__":
    main()
