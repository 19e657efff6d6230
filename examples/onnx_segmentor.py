"""A published segmentor, its low-resolution logits refined: photos in, a before/after picture out.

The segmentor is DeepLabV3 with a MobileNetV2 backbone for the 21 PASCAL VOC classes as an ONNX file: input
(1, 257, 257, 3) in [-1, 1], output logits (1, 257, 257, 21) that were upsampled from 33 x 33 and so are very blobby.

    pip install torch==2.13.0 ".[demo,onnx]"
    python examples/onnx_segmentor.py deeplabv3_mobilenetv2_voc_257.onnx -o before_after.png

Without photos it takes astronaut and chelsea out of scikit-image's wheel.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from ddps import DDPSRefiner, Refinement
from ddps.cli.demo import find_photo
from ddps.cli.report import write_picture
from ddps.visualize import default_palette, heat_map, overlay, side_by_side, stack

VOC = """background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person
pottedplant sheep sofa train tvmonitor"""
CLASSES = VOC.split()
SIDE = 257
VOID = 255


def segment(session: onnxruntime.InferenceSession, photo: Image.Image) -> np.ndarray:
    """(21, 257, 257) float32 logits of a photo, which is stretched to a square; refine() stretches them back."""
    pixels = np.asarray(photo.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1
    (logits,) = session.run(None, {session.get_inputs()[0].name: pixels[None]})
    return logits[0].transpose(2, 0, 1)


def show(photo: Image.Image, labels: np.ndarray) -> Image.Image:
    """The classes over the photo, which stays bare in the background."""
    return overlay(photo, np.where(labels == 0, VOID, labels), default_palette(len(CLASSES)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the ONNX file")
    parser.add_argument("photos", type=Path, nargs="*")
    parser.add_argument("-o", "--output", type=Path, default=Path("before_after.png"))
    parser.add_argument("--weights", default="universal", help="refiner: embedded name, folder or Hub id")
    parser.add_argument("--height", type=int, default=320, help="of a panel, in pixels")
    args = parser.parse_args()
    session = onnxruntime.InferenceSession(str(args.model), providers=["CPUExecutionProvider"])
    refiner = DDPSRefiner.from_pretrained(args.weights)
    rows = []
    for path in args.photos or [find_photo("astronaut.png"), find_photo("chelsea.png")]:
        photo = Image.open(path).convert("RGB")
        logits = segment(session, photo)
        refined = refiner.refine(photo, logits, kind="logits")
        assert isinstance(refined, Refinement)
        labels = np.asarray(refined.labels)
        found = [CLASSES[k] for k in np.unique(labels) if k and (labels == k).mean() > 0.005]
        print(f"{path.name}: {', '.join(found)}; {100 * np.mean(refined.changed):.1f} % of the pixels changed")
        own = segmentor_alone(logits, labels.shape)
        panels = [("photo", photo), ("segmentor", show(photo, own)), ("refined by ddps", show(photo, labels))]
        rows.append(side_by_side([*panels, ("uncertainty", heat_map(np.asarray(refined.uncertainty)))], args.height))
    write_picture(stack(rows), args.output, overwrite=True)
    print(f"wrote {args.output}")


def segmentor_alone(logits: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(H, W) what the segmentor alone says: its logits, resized, and the best class."""
    channels = [Image.fromarray(c).resize((size[1], size[0]), Image.Resampling.BILINEAR) for c in logits]
    return np.stack([np.asarray(c) for c in channels]).argmax(0)


if __name__ == "__main__":
    main()
