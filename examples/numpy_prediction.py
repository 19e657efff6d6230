"""Plain numpy: whatever a segmentor or a tool left in an array or a file, refined.

    python examples/numpy_prediction.py photo.jpg prediction.npy -o mask.png

The prediction is (K, h, w) logits or probabilities at any resolution, or an (h, w) label map of whole numbers.
"""

import argparse

import numpy as np
from PIL import Image, ImageOps

from ddps import DDPSRefiner

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image")
parser.add_argument("prediction")
parser.add_argument("-o", "--output", default="mask.png")
args = parser.parse_args()

image = np.array(ImageOps.exif_transpose(Image.open(args.image)).convert("RGB"))  # (H, W, 3) uint8, RGB
better = DDPSRefiner.from_pretrained().refine(image, np.load(args.prediction))
print(f"{args.output}: {len(better.palette)} classes, {100 * better.changed.mean():.1f} % of the pixels changed")
better.save(args.output, overwrite=True)
