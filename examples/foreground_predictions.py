"""Predictions of a published segmentor for one class against the rest, as training pairs for a refiner.

DeepLabV3 (see examples/onnx_segmentor.py) knows people; a data set of dressed people labels everything that belongs to
the person. So "person" against the union of all labels but the first is a real segmentor's prediction with truth:

    python examples/foreground_predictions.py deeplabv3_mobilenetv2_voc_257.onnx DATA/ccp_fashion OUT/ccp_fashion/voc

writes `OUT/…/{train,val}/<stem>.npz` at the network's own stride and a `classes.json` with the merge rule.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from ddps.atomic import atomic_write
from ddps.cli.report import write_text

SIDE, STRIDE, PERSON = 257, 4, 15


def foreground(session: onnxruntime.InferenceSession, photo: Image.Image, index: int) -> np.ndarray:
    """(2, 65, 65) float16 probabilities of background and the class, in steps of 1/255."""
    pixels = np.asarray(photo.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1
    (logits,) = session.run(None, {session.get_inputs()[0].name: pixels[None]})
    odds = np.exp(logits[0] - logits[0].max(-1, keepdims=True))
    share = (odds[..., index] / odds.sum(-1))[::STRIDE, ::STRIDE]
    return (np.rint(np.stack([1 - share, share]) * 255) / 255).astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the ONNX file")
    parser.add_argument("data", type=Path, help="folder with train/images, val/images and classes.json")
    parser.add_argument("out", type=Path)
    parser.add_argument("--index", type=int, default=PERSON, help="of the class in the segmentor's output")
    args = parser.parse_args()
    session = onnxruntime.InferenceSession(str(args.model), providers=["CPUExecutionProvider"])
    for split in ("train", "val"):
        (args.out / split).mkdir(parents=True, exist_ok=True)
        for path in sorted((args.data / split / "images").iterdir()):
            probs = foreground(session, Image.open(path).convert("RGB"), args.index)
            with atomic_write(args.out / split / f"{path.stem}.npz", overwrite=True) as file:
                np.savez_compressed(file, probs=probs)
    classes = json.loads((args.data / "classes.json").read_text())["num_classes"]
    rule = {"classes": ["rest", "foreground"], "num_classes": 2, "merge": [0] + [1] * (classes - 1)}
    write_text(json.dumps(rule) + "\n", args.out / "classes.json", overwrite=True)


if __name__ == "__main__":
    main()
